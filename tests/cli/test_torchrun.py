"""The command under torchrun: two processes, one voice, one run directory."""

import json
import subprocess
import sys
from pathlib import Path

from tests.tiny import reviews, tiny_bert, write_jsonl

ROOT = Path(__file__).parents[2]


def test_finetune_by_two_processes_speaks_once_and_refuses_once(tmp_path):
    tiny_bert(tmp_path / "model")
    write_jsonl(tmp_path / "data" / "train.jsonl", reviews(64))
    write_jsonl(tmp_path / "data" / "dev.jsonl", reviews(20, 1))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "langue",
    ]
    words = ["finetune", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "data")]
    words += ["--out", str(tmp_path / "run"), "train.max_steps=4", "train.batch_examples=8"]
    done = subprocess.run(launch + words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report:") == done.stderr.count("training ") == 1
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if line["split"] == "train"] == [1, 2, 3, 4]
    assert log[0]["examples"] == 8
    assert {"model.safetensors", "metrics.json", "report.html"} <= {
        file.name for file in (tmp_path / "run").iterdir()
    }
    again = subprocess.run(launch + words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert again.returncode != 0
    assert again.stderr.count("langue: error: ") == 1 and "the run directory exists" in again.stderr
