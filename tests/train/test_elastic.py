"""A worker that dies under torchrun: the group starts again, and the run goes on from its last
checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SETTINGS = {
    "model.size": "150K",
    "data.seq_len": 32,
    "train.batch_tokens": 512,
    "train.lr": 3e-3,
    "train.max_steps": 40,
}
SETTINGS |= {"train.checkpoint_every": 5, "train.evaluate_every": 40, "tokenizer.vocab_size": 300}


def begin(out: Path, text: Path, *more: str) -> subprocess.Popen[str]:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--max-restarts=1",
    ]
    words = ["--module", "langue", "pretrain", "--data", str(text), "--out", str(out), *more]
    words += [f"{key}={value}" for key, value in SETTINGS.items()]
    return subprocess.Popen(
        [*torchrun, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=-1,
        stderr=subprocess.STDOUT,
    )


def workers(parent: int) -> list[int]:
    return [
        int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ]


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for the workers in /proc")
def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    rows = (" ".join(f"word{(n * k) % 97}" for k in range(1, 40)) for n in range(1, 300))
    text.write_text("\n".join(json.dumps({"text": row}) for row in rows), "utf-8")
    whole = tmp_path / "whole"
    cut = tmp_path / "cut"
    said, _ = (calm := begin(whole, text)).communicate(timeout=280)
    assert calm.returncode == 0, said
    group = begin(cut, text, "--force")  # which a restart must not take as leave to begin anew
    deadline = time.monotonic() + 200
    while not list((cut / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline and group.poll() is None
        time.sleep(0.02)
    os.kill(workers(group.pid)[1], signal.SIGKILL)
    said, _ = group.communicate(timeout=280)
    assert group.returncode == 0, said
    assert len(losses(cut)) == 40 and (cut / "metrics.json").is_file()
    assert losses(cut) == pytest.approx(losses(whole), abs=1e-5)
