"""Several labels a text, from training to use: one threshold, chosen on dev, for every number and
every answer."""

import html
import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

import langue.runs.show
from langue.cli import run as command
from langue.data.encoded import Encoded
from langue.errors import ModelError, SettingsError
from langue.evaluation.judge import verdict
from langue.runs.model import load
from langue.statistics import metrics as m
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.predict import predict
from langue.verbs.pretrain import pretrain
from tests.tiny import SHORT, reviews, write_jsonl

WORDS = {"good": "praise", "night": "time", "plot": "craft"}
LONGER = {"train.epochs": 8, "train.lr": 4e-3, "train.warmup": 0.05, "train.evaluate_every": 20}
SETTINGS = (
    SHORT
    | LONGER
    | {"task.multi_label": True, "task.class_weights": "balanced", "train.precision": "fp32"}
)


def rows(count, seed):
    """Rare labels, one for each word of WORDS; many texts have none."""
    made = []
    for index, row in enumerate(reviews(count, seed)):
        chosen = [word for step, word in zip((3, 7, 5), WORDS, strict=True) if index % step == 0]
        text = " ".join([*row["text"].split()[:4], *chosen])
        made.append({"text": text, "label": [WORDS[word] for word in chosen]})
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    for seed, (split, count) in enumerate({"train": 160, "dev": 60, "test": 60}.items()):
        write_jsonl(folder / f"{split}.jsonl", rows(count, seed))
    return folder


