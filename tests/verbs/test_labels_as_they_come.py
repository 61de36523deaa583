"""Labels, columns and names as tables of other programs have them."""

import io
import json
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from langue.cli import run as command
from langue.errors import DataError, SettingsError
from langue.runs.model import load
from langue.runs.show import print_preview
from langue.settings.sections import resolve
from langue.tasks.classify import Classify
from langue.text.read.source import Table, read
from langue.text.read.split import all_seen, class_numbers, hold_out
from langue.text.read.table import as_dataset
from langue.train.journal import read_log
from langue.verbs.evaluate import evaluate
from langue.verbs.preview import preview
from tests.tiny import reviews, write_jsonl


def table_of(labels):
    rows = {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    return Table(as_dataset(pa.table(rows)), "here")


@pytest.mark.parametrize("label", [float("nan"), None, "", "  "])
@pytest.mark.parametrize("others", [["pos", "neg"], [0.0, 1.0]])
def test_a_missing_label_is_no_class(label, others):
    if not isinstance(others[0], str) and isinstance(label, str):
        return
    rows = [{"text": f"text {i}", "label": others[i % 2]} for i in range(20)]
    rows[7]["label"] = label
    source = read(rows, need=("text", "label"))
    with pytest.raises(DataError, match="the label is empty"):
        for split in (source.train, source.dev, source.test):
            Classify.read_targets(split, Classify.Options())


def test_an_object_is_no_label():
    with pytest.raises(DataError, match="row 1: the label is an object"):
        Classify.fit(table_of([{"a": 1}, {"a": 2}]), Classify.Options())


def test_blanks_after_commas_as_in_the_header(tmp_path):
    (tmp_path / "a.csv").write_text('text, label\n"good, indeed", pos\n bad ,  neg\n')
    source = read(tmp_path / "a.csv", need=("text", "label"), split=False)
    assert source.test.column("text") == ["good, indeed", "bad "] and source.test.column(
        "label"
    ) == ["pos", "neg"]
    assert any("blanks after a separator" in note for note in source.notes)
    (tmp_path / "b.csv").write_text("text,label\ngood, pos\n")
    assert read(tmp_path / "b.csv", need=("text", "label"), split=False).test.column("label") == [
        " pos"
    ]


def test_no_labels_are_no_label():
    settings = Classify.Options(multi_label=True)
    labels = ["a|b", "", "  ", "a", "b|", "|", None]
    task = Classify.fit(table_of(labels), settings)
    assert task.labels == ["a", "b"]
    assert task.golds(table_of(labels)).tolist() == [
        [1, 1],
        [0, 0],
        [0, 0],
        [1, 0],
        [0, 1],
        [0, 0],
        [0, 0],
    ]
    assert Classify.read_target(["a", "", None, float("nan")], settings, str) == ["a"]


@pytest.mark.parametrize("label", ["['a', 'b']", '["a"]', " [0, 1, 0]\n", "['a'\n 'b']"])
def test_a_list_written_as_text_is_no_label(label):
    with pytest.raises(DataError, match="are a list written as text"):
        Classify.read_target(label, Classify.Options(multi_label=True), str)
    assert Classify.read_target("[bold]|b", Classify.Options(multi_label=True), str) == [
        "[bold]",
        "b",
    ]
    assert Classify.read_target(label, Classify.Options(), str) == label


def test_labels_of_one_value_have_one_order():
    labels = ["1", "01", "1.0", "2", "10", "-1"]
    orders = set()
    for seed in range(20):
        random.Random(seed).shuffle(labels)
        orders.add(tuple(Classify.fit(table_of(labels * 2), Classify.Options()).labels))
    assert orders == {("-1", "01", "1", "1.0", "2", "10")}


@pytest.mark.parametrize("seed", range(10))
def test_of_many_labels_each_is_seen_in_training(seed):
    draw = random.Random(seed)
    labels = [draw.sample([f"often{i}" for i in range(5)], draw.randint(0, 3)) for _ in range(100)]
    for i in range(10):
        labels[draw.randrange(100)].append(f"once{i}")
    assert class_numbers(labels) is None
    kept, held = hold_out(100, 20, seed, None)
    seen, unseen = all_seen(kept, held, labels)
    assert sorted([*seen, *unseen]) == list(range(100)) and len(unseen) == 20
    assert {x for i in unseen for x in labels[i]} <= {x for i in seen for x in labels[i]}


@pytest.mark.parametrize("form", ["|".join, list, lambda names: list(names) if names else None])
def test_of_many_labels_each_is_seen_in_training_however_they_are_written(form):
    draw = random.Random(0)
    names = [[], *(draw.sample([f"label{i}" for i in range(25)], 3) for _ in range(60))]
    rows = [{"text": f"text {n}", "label": form(each)} for n, each in enumerate(names)]
    settings = Classify.Options(multi_label=True)
    for seed in range(10):
        source = read(rows, need=("text", "label"), stratify="label", seed=seed)
        task = Classify.fit(source.train, settings)
        for held in (source.dev, source.test):
            assert len(task.golds(held)) == 6


def test_whole_numbers_are_classes_also_where_they_are_written_as_real_ones():
    assert class_numbers([0.0, 1.0, 0.0, 1.0]).tolist() == [0, 1, 0, 1]
    assert class_numbers([0.5, 1.0, 0.5, 1.0]) is None
    assert class_numbers([0.0, float("nan"), 0.0, 1.0]) is None


@pytest.mark.parametrize("name", ["pairs", "txt", "labels"])
def test_a_column_of_ours_that_there_is_not(name):
    with pytest.raises(DataError, match=f"'{name}' is no column of ours"):
        read(
            [{"text": "a", "label": "b"}] * 9,
            columns={name: "text"},
            need=("text", "label"),
            optional=("pair",),
        )


def test_brackets_are_no_markup(model, tmp_path):
    rows = [
        row | {"label": {"pos": "[/yes]", "neg": "[bold]"}[row["label"]]} for row in reviews(60, 0)
    ]
    path = tmp_path / "r[final].jsonl"
    write_jsonl(path, rows)
    console = Console(width=200, record=True, file=io.StringIO())
    print_preview(preview(model=model, data=path), console)
    said = console.export_text()
    assert "r[final].jsonl" in said and "[/yes] " in said and "[bold] " in said


def test_parquet_whose_other_columns_are_odd(tmp_path):
    odd = pa.array([[("k", 1)]] * 12, pa.map_(pa.string(), pa.int64()))
    rows = {"text": [f"text {i}" for i in range(12)], "label": ["a", "b"] * 6, "odd": odd}
    pq.write_table(pa.table(rows), tmp_path / "odd.parquet")
    assert len(read(tmp_path / "odd.parquet", need=("text", "label")).train) == 10
    whole = bytearray((tmp_path / "odd.parquet").read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole) - 300, len(whole) - 8, 60):
        whole[place] ^= 0xFF
    (tmp_path / "damaged.parquet").write_bytes(whole)
    with pytest.raises(DataError, match="Parquet"):
        read(tmp_path / "damaged.parquet", need=("text", "label"))


