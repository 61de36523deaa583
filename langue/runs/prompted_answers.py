"""Extractive question answering without training: takes a language model, questions and contexts;
returns the span of each context that the model generates as the answer.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langue.errors import ModelError
from langue.progress import warn
from langue.runs.inputs import listed
from langue.text.quality.script import UNSPACED
from langue.wording import counted

if TYPE_CHECKING:
    from langue.generation.request import Completion

TEMPLATE = "{context}\n\nQuestion: {question}\nAnswer:"
BETWEEN = "\n\n"  # separates examples and the question
BEAMS = 4
SHOWN = 80  # characters of a question that an error shows
_FIELD = re.compile(r"\{(context|question)\}")
# Answers start and end at the borders of these pieces: words, or characters in scripts without
# spaces.
_PIECE = re.compile(rf"\s+|[{UNSPACED}]|[^\W{UNSPACED}]+|\W")


def extract(
    model: Any,
    questions: Any,
    contexts: Any,
    *,
    template: str,
    examples: Sequence[tuple[str, str, str]],
    no_answer: str | None,
    top: int,
    max_tokens: int,
) -> list[list[dict[str, Any]]]:
    """Extract answers, as `Model.extract` does; model: a `Model`."""
    asked = _pairs(questions, contexts)
    _check(template, top)
    before = ""
    for question, context, answer in examples:
        shown = answer or no_answer
        if shown is None:
            raise ModelError(
                "an example has no answer",
                do='leave it out, or give no_answer, as "unanswerable", for what is written then',
            )
        before += f"{_prompt(template, question, context)} {shown}{BETWEEN}"
    engine = model.engine()
    numbers = []
    for question, context in asked:
        options: dict[str, Any] = {
            "grammar": grammar_of(context, no_answer),
            "beams": max(top, BEAMS),
            "n": max(top, BEAMS),
            "length_penalty": 0.0,  # a score is the log-probability of the answer
            "max_tokens": max_tokens,
        }
        try:
            numbers.append(engine.submit(before + _prompt(template, question, context), **options))
        except ModelError as error:
            where = error.where or f"question {question[:SHOWN]!r}"
            raise ModelError(error.what, where=where, do=error.do) from error
    while engine.has_work:
        engine.step()
    found = []
    n_cut = 0
    for number, (_, context) in zip(numbers, asked, strict=True):
        completion = engine.collect(number)
        if completion.error is not None:
            raise completion.error
        whole = [each for each in completion.n_best if each.finish_reason == "stop"]
        n_cut += not whole
        answers = _answers(whole or completion.n_best, context, no_answer)
        found.append(answers[:top])
    if n_cut:
        warn(
            f"of {n_cut:,} of {counted(len(asked), 'question')} every answer that was looked at is"
            f" cut short at {max_tokens} tokens; a larger max_tokens lets it end"
        )
    return found


def grammar_of(context: str, no_answer: str | None = None) -> str:
    """Return the grammar of an answer, in llguidance's dialect of Lark: whole words of a context on
    one line, not punctuation alone, or the text for "no answer"; an optional blank precedes it, and
    a newline follows.

    Raises ModelError if the context is empty.
    """
    if not context.strip():
        raise ModelError("the context is empty", do="leave the question out")
    pieces = json.dumps({"substring_chunks": _PIECE.findall(context)}, ensure_ascii=False)
    letters = r" & /.*\w.*/" if re.search(r"\w", context) else ""
    other = "" if no_answer is None else f" | {json.dumps(no_answer, ensure_ascii=False)}"
    return "\n".join(
        [
            f'start: " "? (ANSWER{other}) "\\n"?',
            r"ANSWER: PART & /\S(.*\S)?/" + letters,
            f"PART: %regex {pieces}",
        ]
    )


def _answers(
    written: Sequence["Completion"], context: str, no_answer: str | None
) -> list[dict[str, Any]]:
    """Return the distinct answers among the generated texts, most probable first, in the form of
    extractive models. An answer that was generated in several ways gets the sum of their
    probabilities.
    """
    chances: dict[str, float] = {}
    for each in written:
        assert each.score is not None
        text = each.text.strip()
        chances[text] = chances.get(text, 0.0) + math.exp(each.score)
    found = []
    for text, chance in sorted(chances.items(), key=lambda item: -item[1]):
        start = -1 if text == no_answer else _place(context, text)
        answer, start = ("", 0) if start < 0 else (text, start)
        found.append(
            {"score": chance, "start": start, "end": start + len(answer), "answer": answer}
        )
    return found


def _place(context: str, text: str) -> int:
    """Return the first position of a text in a context, as whole words if there is one; -1: not
    found.
    """
    begins = {piece.start() for piece in _PIECE.finditer(context)}
    first = start = context.find(text)
    while start >= 0:
        end = start + len(text)
        if start in begins and (end in begins or end == len(context)):
            return start
        start = context.find(text, start + 1)
    return first


def _prompt(template: str, question: str, context: str) -> str:
    given = {"question": question, "context": context}
    return _FIELD.sub(lambda field: given[field[1]], template)


def _pairs(questions: Any, contexts: Any) -> list[tuple[str, str]]:
    """Return each question with its context."""
    asked = [questions] if isinstance(questions, str) else listed(questions, "questions", ids=False)
    given = (
        [contexts] * len(asked)
        if isinstance(contexts, str)
        else listed(contexts, "contexts", ids=False)
    )
    if len(given) != len(asked):
        raise ModelError(
            f"there are {len(asked)} questions and {len(given)} contexts",
            do="give one context for each question, or one for all",
        )
    for text in (*asked, *given):
        if not isinstance(text, str) or not text.strip():
            raise ModelError("a question or context is empty, or no text", do="leave it out")
    return list(zip(asked, given, strict=True))


def _check(template: str, top: int) -> None:
    """Raise ModelError for an invalid template or number."""
    if sorted(_FIELD.findall(template)) != ["context", "question"]:
        raise ModelError(
            f"the template {template!r} does not have {{context}} and {{question}} once each",
            do=f"write them where they go, as {TEMPLATE!r}",
        )
    if top < 1:
        raise ModelError(f"top = {top} is no number of answers", do="give 1 or more")
