"""Child processes that start within milliseconds: forked from a server that imported langue once.

A fresh interpreter takes seconds to import PyTorch, longer than a small training run. Tests whose
subject is the start itself use `subprocess`.
"""

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from langue.cli import main
from tests.cheap import not_rendering, not_waiting_for_the_disk

# What the server imports. It computes nothing, so it has no threads that a fork would lose.
IMPORTED = (
    "pytest",  # of a run without pytest-xdist, the main module
    "langue.serve.app",
    "langue.serve.state",
    "langue.serve.uvicorn_server",
    "langue.verbs.finetune",
    "langue.verbs.generate",
    "langue.verbs.predict",
    "langue.verbs.pretrain",
    "tests.forked",
    "tests.serve.serving",
    "tests.train.child_parallel",
)
# Every optimiser of PyTorch imports it, in two seconds and a half. Processes of a group have a
# server without it: with it, one of two groups was aborted or warned of a group without a backend.
FOR_TRAINING = "torch._dynamo"
_server_of_groups = forkserver.ForkServer()


def start(
    function: Callable[..., int | None],
    *arguments: Any,
    output: Path | None = None,
    errors: Path | None = None,
    environment: Mapping[str, str] | None = None,
    is_of_group: bool = False,
) -> BaseProcess:
    """Call a function of a module in a process of its own; what it returns is the exit code.

    output: the file that stdout and stderr go to; None discards them. errors: one for stderr alone.
    environment: all of its variables; None: those of this process. is_of_group: whether it trains
    with others.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED, FOR_TRAINING])
    # said, since the server has the variables that stood when it was started
    variables = dict(os.environ if environment is None else environment)
    call = (function, arguments, output, errors, variables)
    child = context.Process(target=_run, args=call)
    if not is_of_group:
        child.start()
        return child
    _server_of_groups.set_forkserver_preload([*IMPORTED])
    connect = _server_of_groups.connect_to_new_process
    with patch.object(forkserver, "connect_to_new_process", connect):
        child.start()
    return child


def wait(child: BaseProcess, seconds: float = 120) -> int:
    """The exit code, negative for a signal. A child that is not done in time is killed."""
    child.join(seconds)
    if child.exitcode is None:
        child.kill()
        child.join()
        raise TimeoutError(f"the child was not done after {seconds:g} seconds")
    return child.exitcode


class Piped:
    """A child with a pipe for each standard stream, of text: `subprocess.Popen`, as far as tests
    need it.
    """

    def __init__(
        self,
        function: Callable[..., int | None],
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        for_stdin, stdin = multiprocessing.Pipe(duplex=False)
        stdout, for_stdout = multiprocessing.Pipe(duplex=False)
        stderr, for_stderr = multiprocessing.Pipe(duplex=False)
        ends = (for_stdin, for_stdout, for_stderr)
        self.child = start(_run_piped, ends, function, arguments, environment=environment)
        self.stdin = os.fdopen(os.dup(stdin.fileno()), "w", encoding="utf-8")
        self.stdout = os.fdopen(os.dup(stdout.fileno()), encoding="utf-8")
        self.stderr = os.fdopen(os.dup(stderr.fileno()), encoding="utf-8")
        for end in (*ends, stdin, stdout, stderr):
            end.close()

    def wait(self, seconds: float = 120) -> int:
        """As `wait` of this module."""
        return wait(self.child, seconds)

    def poll(self) -> int | None:
        """The exit code, None of one that runs."""
        return self.child.exitcode

    def send_signal(self, number: int) -> None:
        assert self.child.pid is not None
        os.kill(self.child.pid, number)

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self.child.kill()
        self.child.join()


def command(words: list[str]) -> None:
    """`langue` with these words, as a function for `start` and `Piped`."""
    main(words)


def run_script(
    code: str,
    *words: str,
    environment: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> subprocess.CompletedProcess[str]:
    """What `python -c code` does with these words, in a process in which torch is imported."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output.txt")
        errors = Path(folder, "errors.txt")
        given = {"output": output, "errors": errors, "environment": environment}
        code_of_exit = wait(start(_run_code, code, words, **given), seconds)
        said = [each.read_text("utf-8") for each in (output, errors)]
    return subprocess.CompletedProcess([code, *words], code_of_exit, *said)


def start_group(
    function: Callable[..., int | None], *arguments: Any, outputs: Path, count: int = 2
) -> list[BaseProcess]:
    """Processes that find each other as those of torchrun do; `outputs` gets a file of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(count):
        environment = os.environ | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        output = outputs / f"output-{rank}.txt"
        given = {"output": output, "environment": environment, "is_of_group": True}
        children.append(start(function, *arguments, **given))
    return children


def wait_group(
    children: list[BaseProcess], outputs: Path, seconds: float = 120
) -> list[tuple[int, str]]:
    """Exit code and output of each process of a group; none is left running."""
    deadline = time.monotonic() + seconds
    try:
        codes = [wait(child, max(0.1, deadline - time.monotonic())) for child in children]
    finally:
        for child in children:
            child.kill()
    said = [(outputs / f"output-{rank}.txt").read_text() for rank in range(len(children))]
    return list(zip(codes, said, strict=True))


def _run(
    function: Callable[..., int | None],
    arguments: tuple[Any, ...],
    output: Path | None,
    errors: Path | None,
    environment: dict[str, str],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with open(output or os.devnull, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if errors is not None:
        with open(errors, "wb") as file:
            os.dup2(file.fileno(), 2)
    _open_streams()
    with not_rendering(), not_waiting_for_the_disk():
        sys.exit(function(*arguments))


def _run_code(code: str, words: tuple[str, ...]) -> None:
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})


def _run_piped(
    ends: tuple[Connection, Connection, Connection],
    function: Callable[..., int | None],
    arguments: tuple[Any, ...],
) -> int | None:
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    _open_streams()
    return function(*arguments)


def _open_streams() -> None:
    """In place of those of the server, which know what the server's descriptors were."""
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
