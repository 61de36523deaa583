"""What arrives: a vocabulary, and constraints as JSON. What leaves: each as a compiled grammar
would be used, or why not; in a process of its own, which may be killed.

Compiling cannot be stopped otherwise. Here it has bounded memory, and a smaller stack than any
thread that compiles the same afterwards. The process ends with the one that started it.
"""

import contextlib
import json
import os
import resource
import struct
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

from langue.errors import ModelError
from langue.generation.grammar import compile_grammar, lark_of, vocabulary_of

MEMORY = 512 << 20  # bytes that constraints may take, all that are tried together
STACK = 2 << 20  # bytes; other threads have 8 MB or more


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


def _bound_memory(more: int) -> None:
    """Let the process grow by so many bytes, where the system tells its size (Linux)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + more, most))


def _answer(requests: Connection, answers: Connection, memory: int) -> None:
    """The first message is the vocabulary; each that follows a constraint: its form and value.

    An answer is the grammar, or what is wrong, where, and what to do.
    """
    vocabulary = vocabulary_of(unpack(requests.recv_bytes()))
    compile_grammar(vocabulary, "grammar", "start: /.?/")  # what is allocated once
    _bound_memory(memory)
    answers.send_bytes(b"")
    while True:
        form, value = json.loads(requests.recv_bytes())
        try:
            lark = lark_of(form, value)
            compile_grammar(vocabulary, form, lark)
            answer = {"lark": lark}
        except ModelError as error:
            answer = {"what": error.what, "where": error.where, "do": error.do}
        except RecursionError:
            answer = {"what": "it is nested too deeply", "where": form, "do": "nest it less"}
        except BaseException:  # Rust's panics are no Exception; the other process sees the end
            os._exit(1)
        answers.send_bytes(json.dumps(answer).encode())


def main(memory: int) -> None:
    """Answer until the other process is gone, which is seen even while a grammar compiles."""
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints must not print among the answers
    inner, outer = os.pipe()
    passed = Connection(outer, readable=False)
    threading.stack_size(STACK)
    arguments = (Connection(inner, writable=False), answers, memory)
    answering = threading.Thread(target=_answer, args=arguments, daemon=True)
    answering.start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            passed.send_bytes(requests.recv_bytes())
    os._exit(0)
