"""An odd row is the same row in training, in evaluate, and in predict from a file, from rows and
from a list."""

import json

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

import langue.text.tokenizers.tokenizer
from langue.errors import DataError
from langue.runs.model import load
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.predict import predict
from langue.verbs.preview import preview
from tests.tiny import BAD, GOOD, PLAIN, reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

NEVER = "nothing in it for any model"
STRICT = "no token for a tokenizer that has no unknown one and adds no special ones"
ODD = [
    ("", NEVER),
    ("  ", NEVER),
    ("\t\r\n", NEVER),
    ("\u00a0\u3000\u2028\x1c\x85", NEVER),
    (None, NEVER),
    ("\ufeff\u200b", STRICT),
    ("\x00\x07", STRICT),
    ("房间很好", STRICT),
    ("🙂", STRICT),
    ("7", STRICT),
    ("good film " * 500, ""),
    ("[SEP]", STRICT),
    ("none", ""),
    ("nan", ""),
    ("a", ""),
]
FEW = {"train.max_steps": 2, "train.batch_examples": 16, "train.precision": "fp32"}
DROP = {"data.invalid": "drop"}


def strict_decoder(folder):
    """A GPT-2 whose tokenizer leaves out all that is no small letter."""
    vocabulary = {
        word: index for index, word in enumerate([*GOOD, *BAD, *PLAIN, "none", "nan", "[UNK]"])
    }
    backend = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    backend.normalizer = normalizers.Replace(Regex("[^a-z ]"), "")
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return tiny_decoder(folder, "gpt2", langue.text.tokenizers.tokenizer.Tokenizer(backend))


def lines_of(path):
    """Lines end at line feeds alone: U+2028 stands within texts."""
    return [json.loads(line) for line in path.read_text("utf-8").strip().split("\n")]


def splits(extra=()):
    """Rows that a model trains on, the odd ones among those of test."""
    plain = reviews(40, 0)
    return {"train": plain, "dev": plain[:4], "test": [*plain[4:8], *extra]}


