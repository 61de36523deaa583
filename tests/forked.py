"""Child processes that start within milliseconds: forked from a server that imported langue once.

A fresh interpreter takes seconds to import PyTorch, longer than a small training run. Tests whose
subject is the start itself use `subprocess`.
"""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# What the server imports. It computes nothing, so it has no threads that a fork would lose.
IMPORTED = (
    "pytest",  # of a run without pytest-xdist, the main module
    "langue.verbs.finetune",
    "langue.verbs.predict",
    "langue.verbs.pretrain",
    "tests.train.child_parallel",
)


def start(
    function: Callable[..., int | None],
    *arguments: Any,
    output: Path | None = None,
    environment: dict[str, str] | None = None,
) -> BaseProcess:
    """Call a function of a module in a process of its own; what it returns is the exit code.

    output: the file that stdout and stderr go to; None discards them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED])
    call = (function, arguments, output, environment or {})
    child = context.Process(target=_run, args=call)
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
        environment = group | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        output = outputs / f"output-{rank}.txt"
        children.append(start(function, *arguments, output=output, environment=environment))
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
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)
    with open(output or os.devnull, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(function(*arguments))
