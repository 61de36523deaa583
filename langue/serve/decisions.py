"""`/v1/decisions`: takes an input and questions about it; returns the probability of each answer,
without generating text.

A classifier answers with its own labels. A model trained on entailment judges whether a statement
follows from the input, and a language model the likelihood of each answer after the question; both
accept answers that they were never trained on.
"""

from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from langue.errors import PromptTooLong
from langue.runs.prompted import by_entailment, entailment_of, probabilities
from langue.serve.api_errors import ApiError
from langue.serve.decision_fields import (
    ChoiceQuestion,
    DecisionFields,
    Predicate,
    described,
    options_of,
)
from langue.serve.models import Loaded
from langue.serve.state import state_of
from langue.serve.texts import apply_together, check_count, n_tokens

router = APIRouter()
YES_NO = ["yes", "no"]
Floats = NDArray[np.float64]
Found = tuple[list[Floats], int]  # probabilities of each question's answers; number of input tokens
Counted = list[tuple[Any, int]]  # the result of each item, and its number of tokens


@router.post("/v1/decisions")
async def decisions(fields: DecisionFields, request: Request) -> Response:
    """Answer questions about an input with probabilities."""
    state = state_of(request)
    call = request.state.call
    call.model = fields.model
    check_count([fields.text], state.limits)
    _check_unique(fields)
    async with state.shelf.use(fields.model) as loaded:
        task = loaded.model.task
        labels = getattr(task, "labels", None)
        if labels is not None and entailment_of(labels) is not None:
            found, tokens = await _by_entailment(loaded, labels, fields, request)
        elif labels is not None and task.takes_texts:  # type: ignore[union-attr]
            found, tokens = await _by_labels(loaded, labels, fields, request)
        elif loaded.writes:
            found, tokens = await _by_likelihood(loaded, fields, request)
        else:
            what = f"The model '{loaded.id}' neither classifies nor generates text"
            raise ApiError(400, what, param="model", code="model_not_supported")
    call.prompt_tokens = tokens
    answers = []
    for question, row in zip(fields.questions, found, strict=True):
        answers.append(_answer(question, row))
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }
    return JSONResponse({"model": fields.model, "answers": answers, "usage": usage})


def _check_unique(fields: DecisionFields) -> None:
    """Raise ApiError if a question has a duplicate answer."""
    for index, question in enumerate(fields.questions):
        name = "levels"
        values: list[Any] = _labels_of(question)
        if isinstance(question, ChoiceQuestion):
            name = "choices"
            values = [(type(each.value), each.value) for each in question.choices]
        if len(set(values)) < len(values):
            where = f"questions.{index}.{name}"
            what = f"'{where}' has a duplicate answer"
            raise ApiError(400, what, param=where, code="invalid_value")


def _labels_of(question: Any) -> list[str]:
    return [label for label, _ in options_of(question)]


def _check_labels(labels: Sequence[str], fields: DecisionFields) -> None:
    """Raise ApiError if a question names a label that the model does not have."""
    for index, question in enumerate(fields.questions):
        part: str = question.type
        named = _labels_of(question)
        if isinstance(question, Predicate):
            part = "instructions"
            named = [question.asked]
        unknown = [name for name in named if name not in labels]
        if unknown:
            where = f"questions.{index}.{part}"
            known = ", ".join(repr(label) for label in labels[:20])
            what = f"'{where}': the model has no label {unknown[0][:100]!r}; its labels: {known}"
            raise ApiError(400, what, param=where, code="invalid_value")


async def _by_labels(
    loaded: Loaded, labels: Sequence[str], fields: DecisionFields, request: Request
) -> Found:
    """Return the model's label probabilities; those of a choice are normalized to sum to 1."""
    _check_labels(labels, fields)
    model = loaded.model

    def predict(texts: list[Any]) -> Counted:
        predictions = model.predict(texts, top=None)
        return list(zip(predictions, n_tokens(model, texts), strict=True))

    key = ("decide", "labels")
    answered, _ = await apply_together(loaded, key, predict, [fields.text], request)
    ((shown, tokens),) = answered
    if shown is None:
        raise ApiError(400, "'input' is blank", param="input", code="invalid_value")
    score_of = {each["label"]: each["score"] for each in shown}
    found = []
    for question in fields.questions:
        if isinstance(question, Predicate):
            score = score_of[question.asked]
            found.append(np.asarray([score], np.float64))
            continue
        scores = [score_of[label] for label in _labels_of(question)]
        row = np.asarray(scores, np.float64)
        found.append(row / max(row.sum(), 1e-30))
    return found, tokens


