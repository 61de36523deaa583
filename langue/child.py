"""What arrives: work that a hostile input may make endless, as messages. What leaves: answers, from
a process of its own that has bounded memory and is killed where it takes too long.

Compiling a grammar or rendering a template cannot be stopped otherwise. The process starts with the
first message, stays, and ends with the one that started it.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

START = 60.0  # seconds in which the process is up
STACK = 2 << 20  # bytes; other threads have 8 MB or more


class NotStarted(Exception):
    """A process that does not come up."""


class Gone(Exception):
    """A process that ended where it should have answered, twice."""


class Child:
    """The process, seen from the one that asks it, which asks one thing at a time."""

    def __init__(self, module: str, memory: int, first: bytes = b"") -> None:
        """module: whose `begin` makes of the first message what answers each that follows. memory:
        bytes that these may take, all together.
        """
        self._module = module
        self._memory = memory
        self._first = first
        self.process: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._is_up = False

    def ask(self, message: bytes, seconds: float) -> bytes | None:
        """The answer; None where it takes longer, and the process was killed. NotStarted; Gone."""
        try:
            answer = self._ask(message, seconds)
        except (EOFError, OSError):  # it may have been killed from outside: once more
            self._restart()
            try:
                answer = self._ask(message, seconds)
            except (EOFError, OSError):
                self._restart()
                raise Gone from None
        if answer is None:
            self._restart()
        return answer

    def close(self) -> None:
        """End the process; the next message starts another."""
        if self._end is not None:
            self._end()
        self.process = None

    def _ask(self, message: bytes, seconds: float) -> bytes | None:
        if self.process is None:
            self._start()
        self._wait_until_up()
        self._requests.send_bytes(message)
        return self._answers.recv_bytes() if self._answers.poll(seconds) else None

    def _restart(self) -> None:
        self.close()
        self._start()

    def _start(self) -> None:
        """Start the process, whose start-up overlaps with what happens here meanwhile."""
        paths = [path or os.getcwd() for path in sys.path]
        code = (
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
            " from langue.child import answer_all; answer_all(sys.argv[2], int(sys.argv[3]))"
        )
        words = [json.dumps(paths), self._module, str(self._memory)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
        assert process.stdin is not None and process.stdout is not None
        self.process = process
        self._requests = _connection(process.stdin)
        self._answers = _connection(process.stdout)
        self._end = weakref.finalize(self, _end, process, self._requests, self._answers)
        self._is_up = False

    def _wait_until_up(self) -> None:
        if self._is_up:
            return
        try:
            self._requests.send_bytes(self._first)
            if not self._answers.poll(START):
                raise EOFError
            self._answers.recv_bytes()
        except (EOFError, OSError):
            self.close()
            raise NotStarted from None
        self._is_up = True


def _connection(stream: Any) -> Connection:
    """A pipe's end, for messages; it closes the descriptor itself."""
    handle = os.dup(stream.fileno())
    writable = stream.writable()
    stream.close()
    return Connection(handle, readable=not writable, writable=writable)


def _end(process: "subprocess.Popen[bytes]", *connections: Connection) -> None:
    process.kill()
    process.wait()
    for connection in connections:
        connection.close()


# --- in the process ---


def answer_all(module: str, memory: int) -> None:
    """Answer until the other process is gone, which is seen even while an answer is made."""
    from importlib import import_module

    begin = import_module(module).begin
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints must not print among the answers
    inner, outer = os.pipe()
    passed = Connection(outer, readable=False)
    threading.stack_size(STACK)  # smaller than any thread's that does the same afterwards
    arguments = (begin, Connection(inner, writable=False), answers, memory)
    answering = threading.Thread(target=_answer, args=arguments, daemon=True)
    answering.start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            passed.send_bytes(requests.recv_bytes())
    os._exit(0)


def _answer(
    begin: Callable[[bytes], Callable[[bytes], bytes]],
    requests: Connection,
    answers: Connection,
    memory: int,
) -> None:
    answer = begin(requests.recv_bytes())
    _bound_memory(memory)
    answers.send_bytes(b"")
    while True:
        message = requests.recv_bytes()
        try:
            made = answer(message)
        except BaseException:  # Rust's panics are no Exception; the other process sees the end
            os._exit(1)
        answers.send_bytes(made)


def _bound_memory(more: int) -> None:
    """Let the process grow by so many bytes, where the system tells its size (Linux)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + more, most))
