"""Renders a conversation by the tokenizer's chat template, and finds which characters and tokens of
the text were written by the assistant.

If the template marks them (`{% generation %}`), the marks are used. Otherwise they are found by
rendering: a turn begins where the conversation before it ends, including the generation prompt, and
ends where the conversation up to and including it ends. A template may rewrite earlier turns, as
that of Qwen 3 removes their thinking; then the message's content is rendered once more between two
noncharacters, which show its position. What cannot be determined in this way is an error, never a
guess. The token that ends a turn always belongs to the assistant, since the model would otherwise
not learn to stop.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from langue.errors import DataError, LangueError
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import Lost, unknown_in

# of Unicode: they never occur in a text
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
CHUNK = 512  # number of conversations whose encodings are in memory at once
Span = tuple[int, int]


@dataclass(frozen=True)
class Turns:
    """A conversation as text, with the spans that the assistant writes."""

    text: str
    spans: list[Span]  # in characters, in order


@dataclass(frozen=True)
class Labelled:
    """A conversation as tokens (t,), with a mask of those that the assistant writes."""

    ids: NDArray[np.int32]
    written: NDArray[np.bool_]  # by the assistant, including the tokens that end turns


def turns_of(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    end: str | None,
) -> Turns:
    """Return the conversation as text with the spans of the assistant.

    end: the token that ends a turn. Raises DataError if the template cannot render the
    conversation, or if it cannot be determined what the assistant writes.
    """
    try:
        return _turns_of(tokenizer, messages, tools, end)
    except LangueError as error:
        raise DataError(error.what, do=error.do or "see task.template, and data.invalid") from error


def _turns_of(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    end: str | None,
) -> Turns:
    write = partial(tokenizer.chat, tools=tools)
    text = write(messages, False)
    marks = _free_marks(messages, tools)
    said, spans = _without_marks(write(messages, False, marks=marks), marks)
    if not spans or said != text:
        spans = [
            _span_of(write, messages, index, text, end, marks)
            for index, message in enumerate(messages)
            if message["role"] == "assistant"
        ]
    return Turns(text, [(begin, _with_end(text, begin, stop, end)) for begin, stop in spans])


def _span_of(
    write: Any,
    messages: Sequence[Mapping[str, Any]],
    index: int,
    text: str,
    end: str | None,
    marks: tuple[str, str],
) -> Span:
    """Return the character span of one turn of the assistant.

    It is found by rendering the messages before it, the messages up to it, and its content between
    marks.
    """
    before = write(messages[:index], True)
    begin = len(before) if text.startswith(before) else None
    upto = text if index == len(messages) - 1 else write(messages[: index + 1], False)
    stop = None
    if text.startswith(upto):
        whole = upto.rstrip()
        ends = end is not None and whole.endswith(end)
        stop = len(whole) if ends else len(upto)
    if begin is None or stop is None:
        found = _marked_content(write, messages, index, text, marks)
        begin = found[0] if begin is None and found else begin
        stop = found[1] if stop is None and found else stop
    if begin is not None and stop is None and end is not None:
        stop = _only_end(write, messages, index, text, begin, end, marks)
    if begin is None or stop is None or begin >= stop:
        raise DataError(
            f"the chat template leaves message {index + 1} (assistant) out, or rewrites it so that"
            " what the assistant writes of it cannot be known",
            do=(
                "mark it in the template by {% generation %} and {% endgeneration %}, and name the"
                " file: task.template=FILE"
            ),
        )
    return begin, stop


def _marked_content(
    write: Any,
    messages: Sequence[Mapping[str, Any]],
    index: int,
    text: str,
    marks: tuple[str, str],
) -> Span | None:
    """Return the span of a message's content; None if the template does not keep it whole."""
    message = messages[index]
    content = message.get("content") or ""
    core = content.strip()
    before, after = marks
    # the template may remove a part, such as thinking, and the first mark with it; then the mark is
    # put after that part
    for kept in (core, core.rpartition("</think>")[2].strip()):
        if not kept:
            continue
        lead, _, rest = content.rpartition(kept)
        told = {**message, "content": f"{lead}{before}{kept}{after}{rest}"}
        marked = write([*messages[:index], told, *messages[index + 1 :]], False)
        said, spans = _without_marks(marked, marks)
        if said == text and len(spans) == 1:
            return spans[0]
    return None


