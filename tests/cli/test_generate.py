"""`langue generate`: one prompt, many, a file of them, and what cannot be answered."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from langue.cli import run
from langue.errors import ModelError
from langue.runs.model import load
from langue.verbs.generate import generate
from tests.tiny_decoder import tiny_decoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_decoder(tmp_path_factory.mktemp("model") / "m", "llama")


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_a_file_of_prompts_is_answered_in_its_order(folder, tmp_path, capsys):
    rows = [
        {"prompt": "the ball", "max_tokens": 2, "id": 7},
        {"tokens": [5, 6, 7], "logprobs": 1},
        {"prompt": "a", "temperature": 1.5, "seed": 3},
        {"messages": [{"role": "user", "content": "hi"}]},  # it has no chat template
        {"prompt": "a", "top_p": 0.0},
        {"prompt": "b", "tokens": [1]},
        {"prompt": "the bat"},
    ]
    data = write(tmp_path / "prompts.jsonl", rows)
    out = tmp_path / "answers.jsonl"
    words = ["generate", str(folder), "--data", data, "--max-tokens", "6"]
    assert run([*words, "--out", str(out)]) == 2  # when all that can be answered is
    said = capsys.readouterr()
    assert "3 of 7 prompts have an error" in said.err
    assert f"{data}, line 4" in said.err.splitlines()[-1]
    answers = lines(out.read_text("utf-8"))
    assert ["error" in answer for answer in answers] == [False] * 3 + [True] * 3 + [False]
    assert [answer.get("id") for answer in answers[:2]] == [7, None]
    assert len(answers[0]["tokens"]) <= 2
    assert answers[1]["logprobs"][0]["top"][0]["token"] == answers[1]["tokens"][0]
    assert "top_p" in answers[4]["error"] and "give" in answers[4]["error"]
    assert "prompt and tokens" in answers[5]["error"]
    model = load(folder, dtype="auto")
    assert answers[6]["text"] == model.generate(["the bat"], 6)[0]
    assert answers[2]["text"] == model.generate(["a"], 6, temperature=1.5, seed=3)[0]
    # printed, the same; and what failed is an error in the end
    assert run(words) == 2
    said = capsys.readouterr()
    assert lines(said.out) == answers
    assert f"{data}, line 4" in said.err.splitlines()[-1]
    assert run([*words, "--out", str(out)]) == 2  # it exists
    assert generate(model, ["the bat"], max_tokens=6)[0]["text"] == answers[6]["text"]


def test_standard_input_and_what_is_no_line_of_it(folder, monkeypatch, capsys):
    def given(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        code = run(["generate", str(folder), "--data", "-", "--max-tokens", "3"])
        return code, capsys.readouterr()

    code, said = given('{"prompt": "a"}\n\n{"prompt": "b"}\n')
    assert code == 0 and [each["prompt"] for each in lines(said.out)] == ["a", "b"]
    for text, says in [('{"prompt": "a"}\nb', "line 2"), ("[1]", "line 1"), ("{}", "has none")]:
        code, said = given(text)
        assert code == 2 and says in said.err.splitlines()[-1]


def test_the_text_as_it_is_written(folder, capsys):
    words = ["generate", str(folder), "-p", "the ball", "--max-tokens", "12"]
    assert run(words) == 0
    whole = capsys.readouterr().out
    assert run([*words, "--stream"]) == 0
    assert capsys.readouterr().out == whole
    model = load(folder)
    pieces = list(model.stream("the ball", max_tokens=12))
    assert len(pieces) > 3
    assert "the ball" + "".join(pieces) == whole.removesuffix("\n")
    assert run([*words, "--stream", "--n", "2"]) == 2
    capsys.readouterr()
    assert run([*words, "--json", "--n", "2", "--temperature", "2", "--logprobs", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown) == 2 and shown[0]["text"] != shown[1]["text"]
    assert all(len(each["logprobs"]) == len(each["tokens"]) for each in shown)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--stop", ""], "stop"),
        (["--logit-bias", "5:1"], "TOKEN=NUMBER"),
        (["--logit-bias", "99999=1"], "logit_bias"),
        (["--regex", "a", "--choice", "b"], "regex and choices"),
        (["--data", "x.jsonl"], "--data and --prompt"),
        (["--out", "x.jsonl"], "--data"),
        (["--json-schema", "nowhere.json"], "nowhere.json"),
        (["--beams", "3", "--n", "4"], "n <= beams"),
        (["--min-tokens", "9", "--max-tokens", "3"], "min_tokens"),
        (["--draft", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_followed_is_one_line(folder, capsys, words, says):
    assert run(["generate", str(folder), "-p", "the", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_long_stop_string_and_one_that_is_met(folder):
    model = load(folder)
    whole = model.generate(["the ball"], 20)[0]
    middle = whole[4:7]
    assert model.generate(["the ball"], 20, stop=middle)[0] == whole[: whole.index(middle)]
    assert model.generate(["the ball"], 20, stop=["x" * 10_000])[0] == whole
    (answer,) = model.generate(["the ball"], 20, stop=[middle, "x"], details=True)
    assert answer["finish_reason"] == "stop"


def test_what_is_given_is_held_to(folder):
    model = load(folder)
    assert model.generate(["it is"], choices=["yes", "no"])[0] in ("yes", "no")
    ids = model.generate([[5, 6]], regex="[0-9]{3}", max_tokens=9)[0]
    assert len(ids) >= 1
    found = json.loads(
        model.generate(
            ["a"],
            60,
            json_schema={
                "type": "object",
                "properties": {"n": {"enum": [1, 2]}},
                "required": ["n"],
                "additionalProperties": False,
            },
        )[0]
    )
    assert found in ({"n": 1}, {"n": 2})
    several = model.generate(["a"], 20, choices=["one", "two", "six"], beams=3, n=3)[0]
    assert sorted(several) == ["one", "six", "two"]
    with pytest.raises(ModelError, match="2 seeds and 1 prompts"):
        model.generate(["a"], seed=[1, 2])


def test_a_draft_writes_the_same(folder):
    model = load(folder)
    prompts = ["the ball in the ball in the", "a"]
    plain = model.generate(prompts, 30)
    assert model.generate(prompts, 30, draft="prompt") == plain
    assert model.generate(prompts, 30, draft=folder, draft_tokens=3) == plain
    with pytest.raises(ModelError, match="Model.engine"):
        model.engine().submit("a", draft="prompt")


@pytest.mark.parametrize("words", [[], ["--temperature", "1"]])
def test_blanks_alone_are_told(monkeypatch, capsys, words):
    answers = [{"text": "\n\n", "tokens": [1]}]
    config = SimpleNamespace(architecture="decoder")
    loaded = SimpleNamespace(generate=lambda *_, **__: answers, config=config)
    monkeypatch.setattr("langue.cli.early.check_inputs", lambda **_: None)
    monkeypatch.setattr("langue.verbs.generate.ready", lambda *_: loaded)
    assert run(["generate", "m", "-p", "Once", *words]) == 0
    told = capsys.readouterr().err
    assert "nothing but blanks" in told and ("--temperature 0.8" in told) == (not words)
