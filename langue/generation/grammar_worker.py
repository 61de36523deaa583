"""What arrives: a vocabulary, and constraints as JSON. What leaves: each as a compiled grammar
would be used, or why not; in a process of its own (langue/child.py).
"""

import json
import struct
from collections.abc import Callable, Sequence

from langue.errors import ModelError
from langue.generation.grammar import compile_grammar, lark_of, vocabulary_of

MEMORY = 512 << 20  # bytes that constraints may take, all that are tried together


def pack(tokens: Sequence[bytes]) -> bytes:
    """Tokens as one message."""
    sizes = struct.pack(f"<{len(tokens)}I", *(len(token) for token in tokens))
    return struct.pack("<I", len(tokens)) + sizes + b"".join(tokens)


def unpack(message: bytes) -> list[bytes]:
    """The tokens of a message."""
    (count,) = struct.unpack_from("<I", message)
    sizes = struct.unpack_from(f"<{count}I", message, 4)
    tokens = list[bytes]()
    at = 4 + 4 * count
    for size in sizes:
        tokens.append(message[at : at + size])
        at += size
    return tokens


def begin(message: bytes) -> Callable[[bytes], bytes]:
    """What answers constraints (form and value), for the vocabulary of a message.

    An answer is the grammar, or what is wrong, where, and what to do.
    """
    vocabulary = vocabulary_of(unpack(message))
    compile_grammar(vocabulary, "grammar", "start: /.?/")  # what is allocated once

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
