"""Answers to questions: spans, windows, answers that are not where they should be, and the task
from end to end."""

import itertools
import json
import math
import warnings

import numpy as np
import pytest
import torch

import langue
from langue.data.batch import gather
from langue.errors import DataError, ModelError
from langue.tasks.extract import (
    Answered,
    Extract,
    ExtractOptions,
    Span,
    best_answers,
    nearest_place,
)
from tests.contract.task_rows import asked
from tests.tiny import tiny_bert, write_jsonl

# --- spans ---


def slow_answers(context, offsets, windows, longest, nothing):
    """Every span of every window, one at a time: {(start, end): probability}, and that of none."""
    best: dict[tuple[int, int], float] = {}
    for first, scores in windows:
        for i, j in itertools.product(range(len(scores)), repeat=2):
            if i <= j < i + longest:
                span = (first + i, first + j)
                best[span] = max(best.get(span, -math.inf), scores[i, 0] + scores[j, 1])
    total = sum(map(math.exp, best.values()))
    total += 0.0 if nothing is None else math.exp(nothing)
    shares = {
        (int(offsets[a, 0]), int(offsets[b, 1])): math.exp(score) / total
        for (a, b), score in best.items()
    }
    return shares, 0.0 if nothing is None else math.exp(nothing) / total


@pytest.mark.parametrize("nothing", [None, 0.5])
@pytest.mark.parametrize("longest", [1, 3, 99])
def test_the_best_spans_are_those_of_all_spans(longest: int, nothing: float | None) -> None:
    random_ = np.random.default_rng(longest)
    context = " ".join(f"w{index}" for index in range(12))
    places = [context.index(f"w{index}") for index in range(12)]
    offsets = np.array([(at, at + len(f"w{n}")) for n, at in enumerate(places)], np.int32)
    for _ in range(10):
        windows = [(first, random_.normal(size=(6, 2))) for first in (0, 4, 6)]
        shares, none = slow_answers(context, offsets, windows, longest, nothing)
        found = best_answers(context, offsets, windows, longest=longest, count=5, nothing=nothing)
        expected = sorted(shares, key=shares.__getitem__, reverse=True)[:5]
        assert [(each.start, each.end) for each in found.spans] == expected
        for each in found.spans:
            assert each.score == pytest.approx(shares[each.start, each.end])
            assert context[each.start : each.end] == each.text
        assert found.nothing == pytest.approx(none)
        if nothing is not None:
            assert found.odds == pytest.approx(math.log(none / shares[expected[0]]))
        every = best_answers(
            context, offsets, windows, longest=longest, count=10**6, nothing=nothing
        )
        assert len(every.spans) == len(shares) == len({(s.start, s.end) for s in every.spans})
        assert sum(s.score for s in every.spans) + every.nothing == pytest.approx(1)


def test_spans_of_the_same_characters_are_one() -> None:
    """A sign in several tokens, and a blank that is counted to the word behind it."""
    context = " 🙂 b"
    offsets = np.array([(1, 2), (1, 2), (2, 4), (3, 4)], np.int32)
    scores = np.zeros((4, 2))
    found = best_answers(context, offsets, [(0, scores)], longest=4, count=9, nothing=None)
    texts = [each.text for each in found.spans]
    assert sorted(texts) == ["b", "🙂", "🙂 b"]
    assert sum(each.score for each in found.spans) <= 1


@pytest.mark.parametrize(
    ("start", "place"), [(0, 0), (8, 8), (1, 0), (5, 8), (4, 0), (-1, 0), (99, 8), (7, 8)]
)
def test_an_answer_is_looked_for_as_near_as_it_stands(start: int, place: int) -> None:
    assert nearest_place("the cat the", "the", start) == place
    assert nearest_place("the cat the", "dog", start) == -1


# --- rows ---


def gold_of(context: str, given: list | None, impossible: bool | None = None):
    return Extract.read_target((context, given, impossible), ExtractOptions(), lambda: "here")


def test_golds_keep_every_answer_and_learn_the_first_that_stands() -> None:
    given = [{"text": "dog", "start": 0}, {"text": "cat", "start": 3}, {"text": "the", "start": 0}]
    gold = gold_of("the cat", given)
    assert gold.texts == ("dog", "cat", "the") and gold.starts == (-1, 4, 0)
    assert gold.moved == (False, True, False) and gold.span == (4, 7)
    for nothing in ([], None):
        assert gold_of("the cat", nothing, True).texts == ()
    assert gold_of("the cat", []).span is None


@pytest.mark.parametrize(
    ("given", "impossible", "message"),
    [
        (None, None, "the question has no answers"),
        ([], False, "the question has no answers"),
        ([{"text": "cat", "start": 4}], True, "is marked is_impossible and has answers"),
        ([{"text": "", "start": 0}], None, "an answer is empty"),
    ],
)
def test_answers_that_contradict_are_refused(given, impossible, message) -> None:
    with pytest.raises(DataError, match=message):
        gold_of("the cat", given, impossible)