@pytest.fixture(scope="module")
def run(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return finetune(model=model, data=data, out=out, keep_checkpoints=True, **SETTINGS)


def copied(run, tmp_path):
    return shutil.copytree(run.folder, tmp_path / "copy")


def threshold_of(folder):
    return json.loads((folder / "langue.json").read_text())["threshold"]


@pytest.mark.parametrize(
    "name", ["f1_micro", "f1_macro", "f1_samples", "precision_micro", "recall_macro"]
)
def test_the_threshold_is_the_best_of_all(name):
    generator = np.random.default_rng(0)
    targets = generator.random((40, 3)) < [0.1, 0.3, 0.6]
    probabilities = np.clip(0.2 + 0.2 * targets + 0.1 * generator.normal(size=(40, 3)), 0.01, 0.99)
    judged = name.replace("precision", "f1").replace("recall", "f1")
    found = m.best_threshold(targets, probabilities, name)
    every = [
        m.multilabel(targets, probabilities, each)[judged] for each in np.unique(probabilities)
    ]
    assert m.multilabel(targets, probabilities, found)[judged] == pytest.approx(max(every))
    assert max(every) > m.multilabel(targets, probabilities)[judged]
    # Where nothing is to be gained it stays where it is.
    assert m.best_threshold(np.zeros((5, 2)), np.full((5, 2), 0.3)) == 0.5
    assert m.best_threshold([[1, 0]], [[0.9, 0.1]]) == 0.5


def test_the_run_predict_and_evaluate_go_by_one_threshold(run, data, tmp_path):
    threshold = threshold_of(run.folder)
    assert threshold != 0.5 and run.metrics["threshold"] == threshold
    assert run.metrics["metrics"]["f1_micro"] > 0.7
    model = load(run.folder)
    dev = json.loads("[" + (data / "dev.jsonl").read_text().strip().replace("\n", ",") + "]")
    targets = np.stack([model.task.known_target(row["label"], str) for row in dev])
    every = model.apply(Encoded.of(model._examples([row["text"] for row in dev])))
    assert threshold == m.best_threshold(targets, every, "f1_macro")

    test = rows(60, 2)
    texts = [row["text"] for row in test]
    labels = model.task.labels
    given = model.predict(texts)
    assert all(isinstance(row, list) for row in given) and any(not row for row in given)
    for row, whole in zip(given, model.predict(texts, top=None), strict=True):
        assert row == [each for each in whole if each["score"] >= threshold]
        assert [each["score"] for each in whole] == sorted(
            (each["score"] for each in whole), reverse=True
        )
    chosen = np.array(
        [[label in [each["label"] for each in row] for label in labels] for row in given]
    )
    truth = np.array([[label in row["label"] for label in labels] for row in test])
    assert m.multilabel(truth, chosen)["f1_micro"] == pytest.approx(
        run.metrics["metrics"]["f1_micro"]
    )
    again = evaluate(run.folder)
    assert again["metrics"] == pytest.approx(run.metrics["metrics"])
    assert (again["threshold"], again["main_metric"]) == (threshold, "f1_macro")
    assert f"from a probability of {threshold:.4g} on" in (run.folder / "report.html").read_text()

    assert model.predict(texts[:3], top=1) == [
        whole[0] for whole in model.predict(texts[:3], top=None)
    ]
    assert [len(row) for row in model.predict(texts[:3], top=2)] == [2, 2, 2]
    for top in (0, -1, "all", 1.5):
        with pytest.raises(
            ModelError, match=f"top = {top!r} labels cannot be shown; give 1 or more"
        ):
            model.predict(texts, top=top)
    predict(run.folder, texts=texts, out=tmp_path / "out.jsonl")
    written = [
        json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()
    ]
    assert written == predict(run.folder, texts=texts)
    model.save(tmp_path / "again")
    assert threshold_of(tmp_path / "again") == threshold


def test_predictions_of_no_label_have_their_row(monkeypatch):
    console = Console(width=60, record=True, file=io.StringIO())
    monkeypatch.setattr(langue.runs.show, "Console", lambda: console)
    results = [
        [],
        None,
        [{"label": "a", "score": 0.5}, {"label": "b", "score": 0.4}],
        {"label": "c", "score": 1.0},
    ]
    langue.runs.show.print_predictions(["none", "", "two", "one"], results)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines == [
        ["–", "none"],
        ["–"],
        ["a", "0.500", "two"],
        ["b", "0.400"],
        ["c", "1.000", "one"],
    ]


def test_top_and_all_on_the_command_line(run, capsys):
    counts = []
    for words in ([], ["--top", "2"], ["--all"]):
        assert (
            command(["predict", str(run.folder), "--text", "a good night", "--json", *words]) == 0
        )
        counts.append(len(json.loads(capsys.readouterr().out)[0]))
    assert counts[1:] == [2, 3]


def test_a_run_made_before_the_threshold_was_kept_gives_labels_from_a_half(run, tmp_path):
    copy = copied(run, tmp_path)
    saved = json.loads((copy / "langue.json").read_text())
    del saved["threshold"]
    (copy / "langue.json").write_text(json.dumps(saved))
    model = load(copy)
    texts = [row["text"] for row in rows(20, 2)]
    for given, whole in zip(model.predict(texts), model.predict(texts, top=None), strict=True):
        assert given == [each for each in whole if each["score"] >= 0.5]
    assert evaluate(copy)["threshold"] == 0.5
    for wrong in (2, -0.1, "0.5", True, None):
        (copy / "langue.json").write_text(json.dumps(saved | {"threshold": wrong}))
        with pytest.raises(
            ModelError, match="the task cannot be followed .*threshold = .* is no probability"
        ):
            load(copy)


def test_the_recipe_says_what_the_run_was_chosen_by_and_resume_keeps_to_it(
    run, model, data, tmp_path
):
    recipe = (run.folder / "recipe.toml").read_text()
    assert 'best = "f1_macro"' in recipe and run.metrics["main_metric"] == "f1_macro"
    page = (run.folder / "report.html").read_text()
    sentence = verdict(run.metrics).sentence
    assert '<tr class="main"><td>F1, macro</td>' in page
    assert html.escape(sentence) in page and "F1, macro" in sentence
    assert run.metrics["baseline"]["name"].endswith(", balanced")
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert all("f1_macro" in line for line in log)

    seen = []
    copy = copied(run, tmp_path)
    again = {
        "model": model,
        "data": data,
        "out": copy,
        "resume": True,
        "keep_checkpoints": True,
        "show": lambda each: seen.append(each.task.best),
    }
    finetune(**again, **SETTINGS)
    # A run that began before there was the setting goes on as it was, and its recipe stays what it
    # is.
    (copy / "recipe.toml").write_text(recipe.replace('best = "f1_macro"\n', ""))
    before = finetune(**again, **SETTINGS)
    assert seen == ["f1_macro", "f1_micro"]
    assert before.metrics["main_metric"] == evaluate(copy)["main_metric"] == "f1_micro"
    assert not before.metrics["baseline"]["name"].endswith(", balanced")
    assert "best =" not in (copy / "recipe.toml").read_text()


def test_what_cannot_be_chosen_by_is_one_line_before_any_work(model, data, tmp_path):
    with pytest.raises(
        SettingsError,
        match="train.best = 'f1_makro' is no metric of the task classify; did you mean f1_macro",
    ):
        finetune(
            model="no such model",
            data=data,
            out=tmp_path / "run",
            **SETTINGS | {"train.best": "f1_makro"},
        )
    (tmp_path / "text.txt").write_text("a text\n" * 20)
    with pytest.raises(
        SettingsError, match="train.best = 'accuracy' is no metric of pretraining.*known: loss$"
    ):
        pretrain(
            data=tmp_path / "text.txt", out=tmp_path / "language", **{"train.best": "accuracy"}
        )
    assert not (tmp_path / "run").exists() and not (tmp_path / "language").exists()
