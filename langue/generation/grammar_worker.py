"""The process that compiles untrusted constraints (see langue/child.py): takes a vocabulary, then
constraints as JSON; returns for each the grammar to use, or what is wrong.
"""

import json
import struct
from collections.abc import Callable, Sequence

from langue.errors import ModelError
from langue.generation.grammar import compile_grammar, lark_of, vocabulary_of

MEMORY = 512 << 20  # limit in bytes for all constraints of the process together


def pack(tokens: Sequence[bytes]) -> bytes:
    """Encode tokens as one message."""
    sizes = struct.pack(f"<{len(tokens)}I", *(len(token) for token in tokens))
    return struct.pack("<I", len(tokens)) + sizes + b"".join(tokens)


def unpack(message: bytes) -> list[bytes]:
    """Decode the tokens of a message."""
    (count,) = struct.unpack_from("<I", message)
    sizes = struct.unpack_from(f"<{count}I", message, 4)
    tokens = list[bytes]()
    at = 4 + 4 * count
    for size in sizes:
        tokens.append(message[at : at + size])
        at += size
    return tokens


def begin(message: bytes) -> Callable[[bytes], bytes]:
    """Return a function that answers constraints (form and value) for the vocabulary in a message.

    An answer is the grammar, or what is wrong, where, and what to do.
    """
    vocabulary = vocabulary_of(unpack(message))
    # so that memory which is allocated once is allocated now
    compile_grammar(vocabulary, "grammar", "start: /.?/")

    def answer(asked: bytes) -> bytes:
        form, value = json.loads(asked)
        try:
            lark = lark_of(form, value)
            compile_grammar(vocabulary, form, lark)
            found = {"lark": lark}
        except ModelError as error:
            found = {"what": error.what, "where": error.where, "do": error.do}
        except RecursionError:
            found = {"what": "it is nested too deeply", "where": form, "do": "nest it less"}
        return json.dumps(found).encode()

    return answer
