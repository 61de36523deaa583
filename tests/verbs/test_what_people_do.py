"""What people do who have not read the manual: links, other tools' words, odd lists, scores of any
size."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from langue.cli import run as command
from langue.errors import DataError, ModelError, RunError, SettingsError
from langue.evaluation.curves import _reach
from langue.runs.model import load
from langue.tasks.classify import Classify, _ordered
from langue.tasks.regress import Regress
from langue.text.read.source import read
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.predict import predict
from langue.verbs.pretrain import pretrain
from langue.verbs.preview import preview
from tests.tiny import SHORT, reviews, write_jsonl
from tests.tiny_decoder import tiny_decoder


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    return finetune(
        model=model, data=reviews(120, 0), out=tmp_path_factory.mktemp("runs") / "run", **SHORT
    ).folder


def scored(by, more=0.0):
    rows = [
        {"text": r["text"], "score": ((r["label"] == "pos") + 0.25 * (n % 3)) * by + more}
        for n, r in ROWS
    ]
    return {"train": rows[:120], "dev": rows[120:140], "test": rows[120:]}


ROWS = list(enumerate(reviews(160, 3)))
FULL = {"train.epochs": 3, "train.batch_examples": 16, "train.lr": 3e-3, "train.precision": "fp32"}


def test_scores_of_any_scale_are_learned_alike(model, tmp_path):
    """By powers of two exactly so; by others, and far from zero, as well."""
    plain, wide, far = (
        finetune("regress", model=model, data=scored(*scale), out=tmp_path / str(n), **FULL)
        for n, scale in enumerate([(1.0,), (4096.0,), (10_000.0, 70_000.0)])
    )
    assert plain.metrics["metrics"]["pearson"] > 0.4
    assert wide.metrics["metrics"]["mse"] == pytest.approx(
        4096.0**2 * plain.metrics["metrics"]["mse"], rel=1e-4
    )
    assert far.metrics["metrics"]["mse"] == pytest.approx(
        1e8 * plain.metrics["metrics"]["mse"], rel=0.2
    )
    texts = [row["text"] for _, row in ROWS[:20]]
    one, other = (
        np.array([p["score"] for p in each.load().predict(texts)]) for each in (plain, wide)
    )
    np.testing.assert_allclose(other, 4096 * one, rtol=1e-4, atol=1)
    # Trained further, it begins where it ended.
    more = finetune(
        "regress",
        model=far.folder,
        data=scored(10_000.0, 70_000.0),
        out=tmp_path / "m",
        **FULL | LITTLE,
    )
    assert more.metrics["metrics"]["mse"] == pytest.approx(far.metrics["metrics"]["mse"], rel=0.05)


LITTLE = {"train.lr": 1e-9}


def test_what_is_folded_comes_back():
    task = Regress(Regress.Options(pooling="mean"), mean=258.3, spread=128.0)
    weights = {
        "head.out.weight": torch.randn(1, 4),
        "head.out.bias": torch.randn(1),
        "body.x": torch.ones(2),
    }
    for name, back in task.rescale_head(task.rescale_head(weights), back=True).items():
        torch.testing.assert_close(back, weights[name], atol=1e-4, rtol=1e-5)
    last = Regress(
        Regress.Options(pooling="last"), mean=258.3, spread=128.0
    )  # its head has no bias
    assert last.predict(torch.ones(1, 1)).item() == 128.0


@pytest.mark.parametrize(
    "words",
    [
        {"model.n_layers": 1},
        {"model.size": "10M"},
        {"tokenizer.vocab_size": 10},
        {"data.seq_len": 64},
        {"train.z_loss": 1},
    ],
)
def test_settings_of_pretraining_are_refused(model, tmp_path, words):
    with pytest.raises(SettingsError, match="is of pretraining, and does nothing here"):
        finetune(model=model, data=reviews(40, 0), out=tmp_path / "run", **words)


@pytest.mark.parametrize(
    "words",
    [{"task.label_smoothing": 0.1}, {"task.class_weights": "balanced"}, {"task.multi_label": True}],
)
def test_settings_of_labels_are_refused_where_scores_are_learned(model, tmp_path, words):
    with pytest.raises(SettingsError, match="is of the task classify.*, and does nothing here"):
        finetune("regress", model=model, data=scored(1.0), out=tmp_path / "run", **words)


def test_a_recipe_does_not_hold_rows_given_in_python(run, tmp_path):
    for words in (
        {"out": tmp_path / "again", "recipe": run / "recipe.toml"},
        {"out": run, "resume": True},
    ):
        with pytest.raises(
            SettingsError, match=r"rows given in Python, which its recipe does not hold; give them"
        ):
            finetune(**words)
    (tmp_path / "recipe.toml").write_text('[data]\nname = "(rows given in Python)"\n')
    with pytest.raises(SettingsError, match="rows given in Python, which its recipe does not hold"):
        pretrain(out=tmp_path / "more", recipe=tmp_path / "recipe.toml")


def test_out_may_be_a_link_or_where_one_stands(model, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for force in (False, True):
        finetune(model=model, data=reviews(40, 0), out=tmp_path / "link", force=force, **SHORT)
        assert (tmp_path / "link").is_symlink() and (
            tmp_path / "real" / "model.safetensors"
        ).is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    finetune(model=model, data=reviews(40, 0), out=".", **SHORT)
    assert (tmp_path / "here" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([[0, 1, 0], [1, 0, 0]], None),
        ([[1.0, 0.0, 0.0]], None),
        ([[True, False, False], None], None),
        ([[0, 1], [1, 0]], None),
        (["0|1|0", "", "1|1|0"], None),
        (["0|1", "1", "0"], ["0", "1"]),
        ([["a", "b"]], ["a", "b"]),
        (["Drama, historical|War"], ["Drama, historical", "War"]),
    ],
)
def test_labels_by_their_place_are_no_names(labels, names):
    rows = [{"text": "a", "label": label} for label in labels]
    table = read(rows, need=("text", "label"), split=False).test
    if names is not None:
        assert Classify.fit(table, Classify.Options(multi_label=True)).labels == names
        return
    with pytest.raises(DataError, match="row 1: the labels look like one-hot"):
        Classify.fit(table, Classify.Options(multi_label=True))


def test_the_order_of_labels_does_not_depend_on_the_order_of_a_set():
    """Which differs between processes: `nan` compares as false with every number."""
    for labels in itertools.permutations(["nan", "1", "0", "2", "10"]):
        assert _ordered(dict.fromkeys(labels)) == ["0", "1", "10", "2", "nan"]


def test_rows_of_python_are_not_quoted_in_what_is_said(run):
    with pytest.raises(DataError, match="there is no split 'dev'") as error:
        evaluate(run, data=reviews(300, 1), split="dev")
    assert len(str(error.value)) < 300
    with pytest.raises(RunError, match="give --data"):
        evaluate(run)


def test_texts_of_a_table_and_of_a_generator(run):
    model = load(run)
    texts = ["a good film", "a bad film"]
    expected = model.predict(texts)
    assert (
        model.predict(pd.Series(texts, index=[7, 9]))
        == model.predict(each for each in texts)
        == expected
    )
    for top in (0, -1):
        with pytest.raises(ModelError, match="cannot be shown"):
            model.predict(texts, top=top)


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        (["a good film", "bad \udce9"], [{"text": "a good film"}, {"text": "bad \ufffd"}]),
        ([np.array([2, 7, 3]), [2, 8, 3]], [{"tokens": [2, 7, 3]}, {"tokens": [2, 8, 3]}]),
    ],
)
def test_what_was_predicted_of_is_written(run, tmp_path, texts, rows):
    assert predict(run, texts=(each for each in texts), out=tmp_path / "out.jsonl") == []
    written = [
        json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    ]
    expected = predict(run, texts=texts)
    assert written == [row | {"prediction": each} for row, each in zip(rows, expected, strict=True)]


def test_no_texts_have_no_logits_of_each_label(run):
    assert load(run).logits([]).shape == (0, 2)


def test_prompts_of_a_table_and_of_a_generator(tmp_path):
    model = load(tiny_decoder(tmp_path / "m", "llama"))
    prompts = ["a b", "b"]
    expected = model.generate(prompts, max_tokens=3)
    assert model.generate(pd.Series(prompts, index=[7, 9]), max_tokens=3) == expected
    assert model.generate((each for each in prompts), max_tokens=3) == expected


def test_words_of_other_tools_after_two_dashes(model, tmp_path, capsys):
    for option, setting in (
        ("--lr", "train.lr"),
        ("--epochs", "train.epochs"),
        ("--seed", "train.seed"),
    ):
        words = [
            "finetune",
            "--model",
            str(model),
            "--data",
            str(tmp_path),
            "--out",
            str(tmp_path / "r"),
            option,
            "3",
        ]
        assert command(words) == 2 and setting in capsys.readouterr().err


def test_what_a_killed_run_had_begun_to_write_is_swept(model, tmp_path, run):
    from langue.train.state import _drop_others

    for name in (".step-00000005.abc", "step-00000003", "best-00000003"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000007").mkdir()
    _drop_others(tmp_path / "step-00000007")
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000007", "best-00000003"}


def test_recipes_that_are_not_quite(model, tmp_path, capsys):
    write_jsonl(tmp_path / "d.jsonl", reviews(40, 0))
    (tmp_path / "a.toml").write_text(
        f'[model]\nname = "{model}"\n[data]\nname = "{tmp_path}/d.jsonl"\n[columns]\ntext = 3'
    )
    (tmp_path / "b.toml").write_text('model = "tiny"\n')
    for name, says in (
        ("a", "columns: text = 3 is no column's name"),
        ("b", '[model] name = "..."'),
    ):
        assert (
            command(
                [
                    "finetune",
                    "--recipe",
                    str(tmp_path / f"{name}.toml"),
                    "--out",
                    str(tmp_path / "r"),
                ]
            )
            == 2
        )
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": ["bert"]}, r"model = \['bert'\] cannot be used; give one Hub name or folder"),
        ({"task": ["a"]}, r"task = \['a'\] cannot be used; give one name"),
        ({"columns": ["text"]}, r"columns = \['text'\] cannot be used; give ours and theirs"),
        ({"recipe": "[model]\nname = 3"}, "model = 3 cannot be used; give one Hub name or folder"),
    ],
)
def test_arguments_of_another_kind(tmp_path, given, says):
    if "recipe" in given:
        (tmp_path / "r.toml").write_text(given["recipe"])
        given = {"recipe": tmp_path / "r.toml"}
    else:
        given = {"model": "m", **given}
    with pytest.raises(SettingsError, match=says):
        finetune(data="d.csv", out=tmp_path / "run", **given)


def test_a_folder_whose_train_files_are_called_otherwise(model, tmp_path):
    for name in ("train1", "train2", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", reviews(20, 0))
    with pytest.raises(DataError, match="train1.jsonl, train2.jsonl not used"):
        preview(model=model, data=tmp_path)


TWICE = """
import sys
from langue.cli import main

