"""The verbs of running text, from the words of the command line to the folders they leave."""

import json
import re

import numpy as np
import pytest

import langue
from langue.cli import run
from langue.data.corpus.reader import Corpus
from langue.errors import DataError, RunError, SettingsError
from langue.text.quality import script
from langue.text.quality.survey import CorpusStats, spread
from tests.tiny import write_jsonl

TEXT = "The cat sat on the mat; the other cat sat, too.\n"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    random = np.random.default_rng(0)
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "with",
        "another",
        "and",
        "it",
        "was",
        "warm",
        "北京",
        "天气",
    ]
    texts = [" ".join(random.choice(words, random.integers(3, 40))) for _ in range(300)]
    write_jsonl(folder / "rows.jsonl", [{"review": text} for text in [*texts, *texts[:10], ""]])
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def tokenizer(rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "tokenizer"
    report = langue.train_tokenizer(
        rows, out=out, columns={"text": "review"}, tokenizer__vocab_size=300
    )
    assert report == json.loads((out / "fertility.json").read_text())
    return out


def test_from_text_to_a_corpus_by_command(rows, tokenizer, tmp_path, capsys):
    out = tmp_path / "corpus"
    words = [
        "data",
        "tokenize",
        f"{rows}@2",
        "data.dev_fraction=0.2",
        "--tokenizer",
        str(tokenizer),
        "--out",
        str(out),
    ]
    assert (
        run(
            [*words, "--columns", "text=review", "--dedup", "--json", "--data.shard_tokens", "1000"]
        )
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    train = Corpus.open(out)
    dev = Corpus.open(out, "dev")
    assert (train.n_documents + dev.n_documents, said["duplicates"], said["empty"]) == (300, 10, 1)
    assert 30 < dev.n_documents < 90 and train.sources[0][:2] == (str(rows), 2.0)
    assert said["splits"]["train"]["shards"] == len(train.shards) > 2
    assert run([*words, "--columns", "text=review"]) == 2
    assert "finished corpus already" in capsys.readouterr().err
    assert run([*words, "--columns", "text=review", "--force"]) == 0
    assert (
        "10 documents are exact copies, kept (--dedup leaves them out)" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tokenizer", "t", "--out", "o"], "no source was named"),
        (["a.txt", "--tokenizer", "t", "--out", "o", "data.seeed=1"], "did you mean data.seed?"),
        (
            ["a.txt", "--tokenizer", "t", "--out", "o", "--documents", "line"],
            "did you mean --document?",
        ),
        (
            ["a.txt", "--tokenizer", "t", "--out", "o", "--document", "page"],
            "choose file, blank or line",
        ),
        (["none.txt", "--tokenizer", "t", "--out", "o"], "there is no such file or folder"),
    ],
)
def test_mistyped_words_are_explained(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(TEXT)
    assert run(["data", "tokenize", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_name_with_an_equals_sign_may_be_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lang=en.txt").write_text(TEXT)
    assert run(["data", "inspect", "lang=en.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 1


def test_the_command_trains_a_tokenizer(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT * 20)
    words = [
        "tokenizer",
        "train",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "tokenizer.kind=wordpiece",
    ]
    assert run([*words, "tokenizer.vocab_size=90", "tokenizer.lower=true"]) == 0
    assert "wordpiece: " in capsys.readouterr().out
    assert run(words) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*words, "--force", "tokenizer.vocab_size=100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scripts"].keys() == {"Latin"}


def test_a_tokenizer_never_replaces_what_is_not_one(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    for name in ("config.json", "fertility.json"):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_text("{}")
        with pytest.raises(RunError, match="exists already"):
            langue.train_tokenizer(
                tmp_path / "a.txt", out=tmp_path / "model", force=True, tokenizer__kind="bytes"
            )
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "fertility.json",
    ]


def test_settings_are_checked_before_anything_is_read(tmp_path):
    with pytest.raises(SettingsError, match="too small"):
        langue.train_tokenizer(
            tmp_path / "missing", out=tmp_path / "out", tokenizer__vocab_size=100
        )


@pytest.mark.parametrize(
    "verb",
    [
        lambda text, out: langue.train_tokenizer(text, out=out, train__lr=3),
        lambda text, out: langue.tokenize(text, tokenizer="none", out=out, tokenizer__kind="bytes"),
        lambda text, out: langue.inspect_data(text, out=out, **{"data.dev_fraction": 0.5}),
    ],
    ids=["train_tokenizer", "tokenize", "inspect_data"],
)
def test_settings_of_other_verbs_are_refused(rows, tmp_path, verb):
    with pytest.raises(
        SettingsError, match=r"is of other verbs, and does nothing here; leave it out"
    ):
        verb(rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_in_a_text(rows, tmp_path, capsys):
    facts = langue.inspect_data(rows, columns={"text": "review"}, out=tmp_path / "page.html")
    assert (facts["documents"], facts["duplicates"]["exact"]) == (310, 10)
    assert facts["language"] == "English" and sum(facts["languages"].values()) == 310
    assert sum(each["documents"] for each in facts["lengths"]["histogram"]) == 310
    assert facts["characters"] == sum(facts["scripts"].values())
    assert facts["longest"][0]["characters"] == facts["lengths"]["longest"]
    assert facts["shortest"][0]["characters"] == facts["lengths"]["shortest"]
    assert run(["data", "inspect", str(rows), "--columns", "text=review"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "310 documents" in shown
        and "English (guessed by script and words)" in shown
        and "Han" in shown
    )


def test_what_is_in_a_corpus(rows, tokenizer, tmp_path):
    out = tmp_path / "corpus"
    langue.tokenize(
        rows, tokenizer=tokenizer, out=out, columns={"text": "review"}, data__dev_fraction=0.2
    )
    facts = langue.inspect_data(out, out=tmp_path / "page.html")
    of_text = langue.inspect_data(rows, columns={"text": "review"})
    assert facts["tokens"] == sum(Corpus.open(out, split).n_tokens for split in ("train", "dev"))
    for name in ("documents", "characters", "bytes", "scripts", "lengths", "duplicates"):
        assert facts[name] == of_text[name], name
    assert "tokens" in (tmp_path / "page.html").read_text()


def test_the_page_is_whole_and_texts_in_it_do_nothing(tmp_path):
    hostile = '<script>alert(1)</script><img src=x onerror="alert(1)">\u202e\x00 & "quoted" '
    write_jsonl(tmp_path / "a<b>.jsonl", [{"text": hostile * n} for n in range(1, 9)])
    langue.inspect_data(tmp_path / "a<b>.jsonl", out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert (
        "<script" not in page
        and "<img" not in page
        and "onerror=&#34;" in page
        and "\x00" not in page
    )
    assert "a&lt;b&gt;.jsonl" in page
    assert not re.search(r"<[^>]*(src|href)=|https?://", page)
    assert "default-src 'none'" in page


def test_a_page_replaces_nothing_unasked(tmp_path, capsys):
    mine = tmp_path / "mine.txt"
    mine.write_text(TEXT)
    words = ["data", "inspect", str(mine), "--out"]
    assert run([*words, str(mine)]) == 2 and "the file exists" in capsys.readouterr().err
    assert mine.read_text() == TEXT
    (tmp_path / "page.html").write_text("old")
    assert run([*words, str(tmp_path / "page.html"), "--force"]) == 0
    assert (tmp_path / "page.html").read_text() != "old"


def test_nothing_to_inspect(tmp_path):
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(DataError, match="there is no text in it"):
        langue.inspect_data(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("text", "counts", "language"),
    [
        ("Hello, été 1!", {"Latin": 8, "common": 5}, "written in Latin letters"),
        ("北京的天气。", {"Han": 5, "common": 1}, "Chinese"),
        ("東京はきれい", {"Han": 2, "Hiragana": 4}, "Japanese"),
        ("한국어", {"Hangul": 3}, "Korean"),
        ("Ещё", {"Cyrillic": 3}, "written in Cyrillic letters"),
        ("สวัสดี", {"Thai": 6}, "Thai"),
        ("Ελλάδα", {"Greek": 6}, "Greek"),
        ("שלום", {"Hebrew": 4}, "Hebrew"),
        ("abcd北京天气", {"Latin": 4, "Han": 4}, "several"),
        ("123 !😀", {"common": 6}, "none: no letters"),
        ("𠀀\ud800", {"Han": 1, "other": 1}, "several"),
    ],
)
def test_scripts(text, counts, language):
    assert script.count(text) == counts
    assert script.language(script.count(text)) == language


def test_a_survey_of_pieces_is_that_of_the_whole():
    whole = CorpusStats()
    parts = CorpusStats()
    for number in range(20):
        text = f"document {number} " * (number + 1)
        whole.add(text)
        parts.add(text[:7], last=False)
        parts.add(text[7:])
    a = whole.facts()
    b = parts.facts()
    for name in ("documents", "characters", "bytes", "scripts", "lengths", "languages"):
        assert a[name] == b[name]
    assert a["duplicates"]["exact"] == b["duplicates"]["exact"] == 0


def test_the_bins_of_a_histogram_double():
    found = spread(np.array([0, 1, 2, 3, 4, 900]))
    assert found["histogram"][0] == {"from": 0, "to": 1, "documents": 2}
    assert found["histogram"][1] == {"from": 2, "to": 3, "documents": 2}
    assert found["histogram"][-1] == {"from": 512, "to": 1023, "documents": 1}
    assert (found["shortest"], found["longest"]) == (0, 900)
    assert spread(np.zeros(0, np.int64))["histogram"] == []


@pytest.mark.parametrize(("sample", "characters"), [(5, 5), (0, 20), (1000, 20)])
def test_a_tokenizer_sees_no_more_than_its_sample(tmp_path, sample, characters):
    (tmp_path / "a.txt").write_text("abcdefghijklmnopqrst")
    langue.train_tokenizer(
        tmp_path / "a.txt",
        out=tmp_path / "out",
        **{
            "tokenizer.kind": "characters",
            "tokenizer.sample": sample,
            "tokenizer.min_frequency": 1,
        },
    )
    vocabulary = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["vocab"]
    assert len([token for token in vocabulary if len(token) == 1]) == characters