@pytest.fixture(scope="module", params=["encoder", "decoder"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = (
        tiny_bert(folder / "model")
        if request.param == "encoder"
        else strict_decoder(folder / "model")
    )
    made = finetune(model=model, data=splits(), out=folder / "run", **FEW, **DROP)
    empty = [odd == NEVER or odd == STRICT and request.param == "decoder" for _, odd in ODD]
    return made, model, empty


def test_every_way_to_predict_gives_the_same_rows(run, tmp_path, capsys):
    made, _, empty = run
    texts = [text for text, _ in ODD]
    rows = [{"text": text} for text in texts]
    # as the verb multiplies
    given = load(made.folder, dtype="auto").predict([*texts, float("nan")])
    assert given.pop() is None
    assert [answer is None for answer in given] == empty
    assert all(answer["label"] in ("neg", "pos") for answer in given if answer is not None)

    told = f"{sum(empty)} of {len(ODD)} texts have nothing in them and no prediction, the first: "
    capsys.readouterr()
    for where, ways in {
        "text 1": {"texts": texts},
        f"{tmp_path / 'odd.jsonl'}, line 1": {"data": write_jsonl(tmp_path / "odd.jsonl", rows)},
        "the list, row 1": {"data": rows},
    }.items():
        found = predict(made.folder, **ways, top=None)
        assert [answer is None for answer in found] == empty
        for answer, whole in zip(given, found, strict=True):
            assert answer is None or answer == pytest.approx(whole[0], abs=1e-3)
        assert told + where in capsys.readouterr().err
        predict(made.folder, **ways, out=tmp_path / "out.jsonl", force=True)
        lines = lines_of(tmp_path / "out.jsonl")
        assert [line["text"] for line in lines] == texts
        assert [line["prediction"] is None for line in lines] == empty
        capsys.readouterr()
    assert predict(made.folder, texts=["", None]) == [None, None]
    assert "--columns text=NAME" in capsys.readouterr().err


def test_training_and_evaluate_stop_at_or_count_the_same_rows(run, tmp_path, capsys):
    made, model, empty = run
    labelled = [{"text": text, "label": "pos"} for text, _ in ODD]
    recipe = (made.folder / "recipe.toml").read_text()
    try:
        for invalid in ("error", "drop"):
            (made.folder / "recipe.toml").write_text(
                recipe.replace('invalid = "drop"', f'invalid = "{invalid}"')
            )
            usable = [row for row, is_empty in zip(labelled, empty, strict=True) if not is_empty]
            file = write_jsonl(tmp_path / "usable.jsonl", usable)
            assert evaluate(made.folder, data=file)["examples"] == len(usable)
            facts = preview(model=model, data=splits(usable), **{"data.invalid": invalid}).facts
            assert facts["splits"]["test"]["examples"] == 4 + len(usable)
        file = write_jsonl(
            tmp_path / "unseen.jsonl",
            [*usable, {"text": "a", "label": "meh"}, {"text": "a", "label": ""}],
        )
        assert evaluate(made.folder, data=file)["examples"] == len(usable)
        assert "test: 2 rows dropped for their label" in capsys.readouterr().err
        file = write_jsonl(tmp_path / "odd.jsonl", labelled)
        facts = preview(model=model, data=splits(labelled), **DROP).facts
        assert facts["splits"]["test"]["examples"] == 4 + len(usable)
        assert evaluate(made.folder, data=file)["examples"] == len(usable)
        err = capsys.readouterr().err
        for told in (facts["notes"], err.splitlines()):
            dropped = [int(line.split("row")[0].split()[-1]) for line in told if "dropped" in line]
            assert sum(dropped) == sum(empty)

        (made.folder / "recipe.toml").write_text(
            recipe.replace('invalid = "drop"', 'invalid = "error"')
        )
        for row, is_empty in zip(labelled, empty, strict=True):
            if not is_empty:
                continue
            says = (
                "(the text is empty|the text has no tokens); fill it in or take it out"
                " .*data.invalid=drop"
            )
            with pytest.raises(DataError, match=says):
                preview(model=model, data=splits([row]))
            file = write_jsonl(tmp_path / "one.jsonl", [reviews(1)[0], row])
            with pytest.raises(DataError, match="one.jsonl, line 2: " + says):
                evaluate(made.folder, data=file)
    finally:
        (made.folder / "recipe.toml").write_text(recipe)


def test_evaluate_judges_what_predict_answers(run, tmp_path):
    made, _, _ = run
    labelled = [
        {"text": text, "label": "pos" if row % 2 else "neg"} for row, (text, _) in enumerate(ODD)
    ]
    answers = load(made.folder).predict([row["text"] for row in labelled])
    judged = [
        (row, answer) for row, answer in zip(labelled, answers, strict=True) if answer is not None
    ]
    right = sum(row["label"] == answer["label"] for row, answer in judged)
    found = evaluate(made.folder, data=write_jsonl(tmp_path / "odd.jsonl", labelled))
    assert found["examples"] == len(judged)
    assert found["metrics"]["accuracy"] == pytest.approx(right / len(judged))


def test_either_side_of_a_pair(model, tmp_path, capsys):
    """What ends a single text ends a pair, whichever side it is."""
    plain = [row | {"pair": "the film"} for row in reviews(40, 0)]
    made = finetune(
        model=model,
        data={"train": plain, "dev": plain[:4], "test": plain[4:8]},
        out=tmp_path / "r",
        **FEW,
    )
    pairs = [pair for text, _ in ODD for pair in ((text, "a film"), ("a film", text))]
    empty = [odd == NEVER for _, odd in ODD for _ in range(2)]
    rows = [{"text": text, "pair": pair} for text, pair in pairs]
    capsys.readouterr()
    for ways in (
        {"texts": pairs},
        {"data": rows},
        {"data": write_jsonl(tmp_path / "pairs.jsonl", rows)},
    ):
        predict(made.folder, **ways, out=tmp_path / "out.jsonl", force=True)
        lines = lines_of(tmp_path / "out.jsonl")
        assert [(line["text"], line["pair"]) for line in lines] == pairs
        assert [line["prediction"] is None for line in lines] == empty
        assert f"{sum(empty)} of {len(pairs)} texts have nothing in them" in capsys.readouterr().err
    with pytest.raises(DataError, match="the (text|pair) is empty"):
        evaluate(made.folder, data=[row | {"label": "pos"} for row in rows])


@pytest.mark.parametrize(
    "written", ["text\na\n\n b\n\n\n", 'text\r\na\r\n""\r\n b\r\n', "text,n\na,1\n,2\n b,3\n"]
)
def test_a_csv_with_an_empty_cell_has_a_prediction_for_each_row(run, tmp_path, capsys, written):
    (tmp_path / "odd.csv").write_text(written, newline="")
    capsys.readouterr()
    assert [answer is None for answer in predict(run[0].folder, data=tmp_path / "odd.csv")] == [
        False,
        True,
        False,
    ]
    assert (
        f"1 of 3 texts have nothing in them and no prediction, the first: {tmp_path / 'odd.csv'},"
        " line 3" in (capsys.readouterr().err)
    )
