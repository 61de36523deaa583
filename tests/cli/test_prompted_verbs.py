"""The verbs that need no training: from the words to what is printed or written."""

import json

import pytest

import langue
from langue.cli import run
from tests.runs.test_fill_mask import saved
from tests.tiny import write_jsonl
from tests.tiny_decoder import tiny_decoder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return str(tiny_decoder(tmp_path_factory.mktemp("decoders") / "m", "gpt2"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return str(saved(tmp_path_factory.mktemp("masked") / "m", "bert"))


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_answers_are_ranked(decoder, tmp_path, capsys):
    words = ["rank", decoder, "--prompt", "the ball", "--choice", "is", "--choice", "was there"]
    assert run([*words, "--json", "--normalize", "tokens", "--neutral", "a"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    model = langue.load(decoder)
    given = {"normalize": "tokens", "neutral": "a"}
    assert found == model.rank("the ball", ["is", "was there"], **given)
    assert run(words) == 0
    assert "was there" in capsys.readouterr().out

    rows = [
        {"prompt": "the", "choices": ["web", "hall"], "id": 7},
        {"prompt": "a", "choices": ["b"]},
    ]
    data = write_jsonl(tmp_path / "q.jsonl", rows)
    out = tmp_path / "ranked.jsonl"
    assert run(["rank", decoder, "--data", str(data), "--out", str(out)]) == 0
    lines = read(out)
    assert lines[0]["id"] == 7
    scores = [each["logprob"] for each in lines[0]["prediction"]]
    expected = [each["logprob"] for each in model.rank("the", ["web", "hall"])]
    assert scores == pytest.approx(expected, abs=1e-5)


def test_texts_get_labels(decoder, tmp_path, capsys):
    few = write_jsonl(tmp_path / "few.jsonl", [{"text": "a web", "label": "bad"}])
    words = ["zero-shot", decoder, "--label", "good", "--label", "bad", "--text", "the ball"]
    assert run([*words, "--examples", str(few), "--calibrate", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    expected = langue.load(decoder).zero_shot(
        ["the ball"], ["good", "bad"], examples=[("a web", "bad")], calibrate=True
    )
    assert [found] == expected
    assert run(words) == 0
    assert capsys.readouterr().out.startswith("the ball")


def test_questions_get_answers(decoder, tmp_path, capsys):
    context = "Tom ran."
    few = write_jsonl(
        tmp_path / "few.jsonl", [{"question": "A?", "context": "B.", "answers": ["B"]}]
    )
    words = ["extract", decoder, "--question", "Who?", "--context", context, "--top", "2"]
    more = ["--template", r"{context}\n{question}", "--examples", str(few)]
    assert run([*words, *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = langue.load(decoder).extract(
        ["Who?"], context, template="{context}\n{question}", examples=[("A?", "B.", "B")], top=2
    )
    assert found == expected
    assert run(words) == 0
    assert capsys.readouterr().out.startswith("Who?")

    best = langue.load(decoder).extract("Who?", context)[0][0]["answer"]
    right = {"text": [best], "answer_start": [0]}  # as the Hub's data sets have it
    rows = [{"passage": context, "question": "Who?", "answers": right, "id": 7}]
    data = write_jsonl(tmp_path / "q.jsonl", rows)
    out = tmp_path / "o.jsonl"
    named = ["--columns", "context=passage", "--out", str(out)]
    assert run(["extract", decoder, "--data", str(data), *named]) == 0
    assert "exact match 100.0%, F1 100.0%, over 1 question with" in capsys.readouterr().err
    (line,) = read(out)
    assert line["id"] == 7 and line["prediction"][0]["answer"] == best


def test_masks_are_filled(masked, tmp_path, capsys):
    words = ["fill-mask", masked, "--text", "the [MASK] was [MASK]", "--top", "2"]
    assert run([*words, "--json"]) == 0
    expected = langue.load(masked).fill_mask(["the [MASK] was [MASK]"], top=2)
    assert json.loads(capsys.readouterr().out) == expected
    assert run(words) == 0
    assert expected[0][1][0]["sequence"] in capsys.readouterr().out
    data = write_jsonl(tmp_path / "t.jsonl", [{"review": "a [MASK]"}])
    out = tmp_path / "o.jsonl"
    more = ["--columns", "text=review", "--target", "good", "--out", str(out)]
    assert run(["fill-mask", masked, "--data", str(data), *more]) == 0
    assert read(out)[0]["prediction"][0]["token_str"] == "good"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rank", "--prompt", "a"], 'there are no choices; give --choice "..." for each'),
        (["rank", "--choice", "a"], 'neither --prompt nor --data is given; give --prompt "..."'),
        (["rank", "--data", "DATA"], "q.jsonl, line 1: there is no list in 'choices'"),
        (["zero-shot", "--label", "a", "--data", "DATA"], "there is no text in 'text'"),
        (["zero-shot", "--label", "a", "--text", "b", "--examples", "DATA"], "an example has no"),
        (["extract", "--data", "DATA"], "there is no text in 'question'"),
        (["extract", "--question", "a"], "no context is given; give --context"),
        (["extract", "--question", "a", "--context", "b", "--examples", "DATA"], "an example has"),
    ],
)
def test_what_is_missing_is_told_in_one_line(decoder, tmp_path, capsys, words, said):
    data = str(write_jsonl(tmp_path / "q.jsonl", [{"prompt": "the"}]))
    first, *rest = [data if word == "DATA" else word for word in words]
    assert run([first, decoder, *rest]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error.removeprefix("\n")