@pytest.mark.parametrize(
    "word", [{"train.epochs": "inf"}, {"train.lr": "nan"}, {"train.seed": str(10**23 - 1)}]
)
def test_settings_that_are_no_numbers_to_work_with(word):
    with pytest.raises(SettingsError):
        resolve(word)


def test_scores_beyond_float32():
    from langue.tasks.regress import Regress

    for score, says in (
        (1e39, r"1e\+39 is beyond 1e\+18"),
        ("-1e19", "is beyond"),
        (True, "not a number"),
    ):
        with pytest.raises(DataError, match=says):
            Regress.read_target(score, Regress.Options(), str)


def test_where_every_label_stands_once_some_row_is_held_out_all_the_same():
    kept, held = all_seen(np.array([0, 1]), np.array([2]), [["a"], ["b"], ["c"]])
    assert (kept.tolist(), held.tolist()) == ([0, 1], [2])


BARRED = [
    (["a|b", "a", "b", "c"], 1),
    (["a|b", "a|c"] * 2, 4),
    (["b|a", "a|b"], 2),
    (["a|", "a"], 1),
    (["Drama | War", "War"], 1),
]


@pytest.mark.parametrize(("labels", "count"), BARRED)
def test_labels_that_look_like_several_are_asked_about(labels, count):
    """And either answer, word for word, is taken."""
    with pytest.raises(SettingsError) as error:
        Classify.fit(table_of(labels), Classify.Options())
    assert str(error.value).startswith(
        f"here: {count} of {len(labels)} rows have a label such as {labels[0]!r}, parts "
    )
    several, one = re.findall(r"(task\.multi_label)=(\w+)", str(error.value))
    assert Classify.fit(
        table_of(labels), resolve(dict([several]), options=Classify.Options).task
    ).labels == sorted({part.strip() for label in labels for part in label.split("|")} - {""})
    alone = Classify.fit(table_of(labels), resolve(dict([one]), options=Classify.Options).task)
    assert alone.labels == sorted(set(labels)) and not alone.notes()


def test_names_that_hold_a_bar_are_names_and_told():
    task = Classify.fit(table_of(["N|A", "left", "N|A"]), Classify.Options())
    assert task.labels == ["N|A", "left"]
    assert task.notes() == [
        "train: 2 rows have a label such as 'N|A', which is taken as one name; where a text has"
        " several labels: task.multi_label=true"
    ]
    assert not Classify.fit(table_of(["N|A", "left"]), Classify.Options(multi_label=False)).notes()


