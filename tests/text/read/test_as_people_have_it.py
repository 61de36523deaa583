"""Files and folders as people have them: without headers, joined by `cat`, divided by folders, with
a test split that has no answers."""

import csv
import gzip
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


PAIRS = {"en": "a dog\na cat\n\n", "de": "ein Hund\r\neine Katze\r\n"}


def beside_each_other(folder, *stems, tail="", **texts):
    for stem in stems:
        for column, text in (PAIRS | texts).items():
            (folder / f"{stem}.{column}{tail}").write_bytes(text.encode())


def of_pairs(data, **kwargs):
    named = Seq2Seq.columns
    return read(data, need=named.required, synonyms=named.synonyms, **kwargs)


@pytest.mark.parametrize("tail", ["", ".txt"])
def test_files_of_a_language_each_are_read_line_by_line(tmp_path, tail):
    beside_each_other(tmp_path, "train", "val", "test_2016_flickr", tail=tail, fr="un\n")
    (tmp_path / "train.sh").write_text("echo\n")
    source = of_pairs(tmp_path, columns={"source": "en", "target": "de"})
    for table in (source.train, source.dev, source.test):
        assert table.column("source") == ["a dog", "a cat"]
        assert table.column("target") == ["ein Hund", "eine Katze"]
    assert source.train.where(1) == f"{tmp_path / f'train.en{tail}'} and train.de{tail}, line 2"
    said = f"train.en{tail} is the source, train.de{tail} is the target; train.fr{tail}"
    assert any(said in note for note in source.notes)


def test_which_language_is_the_source_is_asked_for(tmp_path):
    beside_each_other(tmp_path, "corpus")
    message = refused(tmp_path / "corpus.de", Seq2Seq)
    ways = ("--columns source=de,target=en", "--columns source=en,target=de")
    assert f"with {ways[0]} or {ways[1]}" in message
    for source, target in (("de", "en"), ("en", "de")):
        rows = of_pairs(
            tmp_path / "corpus.de", columns={"source": source, "target": target}, split=False
        )
        assert rows.test.column("source") == PAIRS[source].replace("\r", "").strip().split("\n")
    assert f"--data {tmp_path / 'corpus.de'} reads" in refused(tmp_path, Seq2Seq)
    assert "corpus.de reads" not in refused(tmp_path)  # of a text with its label they are not


def test_names_that_say_which_is_the_source(tmp_path):
    for source, target in (("src", "tgt"), ("source", "target"), ("src", "trg")):
        folder = tmp_path / f"{source}-{target}"
        folder.mkdir()
        (folder / f"train.{source}").write_text("a\n\nb\n")
        (folder / f"train.{target}").write_text("x\n\ny\n")
        table = of_pairs(folder, split=False, invalid="drop").train
        assert table.column("source") == ["a", "b"] and table.column("target") == ["x", "y"]
        with pytest.raises(DataError, match="line 2: the source is empty") as caught:
            of_pairs(folder, split=False)
        assert f"train.{source} and train.{target}, line 2" in caught.value.where


def test_unequal_numbers_of_lines(tmp_path):
    beside_each_other(tmp_path, "train", de="ein Hund\n")
    with pytest.raises(DataError) as caught:
        of_pairs(tmp_path, columns={"source": "en", "target": "de"})
    assert "train.en has 3, train.de has 1" in caught.value.what
    (tmp_path / "train.de").write_text(PAIRS["de"])
    of_pairs(tmp_path, columns={"source": "en", "target": "de"}, split=False)


def test_two_pairs_for_one_split(tmp_path):
    beside_each_other(tmp_path, "test.2016", "test.2017")
    message = refused(tmp_path, Seq2Seq)
    assert "test.2016.de and test.2016.en and test.2017.de and test.2017.en could each" in message
    assert "not used" not in message


def test_multi30k_as_its_authors_publish_it(shared_data, tmp_path):
    """Files of a language each, against the same rows as one file of records."""
    there = shared_data("multi30k")
    for name in ("dev", "test2016"):
        with gzip.open(there / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        for column, field in (("en", "source"), ("de", "target")):
            text = "".join(row[field] + "\n" for row in rows)
            with gzip.open(tmp_path / f"{name.strip('2016')}.{column}.gz", "wt") as file:
                file.write(text)
    source = of_pairs(tmp_path, columns={"source": "en", "target": "de"}, split=False)
    for split, name in (("dev", "dev"), ("test", "test2016")):
        records = of_pairs(there / f"{name}.jsonl.gz", split=False).test
        table = getattr(source, split)
        assert len(table) == len(records) >= 1000
        for column in ("source", "target"):
            assert table.column(column) == records.column(column)


def test_labels_in_another_file_are_joined_by_paste(tmp_path):
    (tmp_path / "x.txt").write_text("a\nb\n")
    message = refused(tmp_path / "x.txt")
    assert f"paste {tmp_path / 'x.txt'} LABELS.txt > both.tsv" in message
    assert "--columns text=1,label=2" in message
