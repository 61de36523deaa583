"""Test how our server withstands hostile callers on loopback for some minutes.

These hang up, send garbage, half requests, prompts of 10 MB, wrong keys, deeply nested JSON and
expressions that explode, and read slowly or not at all, beside honest callers whose answers are
known.

The report has the statuses of each kind of call, the honest answers that are missing or another
caller's, and the server's private memory (RssAnon and VmSwap, since file pages come and go), minute
by minute.
"""

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks import results
from benchmarks.machine import facts
from benchmarks.material import data_folder

KEY, OTHER = "an-honest-key", "another-honest-key"
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"
PROMPTS = ("Once upon a time", "Lily and Tom", "The big dog", "One day, a bird", "It was a sunny")
LENGTH = 24
HONEST = 3  # number of honest callers
ROUTE = "/v1/completions"
BOMBS = (
    {"regex": "(a{1000}){1000}"},
    {"regex": "((a{100}){100}){100}b"},
    {"grammar": "start: a\na: a a | /x/"},
    {"json_schema": {"$ref": "#"}},
    {"json_schema": {"properties": {f"p{i}": {"type": "string"} for i in range(3000)}}},
    {"json_schema": {"enum": [f"v{i}" for i in range(20000)]}},
    {"choices": [str(i) for i in range(20000)]},
)
ODD = (
    {"n": 129},
    {"temperature": 1e6},
    {"max_tokens": 10**9},
    {"logit_bias": {"7": 101}},
    {"stop": [""]},
    {"seed": 2**70},
    {"top_p": -1},
    {"prompt": [-1]},
    {"prompt": [10**9]},
    {"colour": "red"},
)


class Load:
    """The shared state of all callers."""

    def __init__(self, address: str, expected: dict[str, str]) -> None:
        self.address = address
        self.expected = expected
        host, _, port = address.removeprefix("http://").partition(":")
        self.place = (host, int(port))
        self.counts: dict[str, Counter[str]] = {}
        self.seconds: list[float] = []  # durations of honest calls
        self.wrong: list[str] = []
        self.is_over = threading.Event()
        self._lock = threading.Lock()

    def count(self, kind: str, what: str) -> None:
        with self._lock:
            self.counts.setdefault(kind, Counter())[what] += 1

    def post(self, kind: str, fields: Any, key: str = KEY, **more: Any) -> httpx.Response:
        """Post a request, and count its status."""
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        body = more.pop("content", None) or json.dumps(fields)
        answer = httpx.post(
            self.address + ROUTE, content=body, headers=headers, timeout=120, **more
        )
        self.count(kind, str(answer.status_code))
        return answer

    def raw(self, head: bytes, wait: float = 0.0) -> bytes:
        """Send bytes on a separate connection, wait up to this many seconds, close it, and return
        what was received.
        """
        with socket.create_connection(self.place, timeout=30) as connection:
            connection.sendall(head)
            connection.settimeout(max(wait, 0.01))
            try:
                return connection.recv(4096)
            except TimeoutError:
                return b""


