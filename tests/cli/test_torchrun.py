"""A command of two processes prints once and writes one run directory."""

import json
import subprocess
import sys
from pathlib import Path

from langue.cli import run
from tests import forked
from tests.tiny import reviews, tiny_bert, write_jsonl

ROOT = Path(__file__).parents[2]


def test_two_processes_print_results_and_errors_once(tmp_path):
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
    # what fails need not be launched by torchrun, which takes seconds longer
    children = forked.start_group(run, words, outputs=tmp_path)
    results = forked.wait_group(children, tmp_path)
    printed = "".join(output for _, output in results)
    assert all(code != 0 for code, _ in results)
    assert printed.count("langue: error: ") == 1 and "the run directory exists" in printed
