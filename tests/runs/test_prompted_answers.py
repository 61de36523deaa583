"""Answers that no model was trained to give are parts of their contexts, the likeliest first."""

import itertools
import math
import re

import numpy as np
import pytest

import langue
from langue.errors import LangueWarning, ModelError
from langue.runs.prompted_answers import TEMPLATE, grammar_of
from tests.tiny_decoder import tiny_decoder

CONTEXT = "a ball in a hall"
QUESTION = "Where?"
ODD = [
    'He said "no\\yes" {question} (twice).\nThen he left: 1,000 m!',
    "巴黎是法国的首都。Paris 有 200 万人。",
    "  \t one  two\u00a0three\r\nfour ",
    "/* a | b & c */ %regex \\n // .*",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoders") / "m"
    return langue.load(tiny_decoder(folder, "gpt2", n_positions=512))


def probability(model, prompt, answer):
    """Of writing it, by one forward pass of the whole; "\0" stands for the end token."""
    encode = model.tokenizer.encode_batch
    before = encode([prompt])[0].ids
    after = encode([answer.rstrip("\0")])[0].ids + [0] * answer.count("\0")
    logits = model.logits([[*before, *after]])[0].astype(np.float64)
    total = 0.0
    for place, token in enumerate(after, len(before) - 1):
        row = logits[place] - logits[place].max()
        total += row[token] - math.log(np.exp(row).sum())
    return math.exp(total)


def check_same(found, others):
    assert [each["answer"] for each in found] == [each["answer"] for each in others]
    scores = [each["score"] for each in others]
    assert [each["score"] for each in found] == pytest.approx(scores, rel=1e-4)


def test_the_answers_are_the_likeliest_of_all_there_are(model):
    """Each run of words, written with a blank before it or none, and ended by a new line or the end
    token: the tokenizer has one way to write each.
    """
    words = CONTEXT.split()
    ranges = itertools.combinations(range(len(words) + 1), 2)
    spans = {" ".join(words[begin:end]) for begin, end in ranges}
    prompt = TEMPLATE.replace("{context}", CONTEXT).replace("{question}", QUESTION)
    ways = list(itertools.product(("", " "), ("\n", "\0")))
    expected = {}
    for span in spans:
        written = [before + span + after for before, after in ways]
        expected[span] = sum(probability(model, prompt, text) for text in written)
    (found,) = model.extract(QUESTION, CONTEXT, top=100)
    assert [each["answer"] for each in found] == sorted(spans, key=lambda span: -expected[span])
    for each in found:
        assert each["score"] == pytest.approx(expected[each["answer"]], rel=1e-4)
        assert CONTEXT[each["start"] : each["end"]] == each["answer"]


@pytest.mark.parametrize("context", ODD)
def test_answers_are_whole_words_of_one_line(model, context):
    (found,) = model.extract(QUESTION, context, top=30, max_tokens=200)
    assert len(found) > 3
    for each in found:
        answer = each["answer"]
        assert answer == context[each["start"] : each["end"]] == answer.strip()
        assert answer and "\n" not in answer
        around = context[max(0, each["start"] - 1) : each["start"] + 1]
        assert not re.fullmatch("[a-zA-Z]{2}", around)
        around = context[each["end"] - 1 : each["end"] + 1]
        assert not re.fullmatch("[a-zA-Z]{2}", around)


def test_an_answer_stands_where_it_is_a_whole_word(model):
    (found,) = model.extract(QUESTION, "Bart ate art", top=20)
    (art,) = [each for each in found if each["answer"] == "art"]
    assert art["start"] == 9


def test_questions_together_are_answered_as_each_alone(model):
    questions = ["Who?", "What?", "Where?"]
    contexts = [CONTEXT, *ODD[:2]]
    together = model.extract(questions, contexts, top=3, no_answer="none")
    for question, context, found in zip(questions, contexts, together, strict=True):
        (alone,) = model.extract(question, context, top=3, no_answer="none")
        check_same(found, alone)


def test_examples_are_shown_as_the_question_is(model):
    examples = [("Who?", "Tom ran.", "Tom"), ("Why?", "Tom ran.", "")]
    whole = "".join(
        TEMPLATE.replace("{context}", context).replace("{question}", question)
        + f" {answer or 'unknown'}\n\n"
        for question, context, answer in examples
    )
    asked = {"no_answer": "unknown", "top": 5}
    given = model.extract(QUESTION, CONTEXT, examples=examples, **asked)
    written = model.extract(QUESTION, CONTEXT, template=whole + TEMPLATE, **asked)
    check_same(given[0], written[0])


def test_that_there_is_no_answer_is_one_where_it_may_be_given(model):
    (found,) = model.extract(QUESTION, "x", no_answer="n", top=10)
    assert sorted(each["answer"] for each in found) == ["", "x"]
    (found,) = model.extract(QUESTION, "x", top=10)
    assert [each["answer"] for each in found] == ["x"]


def test_an_answer_that_is_cut_short_is_told(model):
    with pytest.warns(LangueWarning, match="of 1 of 2 questions every answer .* at 2 tokens"):
        model.extract([QUESTION, QUESTION], ["b", "balls"], max_tokens=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"template": "{context}"}, "does not have {context} and {question} once each"),
        ({"contexts": ["a", "b"]}, "there are 1 questions and 2 contexts"),
        ({"contexts": " "}, "a question or context is empty"),
        ({"examples": [("a", "b", "")]}, "an example has no answer"),
        ({"contexts": "word " * 300}, "question 'Where?': the text has 1,526 tokens"),
        ({"top": 0}, "top = 0"),
    ],
)
def test_what_cannot_be_asked_is_told(model, given, said):
    contexts = given.pop("contexts", CONTEXT)
    with pytest.raises(ModelError) as told:
        model.extract([QUESTION], contexts, **given)
    assert said in str(told.value)


def test_an_empty_context_has_no_grammar():
    with pytest.raises(ModelError, match="the context is empty"):
        grammar_of(" \n")
