"""Two real processes train as one does, share checkpoints with it, and end together."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.child_parallel import work

ROOT = Path(__file__).parents[2]
KINDS = ("ddp", "fsdp")


def start(jobs: list[tuple[Path, dict[str, Any]]], count: int = 2) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    said = json.dumps([(str(folder), words) for folder, words in jobs])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.child_parallel", said],
            cwd=ROOT,
            env=os.environ | common | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def finish(children: list[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str]]:
    """Exit code and what was said of each; none is left behind."""
    deadline = time.monotonic() + seconds
    try:
        said = [child.communicate(timeout=max(0.1, deadline - time.monotonic()))[1] for child in children]
    finally:
        for child in children:
            child.kill()
    return [(child.returncode, text) for child, text in zip(children, said, strict=True)]


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_close(folder: Path, other: Path, tolerance: float = 1e-5) -> None:
    ours, theirs = log(folder), log(other)
    assert len(ours) == len(theirs) >= 12
    for a, b in zip(ours, theirs, strict=True):
        assert {k: a[k] for k in ("split", "step", "examples", "tokens")} == {
            k: b[k] for k in ("split", "step", "examples", "tokens")
        }
        assert a["loss"] == pytest.approx(b["loss"], abs=tolerance), (a, b)
        assert a.get("grad_norm", 0) == pytest.approx(b.get("grad_norm", 0), rel=1e-3)
    if (other / "model.safetensors").exists():
        weights = load_file(other / "model.safetensors")
        for name, weight in load_file(folder / "model.safetensors").items():
            torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """All that two processes do in one sitting, and what one process did before and does after."""
    base = tmp_path_factory.mktemp("runs")
    work(base / "one", {"ema": 0.9})
    work(base / "one-muon", {"optimizer": "muon"})
    jobs: list[tuple[Path, dict[str, Any]]] = []
    for kind in KINDS:
        work(base / f"one-to-{kind}", {"ema": 0.9, "stop": 5, "parallel": kind})
        words = {"ema": 0.9, "parallel": kind}
        jobs += [
            (base / kind, words),
            (base / f"{kind}-muon", {"optimizer": "muon", "parallel": kind}),
            (base / f"{kind}-recompute", words | {"recompute": True}),
            (base / f"{kind}-to-one", words | {"stop": 5}),
            (base / f"{kind}-to-{kind}", words | {"stop": 5}),
            (base / f"{kind}-to-{kind}", words),
            (base / f"one-to-{kind}", words),
        ]
    jobs.append((base / "too-many", {"batch_examples": 1}))
    (first, said), (second, also) = finish(start(jobs), 240)
    (base / "said.json").write_text(json.dumps([first, second, said, also]))
    return base


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one(runs, kind):
    """Losses, counts and gradient norms of each step, through accumulation, smoothing, clipping and averaging."""
    assert_close(runs / kind, runs / "one")


@pytest.mark.parametrize("kind", KINDS)
def test_muon_orthogonalises_whole_matrices(runs, kind):
    assert_close(runs / f"{kind}-muon", runs / "one-muon")


@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_changes_no_loss(runs, kind):
    assert [line["loss"] for line in log(runs / f"{kind}-recompute")] == [line["loss"] for line in log(runs / kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_by_as_many_it_is_the_same_run_to_the_bit(runs, kind):
    again, whole = (load_file(runs / name / "model.safetensors") for name in (f"{kind}-to-{kind}", kind))
    assert all((again[name] == whole[name]).all() for name in whole)
    assert [line["loss"] for line in log(runs / f"{kind}-to-{kind}")] == [line["loss"] for line in log(runs / kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_by_another_number(runs, kind):
    assert_close(runs / f"one-to-{kind}", runs / "one")
    files = {path.suffix for path in (runs / f"{kind}-to-one" / "checkpoints").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}
    work(runs / f"{kind}-to-one", {"ema": 0.9, "parallel": kind})
    assert_close(runs / f"{kind}-to-one", runs / "one")


@pytest.mark.parametrize("kind", KINDS)
def test_killed_it_ends_and_goes_on(runs, tmp_path, kind):
    """kill -9 of either process: the other says so and ends at once, and the run resumes from its last checkpoint."""
    doomed = KINDS.index(kind)
    children = start([(tmp_path, {"ema": 0.9, "parallel": kind, "die": [doomed, 8]})])
    results = finish(children)
    assert results[doomed][0] == -9
    code, said = results[1 - doomed]
    assert code == 2 and "another process of the run has ended" in said.splitlines()[-1], said
    assert len(log(tmp_path)) < len(log(runs / "one"))
    work(tmp_path, {"ema": 0.9, "parallel": kind})
    assert_close(tmp_path, runs / "one")


def test_one_line_and_nothing_else_says_that_a_batch_cannot_be_divided(runs):
    """It is the last that the two processes do; all before it went well and without a warning."""
    first, second, said, also = json.loads((runs / "said.json").read_text())
    assert first == second == 2
    lines = [line for line in (said + also).splitlines() if not line.startswith(("step ", "training "))]
    assert len(lines) == 1 and "a batch of 1 sequences cannot be divided among 2 processes" in lines[0], said