@pytest.mark.parametrize(
    ("labels", "given", "positive"),
    [
        (["ham", "ham", "spam"], None, "spam"),
        (["spam", "spam", "ham"], None, "ham"),
        (["ham", "spam"], None, "spam"),  # of equal ones the second, as before
        (["ham", "ham", "spam"], "ham", "ham"),
        ([0, 1, 1], None, "0"),
        ([0, 1, 1], 1, "1"),
        ([True, False, False], "True", "True"),
        (["none", "hate", "none"], "none", "none"),
        (["a", "b", "c"], None, None),
    ],
)
def test_which_of_two_labels_f1_is_of(labels, given, positive):
    settings = resolve(
        {} if given is None else {"task.positive": given}, options=Classify.Options
    ).task
    task = Classify.fit(table_of(labels), settings)
    assert task.positive == positive
    again = Classify.from_dict(json.loads(json.dumps(task.to_dict())))
    assert (again.positive, again.settings) == (positive, settings)
    targets = np.array([0, 1, 1, 1])
    answers = np.eye(len(task.labels))[[0, 0, 1, 1]]
    found = task.metrics(targets, answers)
    assert task.label_of("f1") == positive and task.label_of("accuracy") is None
    if positive is not None:
        second = task.labels.index(positive)
        assert (found["precision"], found["recall"]) == pytest.approx(
            [(0.5, 1), (1, 2 / 3)][second]
        )


def test_a_run_made_before_keeps_its_meaning():
    saved = Classify(["ham", "spam"], Classify.Options()).to_dict()
    del saved["positive"], saved["settings"]["positive"]
    saved["settings"]["multi_label"] = False
    task = Classify.from_dict(saved)
    assert task.positive == "spam" and task.settings.multi_label is False
    with pytest.raises(KeyError):  # which `load` makes an error of the file
        Classify.from_dict(saved | {"positive": "eggs"})


@pytest.mark.parametrize(
    ("labels", "settings", "says"),
    [
        (
            ["ham", "spam"],
            {"positive": "spamm"},
            "is no label of the training rows; did you mean 'spam'? known: ham, spam",
        ),
        (
            ["ham", "spam"],
            {"positive": "x"},
            "task.positive = 'x' is no label of the training rows; known: ham, spam",
        ),
        (
            ["a", "b", "c"],
            {"positive": "a"},
            "task.positive is for two labels, one a text; here there are 3; leave it out",
        ),
        (
            ["a|b", "b"],
            {"positive": "a", "multi_label": True},
            "one a text; here a text may have several; leave it out",
        ),
    ],
)
def test_a_positive_label_that_cannot_be_is_one_line(labels, settings, says):
    with pytest.raises(SettingsError) as error:
        Classify.fit(table_of(labels), Classify.Options(**settings))
    assert str(error.value).startswith("here: ") and says in str(error.value)


def test_the_positive_label_is_named_wherever_its_scores_are(model, tmp_path, capsys):
    """A quarter of the rows are ham, which comes before spam."""
    named = {"pos": "ham", "neg": "spam"}
    for split, count in (("train", 80), ("dev", 20), ("test", 30)):
        rows = [
            {"text": row["text"], "label": named[row["label"]]} for row in reviews(2 * count, count)
        ]
        write_jsonl(
            tmp_path / f"{split}.jsonl",
            [r for n, r in enumerate(rows) if r["label"] == "spam" or n % 3 == 0],
        )
    out = tmp_path / "run"
    words = [
        "--model",
        str(model),
        "--data",
        str(tmp_path),
        "--out",
        str(out),
        "train.max_steps=4",
        "train.best=f1",
    ]
    assert command(["finetune", *words]) == 0
    scores = ("precision of ham", "recall of ham", "F1 of ham")
    shown = capsys.readouterr().out
    assert "precision, recall and F1 are of the label ham" in " ".join(shown.split())
    assert all(score in shown for score in scores)
    page = re.sub(r"<[^>]+>", "", (out / "report.html").read_text())
    assert all(score in page for score in scores)
    log = read_log(out / "log.jsonl")
    assert {line["split"] for line in log} == {"train", "dev"} and all(
        line["positive"] == "ham" for line in log
    )
    content = json.loads((out / "metrics.json").read_text())
    test = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    told = [each["label"] == "ham" for each in load(out).predict([row["text"] for row in test])]
    true = [row["label"] == "ham" for row in test]
    right = sum(a and b for a, b in zip(told, true, strict=True))
    assert content["positive"] == "ham" and content["metrics"]["recall"] == pytest.approx(
        right / sum(true)
    )
    again = evaluate(out)
    assert again["positive"] == "ham" and again["metrics"] == pytest.approx(content["metrics"])
    assert again["intervals"]["recall"] == content["intervals"]["recall"]
    assert again["baseline"]["comparison"] == content["baseline"]["comparison"]
