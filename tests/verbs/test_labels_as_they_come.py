"""Labels, columns and names as tables of other programs have them."""

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from langue.errors import DataError, SettingsError
from langue.settings import TaskSettings, resolve
from langue.tasks.classify import Classify
from langue.text.source import Table, read
from langue.text.split import all_seen, class_numbers, hold_out
from langue.text.table import as_dataset
from langue.verbs.preview import preview, show
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
            Classify.read_targets(split, TaskSettings())


def test_an_object_is_no_label():
    with pytest.raises(DataError, match="row 1: the label is an object"):
        Classify.fit(table_of([{"a": 1}, {"a": 2}]), TaskSettings())


def test_blanks_after_commas_as_in_the_header(tmp_path):
    (tmp_path / "a.csv").write_text('text, label\n"good, indeed", pos\n bad ,  neg\n')
    source = read(tmp_path / "a.csv", need=("text", "label"), split=False)
    assert source.test.column("text") == ["good, indeed", "bad "] and source.test.column("label") == ["pos", "neg"]
    assert any("blanks after a separator" in note for note in source.notes)
    (tmp_path / "b.csv").write_text("text,label\ngood, pos\n")
    assert read(tmp_path / "b.csv", need=("text", "label"), split=False).test.column("label") == [" pos"]


def test_no_labels_are_no_label():
    settings = TaskSettings(multi_label=True)
    labels = ["a|b", "", "  ", "a", "b|", "|", None]
    task = Classify.fit(table_of(labels), settings)
    assert task.labels == ["a", "b"]
    assert task.targets(table_of(labels)).tolist() == [[1, 1], [0, 0], [0, 0], [1, 0], [0, 1], [0, 0], [0, 0]]
    assert Classify.read_target(["a", "", None, float("nan")], settings, str) == ["a"]


@pytest.mark.parametrize("label", ["['a', 'b']", '["a"]', " [0, 1, 0]\n", "['a'\n 'b']"])
def test_a_list_written_as_text_is_no_label(label):
    with pytest.raises(DataError, match="are a list written as text"):
        Classify.read_target(label, TaskSettings(multi_label=True), str)
    assert Classify.read_target("[bold]|b", TaskSettings(multi_label=True), str) == ["[bold]", "b"]
    assert Classify.read_target(label, TaskSettings(), str) == label


def test_labels_of_one_value_have_one_order():
    labels = ["1", "01", "1.0", "2", "10", "-1"]
    orders = set()
    for seed in range(20):
        random.Random(seed).shuffle(labels)
        orders.add(tuple(Classify.fit(table_of(labels * 2), TaskSettings()).labels))
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
    settings = TaskSettings(multi_label=True)
    for seed in range(10):
        source = read(rows, need=("text", "label"), stratify="label", seed=seed)
        task = Classify.fit(source.train, settings)
        for held in (source.dev, source.test):
            assert len(task.targets(held)) == 6


def test_whole_numbers_are_classes_also_where_they_are_written_as_real_ones():
    assert class_numbers([0.0, 1.0, 0.0, 1.0]).tolist() == [0, 1, 0, 1]
    assert class_numbers([0.5, 1.0, 0.5, 1.0]) is None
    assert class_numbers([0.0, float("nan"), 0.0, 1.0]) is None


@pytest.mark.parametrize("name", ["pairs", "txt", "labels"])
def test_a_column_of_ours_that_there_is_not(name):
    with pytest.raises(DataError, match=f"'{name}' is no column of ours"):
        read([{"text": "a", "label": "b"}] * 9, columns={name: "text"}, need=("text", "label"))


def test_brackets_are_no_markup(model, tmp_path):
    rows = [row | {"label": {"pos": "[/yes]", "neg": "[bold]"}[row["label"]]} for row in reviews(60, 0)]
    path = tmp_path / "r[final].jsonl"
    write_jsonl(path, rows)
    console = Console(width=200, record=True, file=io.StringIO())
    show(preview(model=model, data=path), console)
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


@pytest.mark.parametrize("word", [{"train.epochs": "inf"}, {"train.lr": "nan"}, {"train.seed": str(10**23 - 1)}])
def test_settings_that_are_no_numbers_to_work_with(word):
    with pytest.raises(SettingsError):
        resolve(word)


def test_scores_beyond_float32():
    from langue.tasks.regress import Regress

    for score, says in ((1e39, r"1e\+39 is beyond 1e\+18"), ("-1e19", "is beyond"), (True, "not a number")):
        with pytest.raises(DataError, match=says):
            Regress.read_target(score, TaskSettings(), str)


def test_where_every_label_stands_once_some_row_is_held_out_all_the_same():
    kept, held = all_seen(np.array([0, 1]), np.array([2]), [["a"], ["b"], ["c"]])
    assert (kept.tolist(), held.tolist()) == ([0, 1], [2])
