"""Rows of preferences: takes rows in any of the published layouts; returns checked `Preferred`
objects with a prompt and its answers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langue.errors import DataError, ModelError
from langue.tasks.conversations import (
    ASSISTANT,
    all_said,
    as_messages,
    check_messages,
    said_in,
)
from langue.text.read.turns import message_of
from langue.text.read.turns import tools as tools_of
from langue.text.read.turns import turns as turns_form

COLUMNS = ("prompt", "chosen", "rejected", "completion", "label", "tools")
PAIRED = "chosen"  # the column that marks rows with two answers
YES = (True, 1, 1.0, "true", "True", "1")
NO = (False, 0, 0.0, "false", "False", "0")


@dataclass(frozen=True)
class Preferred:
    """A prompt with two answers, or with one that is good or bad.

    Answers are texts or messages. good: whether a single answer, `chosen`, is good; None: there are
    two answers.
    """

    prompt: Any
    chosen: Any
    rejected: Any = None
    good: bool | None = None
    tools: list[Any] | None = None

    def said(self, answer: Any) -> str:
        """Return the prompt and this answer as plain text."""
        if isinstance(answer, str):
            return f"{self.prompt}{answer}"
        return all_said([*self.prompt, *answer])


def as_given(value: Any) -> Any:
    """Return a value of a table's row in the form in which a user would give it: a text, messages,
    or a label.
    """
    if not isinstance(value, list):
        return value
    if _is_text(value):
        return "".join(turn["content"] or "" for turn in value)
    return [message_of(turn) for turn in value]


def as_row(item: Any) -> dict[str, Any]:
    """Return a user's item in the form of a table row."""
    if not isinstance(item, Mapping):
        raise ModelError(
            "the task preference takes records", do='give {"prompt", "chosen", "rejected"}'
        )
    found = {}
    for name, value in item.items():
        if name == "label":
            found[name] = value
        elif name in COLUMNS:
            found[name] = (tools_of if name == "tools" else turns_form)(value, name, "the row")
    return found


def read_preference(
    row: Mapping[str, Any], where: Callable[[], str], judged: bool = True
) -> Preferred:
    """Return the checked content of a row.

    judged: whether a single answer must have a label.
    """
    tools = row.get("tools")
    called = None if tools is None else json.loads(tools)
    if PAIRED in row:
        found = _pair(row, where)
    else:
        label = row.get("label")
        if judged and label not in (*YES, *NO):
            raise DataError(
                f"the label is {label!r}, neither true nor false",
                where=where(),
                do="say of each completion if it is good (in training: data.invalid=drop)",
            )
        found = Preferred(row.get("prompt"), row.get("completion"), None, label in YES)
    answers = [found.chosen] if found.good is not None else [found.chosen, found.rejected]
    if all(_is_text(each) for each in answers) and _is_text(found.prompt):
        return _of_texts(found, where)
    return replace(_of_messages(found, where), tools=called)


def _is_text(turns: Sequence[Mapping[str, Any]] | None) -> bool:
    return all(not turn["role"] for turn in turns or ())


def _pair(row: Mapping[str, Any], where: Callable[[], str]) -> Preferred:
    chosen = list(row.get("chosen") or ())
    rejected = list(row.get("rejected") or ())
    if chosen == rejected and chosen:
        raise DataError(
            "chosen and rejected are the same, so that nothing is preferred",
            where=where(),
            do="correct one of them or take the row out (in training: data.invalid=drop)",
        )
    return Preferred(list(row.get("prompt") or ()), chosen, rejected)


def _of_texts(found: Preferred, where: Callable[[], str]) -> Preferred:
    prompt = _joined_contents(found.prompt)
    chosen = _joined_contents(found.chosen)
    rejected = _joined_contents(found.rejected)
    paired = found.good is None
    for name, text in (("chosen" if paired else "completion", chosen), ("rejected", rejected)):
        if not text.strip() and (paired or name != "rejected"):
            raise DataError(
                f"the {name} is empty",
                where=where(),
                do="fill it in or take the row out (in training: data.invalid=drop)",
            )
    if paired and not prompt:
        shared = shared_size(chosen, rejected)
        prompt = chosen[:shared]
        chosen = chosen[shared:]
        rejected = rejected[shared:]
    return replace(found, prompt=prompt, chosen=chosen, rejected=rejected if paired else None)


def _joined_contents(turns: Sequence[Mapping[str, Any]] | None) -> str:
    return "".join(turn["content"] or "" for turn in turns or ())


def shared_size(a: str, b: str) -> int:
    """Return the length of the common prefix of both texts, up to the last space, so that no word
    is split.
    """
    size = _common_prefix(a, b)
    return max(a[:size].rfind(" "), 0)


def _common_prefix(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return how many elements two sequences have in common at their start."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))


def _of_messages(found: Preferred, where: Callable[[], str]) -> Preferred:
    said = [turn for turn in found.prompt or () if turn["role"] or (turn["content"] or "").strip()]
    prompt = as_messages(said, "user")
    paired = found.good is None
    chosen = as_messages(found.chosen, ASSISTANT)
    rejected = as_messages(found.rejected, ASSISTANT) if paired else None
    size = len(prompt)
    if rejected is not None and prompt and chosen[:size] == rejected[:size] == prompt:
        # both answers repeat the prompt
        chosen = chosen[size:]
        rejected = rejected[size:]
    if rejected is not None and not prompt:
        shared = _common_prefix(chosen, rejected)
        prompt = chosen[:shared]
        chosen = chosen[shared:]
        rejected = rejected[shared:]
    for answer in [chosen] if rejected is None else [chosen, rejected]:
        check_messages([*prompt, *answer], where, answered=True)
        if not answer or answer[-1]["role"] != ASSISTANT:
            raise DataError(
                "an answer does not end with a turn of the assistant",
                where=where(),
                do="add it or take the row out (in training: data.invalid=drop)",
            )
    return replace(found, prompt=prompt, chosen=chosen, rejected=rejected)


def text_of(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    return "\n".join(said_in(message) for message in answer or ())
