"""A run is self-contained: it is evaluated and resumed from any folder."""

import os
import subprocess
import sys

import pytest

from langue.cli import run as command
from langue.errors import RunError
from langue.settings.recipe import located, read_recipe
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from tests.tiny import SHORT, reviews, tiny_bert, write_jsonl


@pytest.fixture
def home(tmp_path, monkeypatch):
    tiny_bert(tmp_path / "here" / "model")
    for number, split in enumerate(("train", "test")):
        write_jsonl(tmp_path / "here" / f"{split}.jsonl", reviews(60, number))
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_run_of_relative_names_is_evaluated_and_resumed_elsewhere(home, monkeypatch):
    data = {"train": "train.jsonl", "test": "test.jsonl"}
    made = finetune(model="model", data=data, out="run", keep_checkpoints=True, **SHORT)
    recipe = read_recipe(home / "here" / "run" / "recipe.toml")
    assert recipe["model.name"] == str(home / "here" / "model")
    assert recipe["data.train"] == str(home / "here" / "train.jsonl")
    monkeypatch.chdir(home / "there")
    run = home / "here" / "run"
    assert evaluate(run)["metrics"] == pytest.approx(made.metrics["metrics"])
    again = finetune(out=run, resume=True, **{"train.patience": 3})
    assert again.metrics["metrics"] == pytest.approx(made.metrics["metrics"])
    assert read_recipe(run / "recipe.toml")["train.patience"] == 3


def test_a_run_that_its_patience_has_stopped_goes_on_with_more(home):
    words = {**SHORT, "train.epochs": 40, "train.evaluate_every": 1, "train.lr": 1e-9}
    given = {"model": "model", "data": "train.jsonl", "train.patience": 2, **words}
    stopped = finetune(out="run", keep_checkpoints=True, **given)
    finetune(out="bare", **given)
    with pytest.raises(RunError, match="train.patience is another, and the finished run has not"):
        finetune(out="bare", resume=True, **{"train.patience": 4})
    lines = (stopped.folder / "log.jsonl").read_text().count('"split":')
    more = finetune(out="run", resume=True, **{"train.patience": 4})
    assert (more.folder / "log.jsonl").read_text().count('"split":') > lines


def test_a_run_of_before_is_resumed_where_it_was_begun(home):
    finetune(model="model", data="train.jsonl", out="run", **SHORT)
    recipe = home / "here" / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(home / "here") + "/", ""))
    assert read_recipe(recipe)["data.name"] == "train.jsonl"
    finetune(out="run", resume=True)


def test_splits_named_apart_at_the_command_line(home, capsys):
    words = ["finetune", "--model", "model", "--train", "train.jsonl", "--test", "test.jsonl"]
    assert command([*words, "--out", "run", "train.max_steps=1"]) == 0
    assert "test.jsonl" in (home / "here" / "run" / "recipe.toml").read_text()
    capsys.readouterr()
    assert command([*words, "--data", "train.jsonl", "--out", "other"]) == 2
    assert "--train: --data is given too; leave one of them out" in capsys.readouterr().err
    assert command(["finetune", "--model", "model", "--test", "a", "--out", "other"]) == 2
    assert "--test: --train is not given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("a.txt", "{}/a.txt"),
        ("a.txt@2", "{}/a.txt@2"),
        ("imdb", "imdb"),
        ("owner/name:config", "owner/name:config"),
        ("\0", "\0"),
        ("~nobody-of-this-name/a", "~nobody-of-this-name/a"),
    ],
)
def test_names_of_files_that_are_there_are_whole_paths(tmp_path, monkeypatch, name, whole):
    (tmp_path / "a.txt").touch()
    monkeypatch.chdir(tmp_path)
    assert located(name) == whole.format(tmp_path)


def test_a_system_without_posix_locks_is_told_what_is_needed():
    program = (
        "import importlib.util as u; found = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'fcntl' else found(name, *a);"
        "import langue"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: langue needs a POSIX system")
