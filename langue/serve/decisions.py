"""What arrives: an input and questions about it, at `/v1/decisions`. What leaves: how likely each
answer is; nothing is written.

A classifier answers of its own labels. One that was trained on entailment judges whether a sentence
follows from the input, and a language model how likely an answer is to follow the question; both
take answers that they were never trained on.
"""

from collections.abc import Sequence
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
Found = tuple[list[NDArray[np.float64]], int]  # probabilities of each question's answers; tokens


@router.post("/v1/decisions")
async def decisions(fields: DecisionFields, request: Request) -> Response:
    """Answer questions about an input by probabilities."""
    state = state_of(request)
    call = request.state.call
    call.model = fields.model
    check_count([fields.text], state.limits)
    _check_unique(fields)
    async with state.shelf.use(fields.model) as loaded:
        labels = getattr(loaded.model.task, "labels", None)
        if labels is not None and entailment_of(labels) is not None:
            found, tokens = await _by_entailment(loaded, labels, fields, request)
        elif labels is not None and loaded.model.task.takes_texts:  # type: ignore[union-attr]
            found, tokens = await _by_labels(loaded, labels, fields, request)
        elif loaded.writes:
            found, tokens = await _by_likelihood(loaded, fields, request)
        else:
            what = f"The model '{loaded.id}' neither classifies texts nor writes them"
            raise ApiError(400, what, param="model", code="model_not_supported")
    call.prompt_tokens = tokens
    answers = [_answer(each, row) for each, row in zip(fields.questions, found, strict=True)]
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }
    return JSONResponse({"model": fields.model, "answers": answers, "usage": usage})


def _check_unique(fields: DecisionFields) -> None:
    for index, question in enumerate(fields.questions):
        values: list[Any] = [label for label, _ in options_of(question)]
        name = "levels"
        if isinstance(question, ChoiceQuestion):
            name = "choices"
            values = [(type(each.value), each.value) for each in question.choices]
        if len(set(values)) < len(values):
            where = f"questions.{index}.{name}"
            raise ApiError(
                400, f"'{where}' has one answer twice", param=where, code="invalid_value"
            )


async def _by_labels(
    loaded: Loaded, labels: Sequence[str], fields: DecisionFields, request: Request
) -> Found:
    """The model's probabilities of its labels; of a choice, scaled to those that it names."""
    for index, question in enumerate(fields.questions):
        is_statement = isinstance(question, Predicate)
        named = [question.asked] if is_statement else [label for label, _ in options_of(question)]
        other = next((name for name in named if name not in labels), None)
        if other is not None:
            part = "instructions" if is_statement else question.type
            where = f"questions.{index}.{part}"
            what = f"'{where}': the model has no label {other[:100]!r}; it has "
            what += ", ".join(repr(label) for label in labels[:20])
            raise ApiError(400, what, param=where, code="invalid_value")
    model = loaded.model

    def predict(texts: list[Any]) -> list[tuple[Any, int]]:
        return list(zip(model.predict(texts, top=None), n_tokens(model, texts), strict=True))

    ((shown, tokens),), _ = await apply_together(
        loaded, ("decide", "labels"), predict, [fields.text], request
    )
    if shown is None:
        raise ApiError(400, "'input' is blank", param="input", code="invalid_value")
    known = {each["label"]: each["score"] for each in shown}
    found = []
    for question in fields.questions:
        if isinstance(question, Predicate):
            found.append(np.asarray([known[question.asked]], np.float64))
            continue
        row = np.asarray([known[label] for label, _ in options_of(question)], np.float64)
        found.append(row / max(row.sum(), 1e-30))
    return found, tokens


async def _by_entailment(
    loaded: Loaded, labels: Sequence[str], fields: DecisionFields, request: Request
) -> Found:
    """Whether the instructions follow from the input, or the instructions with each answer."""
    model = loaded.model
    text = fields.text
    asked = []
    for question in fields.questions:
        options = options_of(question)
        sentences = [f"{question.asked} {described(*each)}" for each in options]
        asked.append([(text, sentence) for sentence in sentences or [question.asked]])

    def judge(pairs: list[Any]) -> list[tuple[Any, int]]:
        return list(zip(model.logits(pairs), n_tokens(model, pairs), strict=True))

    flat = [pair for pairs in asked for pair in pairs]
    answered, _ = await apply_together(loaded, ("decide", "pairs"), judge, flat, request)
    found = []
    at = 0
    for question, pairs in zip(fields.questions, asked, strict=True):
        logits = np.stack([row for row, _ in answered[at : at + len(pairs)]])
        at += len(pairs)
        numbers = [str(index) for index in range(len(pairs))]
        is_statement = isinstance(question, Predicate)
        (judged,) = by_entailment(logits, [text], numbers, labels, is_statement)
        order = [judged["labels"].index(number) for number in numbers]
        found.append(np.asarray(judged["scores"])[order])
    return found, sum(count for _, count in answered)


async def _by_likelihood(loaded: Loaded, fields: DecisionFields, request: Request) -> Found:
    """How likely a language model takes each answer to follow."""
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

    def score(items: list[Any]) -> list[tuple[Any, int]]:
        likelihoods = model.likelihoods
        encoded = likelihoods.encode_pairs(items)
        sizes = [len(each.context) + len(each.tokens) for each in encoded]
        room = likelihoods.longest
        if max(sizes) > room:
            raise PromptTooLong("it does not fit", tokens=max(sizes), room=room)
        return list(zip(likelihoods.score(encoded), sizes, strict=True))

    flat = [pair for own in pairs for pair in own]
    answered, _ = await apply_together(loaded, ("decide", "likelihoods"), score, flat, request)
    found = []
    at = 0
    for question, own in zip(fields.questions, pairs, strict=True):
        likelihoods = [each for each, _ in answered[at : at + len(own)]]
        at += len(own)
        row = probabilities(likelihoods, [], [answer for _, answer in own], "none")
        found.append(row[:1] if isinstance(question, Predicate) else row)
    return found, sum(count for _, count in answered)


def _answer(question: Any, row: NDArray[np.float64]) -> dict[str, Any]:
    """As OpenAI's clients read it. row: the probability of each answer, or of the statement."""
    head = {"type": question.type, "name": question.name}
    shown = [min(1.0, float(value)) for value in row]
    if isinstance(question, Predicate):
        return {**head, "probability": shown[0]}
    best = int(row.argmax())
    head |= {"confidence": shown[best]}
    if isinstance(question, ChoiceQuestion):
        options = [each.value for each in question.choices]
        told = [{"value": value, "probability": p} for value, p in zip(options, shown, strict=True)]
        return {**head, "choice": options[best], "probabilities": told}
    labels = [each.label for each in question.levels]
    told = [
        {"label": label, "value": value, "probability": shown[value]}
        for value, label in enumerate(labels)
    ]
    # the mean of the levels' numbers, from 0 on
    score = float(row @ np.arange(len(row)))
    return {**head, "score": score, "probabilities": told}
