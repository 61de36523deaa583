"""Several runs of one training, and two runs compared."""

import json
import shutil

import numpy as np
import pytest

import langue.runs.repeat
from langue.errors import DataError, ModelError, RunError, SettingsError
from langue.runs.model import load
from langue.statistics.compare import mcnemar
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from tests.cheap import rendering
from tests.tiny import reviews, tiny_bert, write_jsonl

SMALL = {"train.epochs": 1, "train.lr": 3e-3, "train.batch_examples": 8, "data.duplicates": False}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat")
    for split, count, seed in (("train", 90, 0), ("dev", 20, 1), ("test", 60, 2)):
        write_jsonl(folder / "data" / f"{split}.jsonl", reviews(count, seed))
    return {"model": tiny_bert(folder / "model"), "data": folder / "data"}


@pytest.fixture(scope="module")
def curve(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "curve"
    with rendering():
        return finetune(**given, out=out, shares=[1, 0.2], seeds=2, **SMALL)


def test_folds_judge_every_training_row_once(given, tmp_path):
    run = finetune(**given, out=tmp_path / "cv", folds=3, **SMALL)
    runs = run.metrics["runs"]
    assert [each["folder"] for each in runs] == ["fold-1", "fold-2", "fold-3"]
    assert sum(each["examples"] for each in runs) == 90
    assert run.metrics == json.loads((tmp_path / "cv" / "metrics.json").read_text())
    accuracies = [each["metrics"]["accuracy"] for each in runs]
    found = run.metrics["metrics"]["accuracy"]
    assert found["mean"] == pytest.approx(sum(accuracies) / 3)
    gains = [
        a - each["baseline"]["metrics"]["accuracy"]
        for a, each in zip(accuracies, runs, strict=True)
    ]
    assert run.metrics["baseline"]["difference"]["mean"] == pytest.approx(sum(gains) / 3)
    # each is a run of its own
    again = evaluate(tmp_path / "cv" / "fold-2")
    assert again["metrics"] == runs[1]["metrics"] and again["examples"] == 30
    assert "Nadeau" in (tmp_path / "cv" / "report.html").read_text()


def test_a_learning_curve_says_whether_more_data_helps(curve):
    content = curve.metrics
    assert [part["rows"] for part in content["shares"]] == [18, 90]
    assert [each["folder"] for each in content["runs"]] == [
        "share-0.2/seed-1", "share-0.2/seed-2", "share-1/seed-1", "share-1/seed-2",
    ]  # fmt: skip
    assert content["more_data"]["outcome"] in ("better", "same", "worse")
    assert (content["more_data"]["from"], content["more_data"]["to"]) == (18, 90)
    assert content["metrics"] == content["shares"][1]["metrics"]
    assert (curve.folder / "curves.png").stat().st_size > 1000
    page = (curve.folder / "report.html").read_text()
    assert "By training rows" in page and "ore data" in page


def test_the_first_seed_is_the_run_without_seeds(given, curve, tmp_path):
    alone = finetune(**given, out=tmp_path / "alone", **SMALL)
    assert alone.metrics["metrics"] == curve.metrics["runs"][2]["metrics"]


def test_runs_that_were_made_are_not_made_again(given, curve, tmp_path, monkeypatch):
    out = tmp_path / "curve"
    shutil.copytree(curve.folder, out)
    shutil.rmtree(out / "share-1" / "seed-2")
    (out / "metrics.json").unlink()
    made = []
    real = langue.runs.repeat.execute

    def execute(*args, **options):
        made.append(options["out"].relative_to(out).as_posix())
        return real(*args, **options)

    monkeypatch.setattr(langue.runs.repeat, "execute", execute)
    again = finetune(**given, out=out, shares=[0.2, 1], seeds=2, resume=True, **SMALL)
    assert made == ["share-1/seed-2"]
    assert again.metrics["metrics"] == curve.metrics["metrics"]


def test_rows_that_are_kept_nowhere_still_give_a_curve(given, tmp_path):
    data = {"train": reviews(40, 5), "dev": reviews(10, 6), "test": reviews(10, 7)}
    run = finetune(model=given["model"], data=data, out=tmp_path / "c", shares=[0.5, 1], **SMALL)
    assert run.metrics["more_data"]["outcome"] == "unknown"
    assert "cannot be said" in (run.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"folds": 1}, "of one part none"),
        ({"seeds": 0}, "must be a run"),
        ({"shares": [0.5, 1.5]}, "1.5 is no share"),
        ({"folds": 3, "data.fold": 1}, "runs differ in it"),
        ({"seeds": 2, "force": True}, "replaces one run"),
        ({"data.fold": 2}, "give both"),
        ({"data.fold": 3, "data.folds": 2}, "name no fold"),
    ],
)
def test_what_cannot_be_repeated(given, tmp_path, words, said):
    with pytest.raises(SettingsError, match=said):
        finetune(**given, out=tmp_path / "out", **SMALL, **words)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_written_over(given, curve):
    with pytest.raises(RunError, match="--resume"):
        finetune(**given, out=curve.folder, shares=[1, 0.2], seeds=2, **SMALL)


def test_two_runs_are_compared_on_the_same_rows(given, curve):
    first, second = curve.folder / "share-1/seed-1", curve.folder / "share-0.2/seed-1"
    content = evaluate(first, second)
    assert content["metrics"] == curve.metrics["runs"][2]["metrics"]
    assert content["baseline"]["metrics"] == pytest.approx(curve.metrics["runs"][0]["metrics"])
    rows = [json.loads(line) for line in (given["data"] / "test.jsonl").read_text().splitlines()]
    right = []
    for run in (first, second):
        said = load(run).predict([row["text"] for row in rows])
        right.append(np.array([s["label"] == r["label"] for s, r in zip(said, rows, strict=True)]))
    comparison = content["baseline"]["comparison"]
    assert comparison["p_value"] == pytest.approx(mcnemar(*right))
    assert comparison["difference"] == pytest.approx(right[0].mean() - right[1].mean())
    same = evaluate(first, first)["baseline"]["comparison"]
    assert same["difference"] == 0 and same["p_value"] == 1


def test_what_a_run_was_trained_on_is_said_of_both(given, curve):
    first, second = curve.folder / "share-1/seed-1", curve.folder / "share-0.2/seed-1"
    content = evaluate(first, second, data=given["data"] / "train.jsonl")
    assert content["seen"]["exact"] == 90 and 18 <= content["other_seen"]["exact"] < 90


def test_runs_of_other_labels_are_not_compared(given, curve, tmp_path):
    data = tmp_path / "data"
    for split in ("train", "dev", "test"):
        rows = [{"text": r["text"], "label": r["label"] + "!"} for r in reviews(40, 3)]
        write_jsonl(data / f"{split}.jsonl", rows)
    other = finetune(model=given["model"], data=data, out=tmp_path / "other", **SMALL)
    with pytest.raises(ModelError, match="do not predict the same"):
        evaluate(curve.folder / "share-1/seed-1", other.folder)
    with pytest.raises(DataError, match="no split 'tset'"):
        evaluate(curve.folder / "share-1/seed-1", curve.folder / "share-1/seed-1", split="tset")