for more in ([], ["--json"]):
    try:
        main([*sys.argv[1:], *more])
    except SystemExit as end:
        print("----", end.code)
"""


def test_letters_that_the_terminal_cannot_encode(run, tmp_path):
    """As a table and as JSON, one after the other in a process whose output is ASCII."""
    words = [sys.executable, "-c", TWICE, "predict", str(run), "--text", "Grüße, 电影"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    table, printed, rest = done.stdout.split("---- 0\n")
    assert table.strip() and json.loads(printed) and not rest, done.stderr


def test_convert_says_what_it_wrote(model, tmp_path, capsys):
    assert command(["convert", str(model), str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(tmp_path / "out")}


def test_a_curve_is_called_smoothed_where_it_is():
    assert [_reach([(0.0, 0.0)] * n) for n in (20, 29, 30, 90)] == [0, 0, 1, 3]


def test_what_transformers_cuts(model, tmp_path):
    """Told where it keeps what is kept here, it cuts the same; and the sentence says so."""
    transformers = pytest.importorskip("transformers")
    settings = SHORT | {"data.max_length": 8, "data.truncation": "head", "task.pooling": "first"}
    made = finetune(model=model, data=reviews(60, 0), out=tmp_path / "run", **settings)
    assert (
        "truncation=True" in made.facts["transformers"]
        and "where nothing is cut" not in made.facts["transformers"]
    )
    text = "the good film and the bad film and the good film and the bad film"
    pipe = transformers.pipeline("text-classification", model=str(made.folder), device="cpu")
    (theirs,) = pipe([text], truncation=True)
    (ours,) = load(made.folder).predict([text])
    assert theirs["label"] == ours["label"] and theirs["score"] == pytest.approx(
        ours["score"], abs=1e-5
    )
    facts = preview(
        model=model, data=reviews(60, 0), **settings | {"data.truncation": "head-tail"}
    ).facts
    assert "same logits where nothing is cut" in facts["transformers"]