def _only_end(
    write: Any,
    messages: Sequence[Mapping[str, Any]],
    index: int,
    text: str,
    begin: int,
    end: str,
    marks: tuple[str, str],
) -> int | None:
    """Return the end of a turn without content, such as one that only calls tools.

    It is after the only end-of-turn token before the content of the next message; None if there are
    several, or none.
    """
    limit = len(text)
    if index + 1 < len(messages):
        following = _marked_content(write, messages, index + 1, text, marks)
        if following is None:
            return None
        limit = following[0]
    if text.count(end, begin, limit) != 1:
        return None
    return text.index(end, begin) + len(end)


def _with_end(text: str, begin: int, stop: int, end: str | None) -> int:
    """Return the end of a turn, including the token that ends it."""
    if end is None or text[begin:stop].rstrip().endswith(end):
        return stop
    rest = text[stop:]
    blank = len(rest) - len(rest.lstrip())
    return stop + blank + len(end) if rest[blank:].startswith(end) else stop


def _free_marks(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
) -> tuple[str, str]:
    said = json.dumps([list(messages), tools], ensure_ascii=False)
    free = [each for each in NONCHARACTERS if each not in said]
    if len(free) < 2:
        raise DataError("the conversation holds all characters that no text has")
    return free[0], free[1]


def _without_marks(text: str, marks: tuple[str, str]) -> tuple[str, list[Span]]:
    """Return the text without the marks, and the spans between a first and a second mark."""
    plain = []
    spans = []
    size = 0
    begin: int | None = None
    for part in re.split(f"([{''.join(marks)}])", text):
        if part == marks[0]:
            begin = size
        elif part == marks[1]:
            if begin is not None and size > begin:
                spans.append((begin, size))
            begin = None
        else:
            plain.append(part)
            size += len(part)
    return "".join(plain), spans


def labelled(tokenizer: Tokenizer, conversations: Sequence[Turns]) -> list[Labelled]:
    """Tokenize each conversation; no special tokens are added, since the template has
    written them.
    """
    found = []
    for first in range(0, len(conversations), CHUNK):
        some = conversations[first : first + CHUNK]
        texts = [each.text for each in some]
        encoded = tokenizer.backend.encode_batch(texts, add_special_tokens=False)
        for encoding, turns in zip(encoded, some, strict=True):
            found.append(_labelled(encoding, turns.spans))
    return found


def lost_in(
    tokenizer: Tokenizer,
    found: Sequence[Labelled],
    conversations: Sequence[Turns],
    said: Iterable[str],
) -> Lost:
    """Return what the tokenizer does not know of the conversations, and which messages contain text
    that is read as special tokens.
    """
    starts = np.cumsum([0, *(len(each.ids) for each in found)])
    ids = np.concatenate([np.zeros(0, np.int32), *(each.ids for each in found)])  # (T,)
    return unknown_in(tokenizer, ids, starts, 0, [each.text for each in conversations], said=said)


def _labelled(encoding: tokenizers.Encoding, spans: Sequence[Span]) -> Labelled:
    """Label the tokens: one is in a span if any of its characters is, as in `transformers`."""
    offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)  # (t, 2)
    ends = offsets[:, 1]
    # some tokenizers exclude the space before a word from its offsets; such a token begins where
    # the previous one ended
    before = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if len(ends) else ends
    begins = np.minimum(offsets[:, 0], before)
    written = np.zeros(len(offsets), bool)
    for begin, stop in spans:
        written |= (begins < stop) & (ends > begin)
    return Labelled(np.asarray(encoding.ids, np.int32), written)
