"""A search over settings: what it tries, what it keeps, and that it goes on where it was ended."""

import json
import sys

import numpy as np
import pytest

import langue.runs.tune
from langue.errors import RunError, SettingsError
from langue.runs.model import load
from langue.settings.recipe import read_recipe
from langue.verbs.finetune import finetune
from langue.verbs.tune import tune
from tests.cheap import rendering
from tests.tiny import reviews, tiny_bert, write_jsonl

optuna = pytest.importorskip("optuna")

SPACE = {"train.lr": "1e-5..3e-2", "train.batch_examples": "16,32", "data.duplicates": "false"}
SMALL = {"train.epochs": 2, "train.best": "loss"}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    for split, count, seed in (("train", 96, 0), ("dev", 40, 1), ("test", 40, 2)):
        write_jsonl(folder / "data" / f"{split}.jsonl", reviews(count, seed))
    return {"model": tiny_bert(folder / "model"), "data": folder / "data"}


@pytest.fixture(scope="module")
def study(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "whole"
    with rendering():
        return out, tune(**given, out=out, trials=8, **SPACE, **SMALL)


def trials(folder):
    found = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def test_the_best_is_judged_and_kept(study, tmp_path):
    out, result = study
    rows = trials(out)
    assert len(rows) == result["trials"] == 8
    assert result["complete"] + result["pruned"] + result["fail"] == 8
    complete = [row for row in rows if row["state"] == "complete"]
    best = min(row["value"] for row in complete)
    assert result["best"]["dev"] == best and result["metric"] == "loss"
    folder = out / f"trial-{result['best']['trial']:04d}"
    assert result["test"] == json.loads((folder / "metrics.json").read_text())
    assert result["test"]["split"] == "test"
    assert load(folder).predict(["a good film"])
    # the others keep how they went, and no weights
    for row in rows:
        other = out / f"trial-{row['trial']:04d}"
        assert (other / "log.jsonl").is_file() and (other / "recipe.toml").is_file()
        kept = row["trial"] == result["best"]["trial"]
        assert (other / "checkpoints").exists() == kept
    for name in ("study.png", "report.html", "result.json", "journal.jsonl"):
        assert (out / name).stat().st_size > 100
    assert set(result["importances"]) == {"train.lr", "train.batch_examples"}


def test_the_value_of_a_trial_is_its_best_on_dev(study):
    out, _ = study
    for row in trials(out):
        log = (out / f"trial-{row['trial']:04d}" / "log.jsonl").read_text().splitlines()
        dev = [line for line in map(json.loads, log) if line["split"] == "dev"]
        assert [line["loss"] for line in dev] == row["dev"]
        if row["state"] == "complete":
            assert row["value"] == min(row["dev"])


def test_a_pruned_trial_was_below_the_median(study):
    out, _ = study
    rows = trials(out)
    assert any(row["state"] == "pruned" for row in rows)
    for row in rows:
        if row["state"] != "pruned":
            continue
        at = len(row["dev"])
        before = [other for other in rows[: row["trial"] - 1] if other["state"] == "complete"]
        assert len(before) >= 5
        others = [each["dev"][at - 1] for each in before if len(each["dev"]) >= at]
        assert min(row["dev"]) > np.median(others)


def test_the_recipe_of_the_best_trains_it_again(study, tmp_path):
    out, result = study
    run = finetune(recipe=out / "best.toml", out=tmp_path / "again")
    said = read_recipe(out / "best.toml")
    assert said["train.lr"] == result["best"]["settings"]["train.lr"]
    assert run.metrics["metrics"] == result["test"]["metrics"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", [1, 4, 9])
def test_a_study_that_was_killed_goes_on_as_if_it_was_not(
    study, given, tmp_path, monkeypatch, when
):
    whole, result = study
    calls = []
    real = langue.runs.tune.read_log

    def killed(path):
        calls.append(path)
        if len(calls) == when:
            raise Killed
        return real(path)

    monkeypatch.setattr(langue.runs.tune, "read_log", killed)
    with pytest.raises(Killed):
        tune(**given, out=tmp_path / "study", trials=8, **SPACE, **SMALL)
    monkeypatch.undo()
    with (tmp_path / "study" / "journal.jsonl").open("a") as file:
        file.write('{"op_code": 4, "wor')  # half a line
    again = tune(**given, out=tmp_path / "study", trials=8, resume=True, **SPACE, **SMALL)
    assert trials(tmp_path / "study") == trials(whole)
    assert again["best"]["trial"] == result["best"]["trial"]
    assert again["test"]["metrics"] == result["test"]["metrics"]


def test_a_study_of_another_search_space_is_refused(study, given):
    out, _ = study
    other = SPACE | {"train.lr": "1e-5..1e-1"}
    with pytest.raises(RunError, match=r"another search space: train.lr was '1e-05..0.03'"):
        tune(**given, out=out, trials=8, resume=True, **other, **SMALL)
    with pytest.raises(RunError, match="other settings: train.epochs"):
        tune(**given, out=out, trials=8, resume=True, **SPACE, **SMALL | {"train.epochs": 3})
    with pytest.raises(RunError, match="not empty.*--resume"):
        tune(**given, out=out, trials=8, **SPACE, **SMALL)


def test_a_failed_trial_is_counted(given, tmp_path, monkeypatch):
    real = langue.runs.tune.execute

    def execute(*args, **options):
        if "trial-0002" in str(options["out"]):
            raise RunError("the loss at step 1 is nan")
        return real(*args, **options)

    monkeypatch.setattr(langue.runs.tune, "execute", execute)
    result = tune(**given, out=tmp_path / "study", trials=3, seeds=2, **SPACE, **SMALL)
    assert (result["complete"], result["fail"]) == (2, 1)
    rows = trials(tmp_path / "study")
    assert rows[1]["state"] == "fail" and "is nan" in rows[1]["error"]
    assert "is nan" in (tmp_path / "study" / "report.html").read_text()
    # a trial of two seeds counts as their mean
    assert rows[0]["value"] == pytest.approx(sum(rows[0]["seeds"]) / 2)
    assert len(result["test"]) == 2
    assert result["importances"] is None  # of two trials nothing is said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"train.lr": "1e-4"}, "no setting is searched"),
        ({"train.lr": "-1..1"}, "train.lr = '-1'"),
        ({"train.schedule": "linear,triangle"}, "triangle"),
        ({"train.lrr": "1e-5..1e-3", "train.epochs": "1,2"}, "did you mean train.lr"),
        ({"train.lrr": "1e-5..1e-3"}, "did you mean train.lr"),
        ({"train.epochs": "1,2", "trials": 0}, "trials = 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(given, tmp_path, words, said):
    trials = words.pop("trials", 2)
    with pytest.raises(SettingsError, match=said):
        tune(**given, out=tmp_path / "study", trials=trials, **words)
    assert not (tmp_path / "study").exists()


def test_without_optuna_the_extra_is_named(given, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingsError, match=r"pip install 'langue\[tune\]'"):
        tune(**given, out=tmp_path / "study", trials=2, **SPACE)
    assert not (tmp_path / "study").exists()
