"""What a tokenizer does not know is told by every verb that makes tokens of text; and how far few
documents reach."""

import re
import warnings

import numpy as np
import pytest

import langue
from langue.cli import run
from langue.errors import LangueWarning
from langue.tasks.language import ratio_interval
from langue.verbs.preview import preview
from tests.tiny import SHORT, reviews, write_jsonl
from tests.tiny_decoder import tiny_decoder

TOLD = re.compile(
    r"about (\d+)% of the characters the tokenizer does not know \(\[UNK\], ([\d.]+)% of the"
    r" tokens\)"
)
RUSSIAN = "это слово"


def _rows(count, seed):
    """Of whose texts about half of the characters are in a script that the vocabulary lacks."""
    rows = []
    for row in reviews(count, seed):
        more = " ".join([RUSSIAN] * (len(row["text"]) // 10))
        rows.append(row | {"text": f"{row['text']} {more}"})
    return rows


def _by_hand(count, seed):
    """The percentage of the characters of such texts that is lost."""
    whole = "".join(row["text"] for row in _rows(count, seed))
    return 100 * sum(letter in RUSSIAN.replace(" ", "") for letter in whole) / len(whole)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 48), ("dev", 16), ("test", 24)):
        write_jsonl(folder / f"{split}.jsonl", _rows(count, count))
    return folder


@pytest.fixture(scope="module")
def finished(model, data, tmp_path_factory):
    words = {**SHORT, "train.max_steps": 2}
    return langue.finetune(
        "classify", model=model, data=data, out=tmp_path_factory.mktemp("run") / "run", **words
    )


def _share(notes):
    (found,) = [match for note in notes if (match := TOLD.search(note))]
    return int(found[1])


def test_finetuning_tells_it_of_every_split_before_and_after(model, data, finished):
    for facts in (preview("classify", model=model, data=data, **SHORT).facts, finished.facts):
        for split, count in (("train", 48), ("dev", 16), ("test", 24)):
            share = _share([note for note in facts["notes"] if note.startswith(f"{split}: ")])
            assert share == pytest.approx(_by_hand(count, count), abs=5)  # of the part that is kept
    assert TOLD.search((finished.folder / "report.html").read_text())


def test_nothing_is_told_where_all_is_known(model, data, tmp_path):
    known = preview(model=model, data=reviews(60, 0), **SHORT).facts["notes"]
    of_bytes = preview(model=tiny_decoder(tmp_path / "decoder", "gpt2"), data=data, **SHORT).facts[
        "notes"
    ]
    assert not any("does not know" in note for note in [*known, *of_bytes])


def test_evaluate_tells_it(finished, capsys):
    assert _share(langue.evaluate(finished.folder)["notes"]) == pytest.approx(
        _by_hand(24, 24), abs=5
    )
    assert run(["evaluate", str(finished.folder)]) == 0
    assert TOLD.search(" ".join(capsys.readouterr().out.split()))


def test_predict_tells_it_once_of_a_list_and_of_a_file(finished, data, tmp_path, capsys):
    texts = [row["text"] for row in _rows(24, 24)]
    shares = []
    of_file = {"data": data / "test.jsonl"}
    for given in ({"texts": texts}, of_file, of_file | {"out": tmp_path / "out"}):
        with pytest.warns(LangueWarning) as told:
            langue.predict(finished.folder, **given)
        shares.append(_share([str(each.message) for each in told]))
    assert len(set(shares)) == 1 and shares[0] == pytest.approx(_by_hand(24, 24), abs=5)
    assert run(["predict", str(finished.folder), "--text", f"a {RUSSIAN}"]) == 0
    assert TOLD.search(" ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize("verb", ["encode", "hidden", "predict", "logits"])
def test_a_model_in_use_tells_it(finished, verb):
    use = getattr(langue.load(finished.folder), verb)
    with pytest.warns(LangueWarning, match="does not know"):
        use([RUSSIAN, "a film"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use(["a film with a plot"] * 3)


def test_text_that_becomes_a_corpus_or_a_tokenizer_tells_it(model, data, tmp_path, capsys):
    source = data / "train.jsonl"
    built = langue.tokenize(
        source, tokenizer=model, out=tmp_path / "corpus", **{"data.dev_fraction": 0.5}
    )
    for split in ("train", "dev"):
        found = _share([note for note in built["notes"] if note.startswith(f"{split}: ")])
        assert found == pytest.approx(_by_hand(48, 48), abs=3)
    few = {"tokenizer.kind": "characters", "tokenizer.vocab_size": 12}
    report = langue.train_tokenizer(source, out=tmp_path / "tokenizer", **few)
    assert any(
        "of the characters the tokenizer does not know (<unk>" in note for note in report["notes"]
    )
    assert (
        run(
            [
                "data",
                "tokenize",
                str(source),
                "--tokenizer",
                str(model),
                "--out",
                str(tmp_path / "again"),
            ]
        )
        == 0
    )
    told = " ".join(capsys.readouterr().out.split())
    assert TOLD.search(told) and "held out to judge on" in told


@pytest.mark.parametrize("documents", [2, 5, 15])
def test_an_interval_of_few_documents_holds_the_truth_as_often_as_it_says(documents):
    """Losses of documents of other lengths whose mean differs from document to document."""
    draw = np.random.default_rng(0)
    trials = 2000
    right = 0
    for _ in range(trials):
        counts = draw.integers(200, 300, documents)
        losses = counts * draw.normal(3.0, 0.5, documents)
        low, high = ratio_interval(losses, counts)
        right += low <= 3.0 <= high
    assert 0.93 < right / trials < 0.97
    assert (
        ratio_interval(losses[:1], counts[:1]) is None
        and ratio_interval(counts * 3.0, counts) is None
    )
