"""Files and folders as people have them: without headers, joined by `cat`, divided by folders, with
a test split that has no answers."""

import csv
import json

import pytest

from langue.errors import DataError
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.tasks.seq2seq import Seq2Seq
from langue.text.read.source import read

NEED = ("text", "label")
LONG = "Wall St. Bears Claw Back Into the Black (Reuters), as they say"


def rows(data, **kwargs):
    source = read(data, need=NEED, split=False, **kwargs)
    return list(zip(source.test.column("text"), source.test.column("label"), strict=True))


def refused(data, task=Classify, **kwargs):
    named = task.columns
    with pytest.raises(DataError) as caught:
        read(data, need=named.required, optional=named.optional, synonyms=named.synonyms, **kwargs)
    return str(caught.value)


HEADERLESS = {
    "AG News": ("a.csv", f'"3","{LONG}","{LONG * 2}"\n"4","b","c"\n', "text=3,label=1"),
    "UCI SMS spam": ("a.tsv", f"ham\t{LONG}\nspam\tb\n", "text=2,label=1"),
    "Sentiment140": (
        "a.csv",
        f'"0","14678","Mon","NO_QUERY","me","{LONG}"\n"4","15","Tue","NO","I","a"\n',
        "text=6,label=1",
    ),
    "short": ("a.csv", "very good,1\nbad,0\n", "text=1,label=2"),
}


@pytest.mark.parametrize("name", HEADERLESS)
def test_a_file_without_a_header_is_read_by_number(tmp_path, name):
    file, content, remedy = HEADERLESS[name]
    (tmp_path / file).write_text(content)
    message = refused(tmp_path / file)
    assert f"if that line is a row, name columns by number: --columns {remedy}" in message
    columns = dict(part.split("=") for part in remedy.split(","))
    source = read(tmp_path / file, need=NEED, columns=columns, split=False)
    assert len(source.test) == 2 and "read without a header" in source.notes[-1]
    assert source.test.where(1) == f"{tmp_path / file}, line 2"


def test_columns_that_are_called_by_numbers_are_those(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\nx,y\n")
    assert rows(tmp_path / "a.csv", columns={"text": "2", "label": "1"}) == [("y", "x")]


@pytest.mark.parametrize(
    ("header", "task", "remedy"),
    [
        ("sentence,target", Classify, "text=sentence,label=target"),
        ("target,sentence", Classify, "text=sentence,label=target"),
        ("id,review_text,sentiment", Classify, "text=review_text,label=sentiment"),
        ("Text,Label", Classify, "text=Text,label=Label"),
        ("target,answer", Classify, "text=NAME,label=target"),
        ("tweet,target,stars", Regress, "text=tweet,score=stars"),
        ('"Review, all of it",label', Classify, "text=Review, all of it"),
    ],
)
def test_a_remedy_never_names_the_answer_as_the_text(tmp_path, header, task, remedy):
    fields = len(next(csv.reader([header])))
    (tmp_path / "a.csv").write_text(f"{header}\n" + ",".join("xyz"[:fields]) + "\n")
    assert remedy in refused(tmp_path / "a.csv", task)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_header_that_stands_in_a_file_again_is_no_row(tmp_path, mark):
    for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
        part = f"{mark}text{separator}label\nx{separator}1\n"
        (tmp_path / name).write_text(part * 3)
        source = read(tmp_path / name, need=NEED, split=False)
        assert source.test.column("text") == ["x"] * 3
        assert "stands in it again, 2 times, first in line 3" in source.notes[0]
        assert source.test.where(2).endswith("line 6")
    (tmp_path / "a.jsonl").write_text(f'{mark}{{"text": "x", "label": 1}}\n' * 3)
    assert len(rows(tmp_path / "a.jsonl")) == 3


@pytest.mark.parametrize("content", ["id,text\n1,a\n", "text\na\n"])
def test_a_test_split_without_answers_is_left_out_and_told(tmp_path, content):
    (tmp_path / "train.csv").write_text("text,label\n" + "x,1\ny,0\n" * 20)
    (tmp_path / "test.csv").write_text(content)
    source = read(tmp_path, need=NEED)
    assert len(source.test) == len(source.dev) == 4
    assert "no column 'label'" in source.notes[0] and "left out" in source.notes[0]
    assert read(tmp_path, need=["text"], split=False).test.column("text") == ["a"]
    (tmp_path / "test.csv").write_text("id\n1\n")
    assert "no column 'text'" in refused(tmp_path)


def labelled(folder, texts):
    for number, (text, label) in enumerate(texts):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.txt").write_text(text)


def test_folders_are_labels(tmp_path):
    texts = [("fine\n\nindeed", "pos"), ("bad", "neg"), ("good", "pos")]
    labelled(tmp_path / "plain", texts)
    found = read(tmp_path / "plain", need=NEED, split=False).test
    assert sorted(zip(found.column("text"), found.column("label"), strict=True)) == sorted(texts)
    assert found.where(0) == str(tmp_path / "plain" / "neg" / "1.txt")
    for split in ("train", "test"):
        labelled(tmp_path / "imdb" / split, texts * 4)
    labelled(tmp_path / "imdb" / "train", [("what", "unsup")])
    (tmp_path / "imdb" / "imdb.vocab").write_text("the")
    (tmp_path / "imdb" / "train" / ".cache").mkdir()
    run = tmp_path / "imdb" / "train" / "run"
    labelled(tmp_path / "imdb" / "train", [("what", "run")])
    (run / "langue.json").write_text("{}")
    source = read(tmp_path / "imdb", need=NEED, stratify="label")
    assert len(source.train) + len(source.dev) == len(source.test) == 12
    assert set(source.train.column("label")) == {"pos", "neg"}
    told = " ".join(source.notes)
    assert "1 texts without a label" in told and f"{run}: a run, not read" in told


def test_split_folders_of_tables(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "part-0.csv").write_text("text,label\nx,1\n")
    source = read(tmp_path, need=NEED)
    assert [len(each) for each in (source.train, source.dev, source.test)] == [1, 1, 1]


def test_splits_named_one_by_one(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,1\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "y", "label": 2}))
    labelled(tmp_path / "c", [("z", "1"), ("w", "2")])
    source = read(
        {"train": str(tmp_path / "a.csv"), "dev": tmp_path / "b.jsonl", "test": tmp_path / "c"},
        need=NEED,
    )
    assert source.train.where(0) == f"{tmp_path / 'a.csv'}, line 2"
    assert source.dev.column("label") == [2] and source.test.column("text") == ["z", "w"]


def test_parallel_files_are_joined_by_paste(tmp_path):
    for column, words in (("source", "ab"), ("target", "xy")):
        (tmp_path / f"train.{column}").write_text("\n".join(words) + "\n")
    message = refused(tmp_path, Seq2Seq)
    assert "paste train.source train.target > train.tsv" in message
    assert "--columns source=1,target=2" in message
    (tmp_path / "train.tsv").write_text("a\tx\nb\ty\n")
    columns = {"source": "1", "target": "2"}
    source = read(tmp_path / "train.tsv", need=["source", "target"], columns=columns, split=False)
    assert source.test.column("target") == ["x", "y"]
    (tmp_path / "x.txt").write_text("a\nb\n")
    message = refused(tmp_path / "x.txt")
    assert f"paste {tmp_path / 'x.txt'} LABELS.txt > both.tsv" in message
    assert "--columns text=1,label=2" in message