# --- the task, end to end ---

SETTINGS = {"train.epochs": 8, "train.lr": 4e-3, "train.batch_examples": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract")
    rows = asked(160, unanswered=4)
    for name, part in (("train", rows[:100]), ("dev", rows[100:130]), ("test", rows[130:])):
        write_jsonl(folder / "data" / f"{name}.jsonl", part)
    model = tiny_bert(folder / "bert")
    langue.finetune("extract", model=model, data=folder / "data", out=folder / "run", **SETTINGS)
    return folder


def test_answers_are_learned_judged_and_shown(folder) -> None:
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["metrics"]["f1"] > 0.9 and set(metrics["metrics"]) == {"exact_match", "f1"}
    assert metrics["baseline"]["name"] == "no answer to any question"
    assert metrics["baseline"]["comparison"]["metric"] == "f1"
    model = langue.load(folder / "run")
    assert metrics["no_answer_threshold"] == model.task.threshold
    context = "a long story with a lovely scene"
    found = model.predict([{"question": "the good film", "context": context}])
    assert found == model.predict([("the good film", context)])
    assert found[0]["answer"] == "lovely" and set(found[0]) == {"score", "start", "end", "answer"}
    assert context[found[0]["start"] : found[0]["end"]] == "lovely"
    (none,) = model.predict([("the good film", "a long story with a scene")])
    assert (none["answer"], none["start"], none["end"]) == ("", 0, 0) and none["score"] > 0.5
    (several,) = model.predict([("the good film", "a warm day")], top=4)
    assert len(several) == 4 and sum(each["score"] for each in several) <= 1 + 1e-9
    assert len({(each["start"], each["end"]) for each in several}) == 4
    (every,) = model.predict([("the good film", "warm")], top=None)
    assert sorted(each["answer"] for each in every) == ["", "warm"]


def test_evaluation_says_what_training_said(folder, tmp_path) -> None:
    before = json.loads((folder / "run" / "metrics.json").read_text())
    own = langue.evaluate(folder / "run")
    assert own["metrics"] == pytest.approx(before["metrics"], abs=1e-6)
    sections: list = []
    rows = [json.loads(line) for line in (folder / "data" / "test.jsonl").open()]
    marked = [
        row | ({} if row["answers"] else {"answers": None, "is_impossible": True}) for row in rows
    ]
    data = write_jsonl(tmp_path / "marked.jsonl", marked)
    again = langue.evaluate(folder / "run", data=data, show=sections.extend)
    assert again["metrics"] == pytest.approx(before["metrics"], abs=1e-6)
    kinds = next(each for each in sections if each.title == "By kind of question")
    assert [row[0] for row in kinds.rows] == ["with an answer", "without one"]
    assert sum(row[-1] for row in kinds.rows) == len(rows)


def test_an_answer_far_into_a_long_context_is_found(folder) -> None:
    """In the third of many windows, and in a context that ends within a window."""
    model = langue.load(folder / "run")
    plain = "the film was a story with the day and it was a scene "
    context = plain * 12 + "superb " + plain * 20
    assert len(context.split()) > 6 * model.config.max_length
    (found,) = model.predict([("the good film", context)])
    assert found["answer"] == "superb" and found["start"] == 12 * len(plain)
    (none,) = model.predict([("the good film", plain * 30)])
    assert none["answer"] == ""


def test_windows_that_do_not_show_the_answer_point_to_their_first_token(folder) -> None:
    rows = [{"question": "the good film", "context": "a film " * 50 + "warm", "answers": []}]
    rows[0]["answers"] = [{"text": "warm", "start": 350}]
    prepared = langue.preview("extract", model=folder / "bert", data={"train": rows, "dev": rows})
    encoded = prepared.encoded["train"]
    examples = encoded.examples
    assert len(examples) > 1 and (examples.targets[:-1] == 0).all()
    start, end = examples.starts[-2] + examples.targets[-1]
    token = prepared.checkpoint.tokenizer.token(int(examples.tokens[start]))
    assert start == end and token == "warm"
    network = torch.randn(len(examples.tokens), 2)
    batch = gather(examples, np.arange(len(examples)))
    order = np.concatenate(
        [np.arange(examples.starts[row], examples.starts[row + 1]) for row in batch.rows]
    )
    loss, count = prepared.task.loss(network[order], batch)
    expected = 0.0
    for window, (a, b) in enumerate(examples.targets):
        own = network[examples.starts[window] : examples.starts[window + 1]]
        logs = own.log_softmax(0)
        expected -= float(logs[a, 0] + logs[b, 1]) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5) and count == len(examples)