async def _by_entailment(
    loaded: Loaded, labels: Sequence[str], fields: DecisionFields, request: Request
) -> Found:
    """Return the probability that the input entails the instructions, alone or with each answer."""
    model = loaded.model
    text = fields.text
    asked = []
    for question in fields.questions:
        options = options_of(question)
        sentences = [f"{question.asked} {described(*each)}" for each in options]
        if not sentences:
            sentences = [question.asked]
        asked.append([(text, sentence) for sentence in sentences])

    def judge(pairs: list[Any]) -> Counted:
        return list(zip(model.logits(pairs), n_tokens(model, pairs), strict=True))

    flat = list(chain.from_iterable(asked))
    answered, _ = await apply_together(loaded, ("decide", "pairs"), judge, flat, request)
    found = []
    results = iter(answered)
    tokens = 0
    for question, pairs in zip(fields.questions, asked, strict=True):
        own = list(islice(results, len(pairs)))
        tokens += sum(count for _, count in own)
        logits = np.stack([row for row, _ in own])
        numbers = [str(index) for index in range(len(pairs))]
        is_statement = isinstance(question, Predicate)
        (judged,) = by_entailment(logits, [text], numbers, labels, is_statement)
        order = [judged["labels"].index(number) for number in numbers]
        scores = np.asarray(judged["scores"])
        found.append(scores[order])
    return found, tokens


async def _by_likelihood(loaded: Loaded, fields: DecisionFields, request: Request) -> Found:
    """Return the probability that a language model assigns to each answer after the question."""
    model = loaded.model
    pairs = []
    for question in fields.questions:
        options = options_of(question)
        lines = [fields.text, "", question.asked]
        if isinstance(question, Predicate):
            lines.append("Is this true, yes or no?")
        lines += [f"- {described(*each)}" for each in options]
        context = "\n".join([*lines, "Answer:"])
        answers = [label for label, _ in options] or YES_NO
        pairs.append([(context, f" {answer}") for answer in answers])

    def score(items: list[Any]) -> Counted:
        likelihoods = model.likelihoods
        encoded = likelihoods.encode_pairs(items)
        sizes = [len(each.context) + len(each.tokens) for each in encoded]
        longest = max(sizes)
        room = likelihoods.longest
        if longest > room:
            raise PromptTooLong("it does not fit", tokens=longest, room=room)
        return list(zip(likelihoods.score(encoded), sizes, strict=True))

    flat = list(chain.from_iterable(pairs))
    answered, _ = await apply_together(loaded, ("decide", "likelihoods"), score, flat, request)
    found = []
    results = iter(answered)
    tokens = 0
    for question, asked in zip(fields.questions, pairs, strict=True):
        own = list(islice(results, len(asked)))
        tokens += sum(count for _, count in own)
        likelihoods = [likelihood for likelihood, _ in own]
        answers = [answer for _, answer in asked]
        row = probabilities(likelihoods, [], answers, "none")
        found.append(row[:1] if isinstance(question, Predicate) else row)
    return found, tokens


def _answer(question: Any, row: Floats) -> dict[str, Any]:
    """Return an answer in OpenAI's format.

    row: the probability of each answer, or of the statement.
    """
    head = {"type": question.type, "name": question.name}
    shown = [min(1.0, float(value)) for value in row]
    if isinstance(question, Predicate):
        return {**head, "probability": shown[0]}
    best = int(row.argmax())
    head |= {"confidence": shown[best]}
    if isinstance(question, ChoiceQuestion):
        options = [each.value for each in question.choices]
        choices = []
        for value, probability in zip(options, shown, strict=True):
            choices.append({"value": value, "probability": probability})
        return {**head, "choice": options[best], "probabilities": choices}
    levels = []
    for index, level in enumerate(question.levels):
        levels.append({"label": level.label, "value": index, "probability": shown[index]})
    # the expected level, counted from 0
    score = float(row @ np.arange(len(row)))
    return {**head, "score": score, "probabilities": levels}
