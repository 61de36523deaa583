"""What arrives: a conversation, and the tokenizer whose template writes it. What leaves: its text,
and which characters and tokens of that the assistant writes.

Where a template says it (`{% generation %}`), it is followed. Elsewhere it is found by rendering: a
turn begins where the conversation before it ends, with the marks that begin an answer, and ends
where the conversation up to it ends. A template may rewrite earlier turns, as Qwen 3 takes the
thinking out of them; then the message's content is rendered once more between two characters that
no text has, which show where it stands. What cannot be known so is an error, never a guess. The
token that ends a turn is always the assistant's: else the model would not learn to stop.
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

NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # of Unicode: never in a text
CHUNK = 512  # conversations whose encodings are held at once
Span = tuple[int, int]


@dataclass(frozen=True)
class Turns:
    """A conversation as text, and what the assistant writes of it."""

    text: str
    spans: list[Span]  # characters, in order


@dataclass(frozen=True)
class Labelled:
    """A conversation as tokens (t,)."""

    ids: NDArray[np.int32]
    written: NDArray[np.bool_]  # by the assistant


def turns_of(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    end: str | None,
) -> Turns:
    """end: the token that ends a turn. DataError where the template cannot write the conversation,
    or leaves open what in it the assistant writes.
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
    """The characters of one turn of the assistant, found by rendering what stands before it, what
    ends with it, and its content between marks.
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
    """Where a message's content stands; None where the template does not let it through whole."""
    message = messages[index]
    content = message.get("content") or ""
    core = content.strip()
    before, after = marks
    # a part may be taken away, as thinking is: then the first mark goes with it, and is put behind
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
    """Where a turn without content, as one that calls tools, stops: behind the one token that ends
    a turn before the next message's content; None where there are several, or none.
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
    """Where a turn stops once the token that ends it is in it."""
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
    """The text without them, and what stood between a first and a second one."""
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
    """Each as tokens: the template has written the special ones, so that none are added."""
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
    """What the tokenizer does not know of conversations, and what reads as special tokens in what
    is said in them.
    """
    starts = np.cumsum([0, *(len(each.ids) for each in found)])
    ids = np.concatenate([np.zeros(0, np.int32), *(each.ids for each in found)])  # (T,)
    return unknown_in(tokenizer, ids, starts, 0, [each.text for each in conversations], said=said)


def _labelled(encoding: tokenizers.Encoding, spans: Sequence[Span]) -> Labelled:
    """A token is in a span if any character of it is, as in `transformers`."""
    offsets = np.asarray(encoding.offsets, np.int64).reshape(-1, 2)  # (t, 2)
    ends = offsets[:, 1]
    # some tokenizers leave the blank before a word out of it: it begins where the last one ended
    before = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]]) if len(ends) else ends
    begins = np.minimum(offsets[:, 0], before)
    written = np.zeros(len(offsets), bool)
    for begin, stop in spans:
        written |= (begins < stop) & (ends > begin)
    return Labelled(np.asarray(encoding.ids, np.int32), written)