def _head(length: int, key: str = KEY) -> bytes:
    lines = (
        f"POST {ROUTE} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    )
    return "\r\n".join([*lines, "", ""]).encode()


def honest(load: Load, draw: random.Random) -> None:
    prompt = draw.choice(PROMPTS)
    fields = {"model": "tiny", "prompt": prompt, "max_tokens": LENGTH, "temperature": 0}
    began = time.perf_counter()
    answer = load.post("honest", fields, draw.choice((KEY, OTHER)))
    load.seconds.append(time.perf_counter() - began)
    if answer.status_code == 200 and answer.json()["choices"][0]["text"] != load.expected[prompt]:
        load.wrong.append(prompt)
    elif answer.status_code not in (200, 429):
        load.wrong.append(answer.text[:200])


def hangs_up(load: Load, draw: random.Random) -> None:
    fields = {"model": "tiny", "prompt": draw.choice(PROMPTS), "max_tokens": 200, "stream": True}
    body = json.dumps(fields).encode()
    load.raw(_head(len(body)) + body, draw.choice((0.0, 0.02, 0.2)))
    load.count("hang up", "closed")


def garbage(load: Load, draw: random.Random) -> None:
    noise = draw.randbytes(draw.randrange(1, 20000))
    starts = (b"", b"POST ", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"A" * 70_000)
    load.raw(draw.choice(starts) + noise, 0.1)
    load.count("garbage", "closed")


def half(load: Load, draw: random.Random) -> None:
    load.raw(draw.choice((_head(500) + b'{"model": "ti', _head(10)[:40])), draw.choice((0.1, 3.0)))
    load.count("half request", "closed")


def large(load: Load, draw: random.Random) -> None:
    size = draw.choice((7_900_000, 10_000_000))
    prompt = draw.choice(("a ", "a", "\U0001f642")) * (size // 2 if size < 9_000_000 else size)
    body = json.dumps({"model": "tiny", "prompt": prompt[:size]}, ensure_ascii=False)
    load.post("large prompt", None, content=body.encode())


def wrong_key(load: Load, draw: random.Random) -> None:
    load.post("wrong key", {"model": "tiny", "prompt": "a"}, f"no-key-{draw.random()}")


def deep(load: Load, draw: random.Random) -> None:
    schema: Any = {"type": "string"}
    for _ in range(draw.choice((50, 400))):
        schema = {"type": "array", "items": schema}
    bodies = (
        b"[" * 100_000,
        b'{"model":' * 50_000,
        json.dumps({"model": "tiny", "prompt": "a", "json_schema": schema}).encode(),
    )
    load.post("deep JSON", None, content=draw.choice(bodies))


def bomb(load: Load, draw: random.Random) -> None:
    fields = {"model": "tiny", "prompt": "a", "max_tokens": 4, **draw.choice(BOMBS)}
    load.post("grammar bomb", fields)


def odd(load: Load, draw: random.Random) -> None:
    load.post("odd value", {"model": "tiny", "prompt": "a", **draw.choice(ODD)})


def reads_slowly(load: Load, draw: random.Random) -> None:
    fields = {"model": "tiny", "prompt": "Once", "max_tokens": 200, "n": 4, "stream": True}
    body = json.dumps(fields).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(30)
        connection.connect(load.place)
        connection.sendall(_head(len(body)) + body)
        for _ in range(draw.randrange(5, 40)):
            connection.recv(64)
            if load.is_over.wait(0.1):
                break
    load.count("slow read", "closed")


ATTACKS: tuple[Callable[[Load, random.Random], None], ...] = (
    *(hangs_up, hangs_up, garbage, half, half, large, wrong_key, deep, bomb, odd),
    *(reads_slowly, reads_slowly),
)


def _call_on(load: Load, one: Callable[[Load, random.Random], None], seed: int) -> None:
    draw = random.Random(seed)
    while not load.is_over.is_set():
        try:
            one(load, draw)
        except (httpx.HTTPError, OSError) as error:
            load.count(one.__name__, type(error).__name__)
        load.is_over.wait(0.05)


def memory_of(process: int) -> int:
    """Return the private memory of a process in bytes, resident or swapped out."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = (line.split() for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
    return sum(int(parts[1]) * 1024 for parts in found)


def make_model(folder: Path) -> Path:
    """Write the stories model with a chat template to a folder."""
    import langue

    model = langue.load(data_folder() / "stories260K" / "stories260K.bin")
    model.save(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return folder


def run(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(Path(temporary, "tiny"))
        keys = Path(temporary, "keys")
        keys.write_text(f"{KEY}\n{OTHER}\n", "utf-8")
        words = ["serve", str(folder), "--port", "0", "--memory", "60MB", "--api-keys", str(keys)]
        with Path(temporary, "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "langue", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            load, memory = _attack(address, process.pid, minutes)
            process.send_signal(signal.SIGTERM)
            code = process.wait(120)
        finally:
            process.kill()
    _tell(load, memory, code, minutes)


def _attack(address: str, process: int, minutes: float) -> tuple[Load, list[int]]:
    load = Load(address, {})
    for prompt in PROMPTS:  # one at a time, before the load begins
        fields = {"model": "tiny", "prompt": prompt, "max_tokens": LENGTH, "temperature": 0}
        load.expected[prompt] = load.post("alone", fields).json()["choices"][0]["text"]
    callers = [honest] * HONEST + list(ATTACKS)
    threads = [
        threading.Thread(target=_call_on, args=(load, one, seed), daemon=True)
        for seed, one in enumerate(callers)
    ]
    for each in threads:
        each.start()
    memory = []
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        time.sleep(1)
        memory.append(memory_of(process))
        if len(memory) % 60 == 0:
            print(f"minute {len(memory) // 60}: {memory[-1] / 1e6:,.1f} MB", flush=True)
    load.is_over.set()
    for each in threads:
        each.join(130)
    return load, memory


def _tell(load: Load, memory: list[int], code: int, minutes: float) -> None:
    third = max(1, len(memory) // 3)
    begin, end = (statistics.median(part) / 1e6 for part in (memory[third:-third], memory[-third:]))
    rows = ["| call | how it ended |", "|---|---|"]
    for kind, counts in sorted(load.counts.items()):
        rows.append(f"| {kind} | {', '.join(f'{k}: {n:,}' for k, n in counts.most_common())} |")
    failed = sum(
        n
        for counts in load.counts.values()
        for status, n in counts.items()
        if status.startswith("5")
    )
    ordered = sorted(load.seconds)
    text = "\n".join(
        [
            f"### {minutes:g} minutes of hostile load, {os.cpu_count()} cores",
            "",
            *rows,
            "",
            f"5xx: {failed}; honest answers that are wrong or none: {len(load.wrong)} of"
            f" {len(load.seconds):,}; their median {statistics.median(ordered):.2f} s, the slowest"
            f" {ordered[-1]:.2f} s; exit code at SIGTERM: {code}",
            f"RssAnon + VmSwap: {memory[0] / 1e6:.1f} MB after the first second, median"
            f" {begin:.1f} MB of the second third, {end:.1f} MB of the last"
            f" ({end / begin - 1:+.2%})",
            "",
        ]
    )
    print(text)
    for each in load.wrong[:5]:
        print("wrong:", each)
    counts = {kind: dict(found) for kind, found in load.counts.items()}
    found = {"machine": facts(), "counts": counts, "memory": memory, "wrong": load.wrong}
    print(results.save("hostile", found, text))
