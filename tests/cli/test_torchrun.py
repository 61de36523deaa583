"""A command of two processes prints once and writes one run directory.

They are started here as torchrun starts them; tests/train/test_elastic.py has torchrun do it.
"""

import json

from tests import forked
from tests.tiny import reviews, tiny_bert, write_jsonl


def test_two_processes_print_results_and_errors_once(tmp_path):
    tiny_bert(tmp_path / "model")
    write_jsonl(tmp_path / "data" / "train.jsonl", reviews(64))
    write_jsonl(tmp_path / "data" / "dev.jsonl", reviews(20, 1))
    words = ["finetune", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "data")]
    words += ["--out", str(tmp_path / "run"), "train.max_steps=4", "train.batch_examples=8"]
    children = forked.start_group(forked.command, words, outputs=tmp_path)
    results = forked.wait_group(children, tmp_path)
    printed = "".join(output for _, output in results)
    assert [code for code, _ in results] == [0, 0], printed
    assert printed.count("Report:") == printed.count("training ") == 1
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if line["split"] == "train"] == [1, 2, 3, 4]
    assert log[0]["examples"] == 8
    assert {"model.safetensors", "metrics.json", "report.html"} <= {
        file.name for file in (tmp_path / "run").iterdir()
    }
    children = forked.start_group(forked.command, words, outputs=tmp_path)
    results = forked.wait_group(children, tmp_path)
    printed = "".join(output for _, output in results)
    assert all(code != 0 for code, _ in results)
    assert printed.count("langue: error: ") == 1 and "the run directory exists" in printed
