"""Run an HTTP server, measure its CPU time, and time the answers to concurrent callers."""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

START = 300.0  # seconds within which a server must have started


@dataclass(frozen=True)
class Served:
    """A running server."""

    process: int
    port: int

    def cpu(self) -> float:
        """Return the CPU seconds of the server and the processes that it started."""
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = file.read_text().rpartition(")")[2].split()
                if int(fields[2]) == os.getpgid(self.process):
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def served(words: Sequence[str], port: int, log: Path) -> Iterator[Served]:
    """Run a program, or `python -m WORDS`, and yield it when it accepts calls; kill it at the end
    of the block.
    """
    command = list(words) if Path(words[0]).is_file() else [sys.executable, "-m", *words]
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            env=os.environ | quiet,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START
        while True:
            if _answers(port):
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{words[0]} does not serve:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield Served(process.pid, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    """Return whether a server is up and has loaded its model; llama.cpp's returns 503 until
    then.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status != 503
    except OSError:
        return False
    finally:
        connection.close()


@dataclass
class Streamed:
    """The timing of one stream: seconds to the first token, and between subsequent tokens."""

    tokens: int = 0
    first: float = 0.0
    between: list[float] = field(default_factory=list)


def post(port: int, route: str, fields: Any) -> Any:
    """Return the answer to a call; RuntimeError if it fails."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        body = json.dumps(fields)
        connection.request("POST", route, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{route}: {answer.status} {text[:300]!r}")
        return json.loads(text)
    finally:
        connection.close()


def stream(port: int, fields: Any) -> Streamed:
    """Stream a chat completion, and time its tokens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    found = Streamed()
    try:
        body = json.dumps({**fields, "stream": True})
        headers = {"Content-Type": "application/json"}
        last = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {answer.read()[:300]!r}")
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line[6:]).get("choices") or [{}]
            if not (choices[0].get("delta") or {}).get("content"):
                continue
            now = time.perf_counter()
            if found.tokens:
                found.between.append(now - last)
            else:
                found.first = now - last
            found.tokens += 1
            last = now
        return found
    finally:
        connection.close()


def at_once(callers: int, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return the results of `work` on all items with this many concurrent callers, each of which
    takes the next item after its answer.
    """
    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(work, items))


def percentiles(values: Sequence[float]) -> str:
    """Return the 50th, 95th and 99th percentile in milliseconds."""
    if len(values) < 2:
        return "-"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return " / ".join(f"{1000 * cuts[at - 1]:.0f}" for at in (50, 95, 99))