def test_transformers_reads_the_run_with_equal_logits(folder) -> None:
    transformers = pytest.importorskip("transformers")
    run = folder / "run"
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(run).eval()
    model = langue.load(run)
    pair = ("the good film", "a long story with a lovely scene")
    encoding = model.tokenizer.encode_batch([pair[0]], [pair[1]])[0]
    ids, types = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
    with torch.no_grad():
        said = theirs(ids, token_type_ids=types)
    expected = torch.stack([said.start_logits[0], said.end_logits[0]], 1).numpy()
    (found,) = model.logits([pair])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_published_models_answer(folder, tmp_path) -> None:
    """What the class of `transformers` saves has no langue.json."""
    transformers = pytest.importorskip("transformers")
    run = folder / "run"
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(run)
    theirs.save_pretrained(tmp_path / "m")
    transformers.AutoTokenizer.from_pretrained(run).save_pretrained(tmp_path / "m")
    model = langue.load(tmp_path / "m")
    assert model.task.name == "extract" and model.task.no_answer
    asked_of = [("the good film", "a long story with a lovely scene")]
    own = langue.load(run).predict(asked_of, top=3)
    for mine, other in zip(model.predict(asked_of, top=3)[0], own[0], strict=True):
        assert mine == other | {"score": pytest.approx(other["score"], abs=1e-5)}


def test_files_are_answered_in_order(folder, tmp_path) -> None:
    rows = [
        {"id": "a", "question": "the good film", "context": "a warm day"},
        {"id": "b", "question": "the good film", "context": " "},
    ]
    data = write_jsonl(tmp_path / "ask.jsonl", rows)
    out = tmp_path / "said.jsonl"
    langue.predict(folder / "run", data=data, out=out)
    said = [json.loads(line) for line in out.open()]
    assert [each["id"] for each in said] == ["a", "b"] and said[1]["prediction"] is None
    assert said[0]["prediction"]["answer"] == "warm"


# --- what is odd ---


def test_answers_that_do_not_stand_are_moved_or_reported_by_row(folder, tmp_path) -> None:
    rows = asked(20)
    rows[3] = {
        "question": "the good film",
        "context": "it was warm and warm",
        "answers": [{"text": "warm", "start": 15}, {"text": "cold", "start": -1}],
    }
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "dev.jsonl", rows[:9])
    prepared = langue.preview("extract", model=folder / "bert", data=tmp_path)
    notes = [note for note in prepared.facts["notes"] if "train.jsonl" in note]
    moved, absent = (note for note in notes if "answers do not stand" in note)
    assert "1 of 21 answers do not stand at their start" in moved and "line 4" in moved
    assert "1 of 21 answers do not stand in their context" in absent and "line 4" in absent
    gold = prepared.encoded["train"].golds[3]
    assert gold.span == (16, 20) and gold.texts == ("warm", "cold")


def test_a_question_longer_than_its_window_is_cut_and_counted(folder) -> None:
    long = {"question": "the film " * 100, "context": "a warm day", "answers": []}
    rows = [*asked(20), long | {"answers": [{"text": "warm", "start": 2}]}]
    prepared = langue.preview("extract", model=folder / "bert", data={"train": rows, "dev": rows})
    (note, *_) = (note for note in prepared.facts["notes"] if "too long for a window" in note)
    assert "1 of 21 question is" in note and "row 21" in note
    assert prepared.facts["splits"]["train"]["cut_examples"] == 1
    with pytest.warns(langue.LangueWarning, match="too long for a window of 64 tokens"):
        langue.load(folder / "run").predict([(long["question"], long["context"])])


def test_a_context_of_half_a_million_characters_is_read(folder) -> None:
    plain = "the film was a story with the day "
    context = plain * 14_500 + "grim " + plain * 300
    assert len(context) > 500_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = langue.load(folder / "run").predict([("the bad film", context)], top=1)
    assert context[found["start"] : found["end"]] == found["answer"]


@pytest.mark.parametrize(
    "item", ["a text", {"question": "a"}, ("a",), {"question": 3, "context": "a"}]
)
def test_what_is_no_question_is_one_line(folder, item) -> None:
    with pytest.raises(ModelError, match="item 2 is no question with its context"):
        langue.load(folder / "run").predict([("a", "b"), item])


def test_the_threshold_of_no_answer_is_the_best_on_dev() -> None:
    task = Extract(ExtractOptions(), no_answer=True)
    golds = [gold_of("cat", [{"text": "cat", "start": 0}])] * 2 + [gold_of("cat", [])]
    span = [Span("cat", 0, 3, 0.5)]
    odds = [-3.0, 1.0, 2.0]
    task.settle_on_dev(golds, [Answered(span, 0.5, each) for each in odds])
    assert task.threshold == 1.5
    assert Extract.from_dict(task.to_dict()).threshold == 1.5
    fixed = Extract(ExtractOptions(no_answer_threshold=-1.0), no_answer=True)
    assert fixed.threshold == -1.0 and not fixed.settles_on_dev
    assert not Extract(ExtractOptions(), no_answer=False).settles_on_dev
