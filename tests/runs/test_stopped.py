"""Runs that were stopped, runs that are finished, and runs that are to go on longer."""

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import langue
from langue.cli import run as command
from langue.errors import Interrupted, RunError
from langue.runs.arguments import FINETUNE
from langue.runs.execute import execute
from langue.runs.notebook import as_html
from langue.train.journal import read_log
from tests.tiny import reviews, tiny_bert, write_jsonl

LONG = {"train.epochs": 4, "train.batch_tokens": 200, "train.evaluate_every": 2}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    data = write_jsonl(tmp_path / "rows.jsonl", reviews(60))
    return {"model": str(tiny_bert(tmp_path / "model")), "data": str(data)}


def test_a_stopped_run_says_how_far_it_is_and_the_command_goes_on(
    tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a run"

    def stop(line: Any, score: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        execute(FINETUNE, {"task": "classify", **given}, LONG, out=out, watch=stop)
    facts = langue.inspect(out)
    assert facts["checkpoint"] == facts["train"]["step"] == facts["dev"]["step"] == 2
    shown = as_html(facts.print)
    assert "2 steps" in shown and "of 4 epochs" in shown and "accuracy" in shown
    assert command(["inspect", str(out)]) == 0
    assert "has not come to its end" in capsys.readouterr().out
    verb, *words = shlex.split(facts["resume"])
    assert verb == "langue" and command(words) == 0
    assert langue.inspect(out)["family"] == "bert"
    # what it was resumed from is gone with the end of the run, and what its data was is known
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["data.json"]
    assert langue.evaluate(out)["split"] == "test"


def test_a_finished_run_goes_on_longer_where_it_has_its_checkpoints(
    tmp_path: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    short = LONG | {"train.epochs": 1}
    kept = langue.finetune(**given, out=tmp_path / "kept", keep_checkpoints=True, **short)
    bare = langue.finetune(**given, out=tmp_path / "bare", **short)
    assert kept.metrics["metrics"] == bare.metrics["metrics"]
    steps = read_log(kept.folder / "log.jsonl")[-1]["step"]
    with pytest.raises(RunError, match="has not kept its checkpoints; train its model further"):
        langue.finetune(out=bare.folder, resume=True, train__epochs=2)
    langue.finetune(out=kept.folder, resume=True, keep_checkpoints=True, train__epochs=2)
    log = [line for line in read_log(kept.folder / "log.jsonl") if line["split"] == "train"]
    made = [line["step"] for line in log]
    assert made[-1] == 2 * steps and len(made) == len(set(made))
    with pytest.raises(RunError, match=rf"{2 * steps} steps, and {steps} are asked for"):
        langue.finetune(out=kept.folder, resume=True, train__epochs=1)
    capsys.readouterr()
    again = langue.finetune(out=bare.folder, resume=True)
    assert again.metrics == bare.metrics
    assert "is finished, and nothing is left to do" in capsys.readouterr().err


def test_what_a_stopped_run_says_fits_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('[task]\nobjective = "causal"\n')
    facts = langue.inspect(tmp_path)
    console = Console(record=True, width=80)
    facts.print(console)
    assert "begins anew" in console.export_text()
    assert facts["resume"] == f"langue pretrain --out {tmp_path} --resume"
