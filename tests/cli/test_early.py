"""What is wrong with a command is told before PyTorch is imported, as far as it can be known
then."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from langue.cli import app
from langue.cli.options import LIKE, _names_of_tasks, _nearest
from langue.errors import ModelError
from langue.hub.snapshot import refuse_missing
from langue.settings.sections import known

TRAIN = "--out {out} --model {model} --data {data}"
MISTAKES = {
    "finetune --out {out} --modle m": "did you mean --model?",
    f"finetune {TRAIN} train.lrr=1": "did you mean train.lr?",
    f"finetune {TRAIN} train.lr=much": "valid number",
    f"finetune {TRAIN} --learning-rate 1": "here it is train.lr",
    f"finetune {TRAIN} --task clasify": "known: classify",
    "finetune --out {model} --model {model} --data {data}": "exists and is not empty",
    "finetune --out {out} --model {model} --data nosuch.csv": "no such file or folder",
    "finetune --out {out} --model ./nosuch --data {data}": "no such model folder",
    "finetune --out {out} --recipe nosuch.toml": "no such recipe",
    "finetune --out {out} --model {model}": "no data was named",
    "pretrain --out {out} --data nosuch.txt": "no such file or folder",
    "pretrain --out {out} --data {data} data.max_length=5 train.epoch=1": "did you mean",
    "data preview --model {model} --data nosuch.csv": "no such file or folder",
    "tune --out {out} --model ./nosuch --data {data}": "no such model folder",
    "predict ./nosuch --text a": "no such model folder",
    "predict {model} --data nosuch.csv": "no such file or folder",
    "predict {model} --text a --out {data}": "exists",
    "evaluate ./nosuch": "no such model folder",
    "generate ./nosuch -p a": "no such model folder",
    "chat ./nosuch": "no such model folder",
    "rank ./nosuch -p a --choice b": "no such model folder",
    "inspect ./nosuch": "no such model folder",
    "verify ./nosuch": "no such model folder",
    "convert ./nosuch {out}": "no such model folder",
    "evaluate nobody/has-this-model": "the Hub",
}
PROBE = """
import contextlib, io, json, sys
from langue.cli import run
found = []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = run(words)
    found.append([code, said.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_a_model_that_is_named_by_what_its_files_begin_with_is_there(tmp_path: Path) -> None:
    (tmp_path / "bert_model.ckpt.index").write_bytes(b"")
    refuse_missing(tmp_path / "bert_model.ckpt")
    with pytest.raises(ModelError, match="no such model folder"):
        refuse_missing(tmp_path / "gpt_model.ckpt")


def test_mistakes_are_told_without_torch(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    data = tmp_path / "rows.csv"
    data.write_text("text,label\na,b\n")
    places = {"out": tmp_path / "out", "model": model, "data": data}
    commands = [line.format(**places).split() for line in MISTAKES]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(commands)],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    for line, (code, said, torch) in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert code == 2 and MISTAKES[line] in said and said.count("\n") == 1, (line, said)
        assert not torch, line
    assert not places["out"].exists()


@pytest.mark.parametrize("name", ["finetune", "pretrain", "tune"])
def test_no_setting_of_a_task_is_taken_for_an_option_that_it_is_like(name: str) -> None:
    command: Any = typer.main.get_command(app)
    context = typer.Context(command.commands[name])
    others = {key.partition(".")[2] for key in known()}  # are known before
    for setting in _names_of_tasks() - others:
        assert not _nearest(f"--{setting.replace('_', '-')}", context, LIKE), setting
