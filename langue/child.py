"""Run work that malicious input could make endless in a separate process, which has bounded memory
and is killed if it takes too long.

Compiling a grammar or rendering a template cannot be stopped in any other way. The process starts
with the first message, stays, and ends with its parent.
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

START = 60.0  # seconds within which the process must have started
STACK = 2 << 20  # bytes; other threads have 8 MB or more


class NotStarted(Exception):
    """The process did not start."""


class Gone(Exception):
    """The process ended twice instead of answering."""


class Child:
    """The parent's handle of the process, which handles one message at a time."""

    def __init__(self, module: str, memory: int, first: bytes = b"") -> None:
        """module: its function `begin` is called with the first message, and returns the function
        that answers each following one. memory: bytes that all answers together may take.
        """
        self._module = module
        self._memory = memory
        self._first = first
        self.process: subprocess.Popen[bytes] | None = None
        self._end: Any = None
        self._is_up = False

    def ask(self, message: bytes, seconds: float) -> bytes | None:
        """Return the answer, or None if it took longer than this and the process was killed.

        Raises NotStarted, or Gone if the process ended twice.
        """
        try:
            answer = self._ask(message, seconds)
        except (EOFError, OSError):  # it may have been killed from outside: try once more
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
        """End the process; the next message starts a new one."""
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
        """Start the process without waiting for it, so that its start-up overlaps with work
        here.
        """
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
            start_new_session=True,  # not interrupted by Ctrl-C
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
    """Return one end of a pipe as a Connection, which closes its own descriptor."""
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
    """Answer messages until the parent is gone; its end is noticed even during an answer."""
    from importlib import import_module

    begin = import_module(module).begin
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # stray prints must not mix with the answers
    inner, outer = os.pipe()
    passed = Connection(outer, readable=False)
    threading.stack_size(STACK)  # smaller than that of any thread that does the same work later
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
        except BaseException:  # Rust's panics are not an Exception; the parent sees the end
            os._exit(1)
        answers.send_bytes(made)


def _bound_memory(more: int) -> None:
    """Limit the growth of the process to this many bytes, if the system reports its size
    (Linux).
    """
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + more, most))
