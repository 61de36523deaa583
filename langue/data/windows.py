"""Windows of long texts: takes texts that may exceed a model's length; returns overlapping windows
of each text's tokens, with the characters of each token.

Nothing is cut off: a text that does not fit is split into several windows, each with special
tokens. Of a pair, every window contains the first text (a question), and the second is split.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from langue.data.batch import Examples
from langue.errors import DataError
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import unknown_in

# texts encoded at a time, and the limit of their characters, which bound the memory for encodings
CHUNK = 1024
CHARACTERS = 4_000_000
LEAST_ROOM = 8  # minimum number of tokens of the split text in a window


@dataclass(frozen=True)
class Windows:
    """Sequences that are parts of texts, in the order of the texts."""

    examples: Examples
    row: NDArray[np.int64]  # (n,) text of each window
    # (n,) first token of the split text in the window
    first: NDArray[np.int64]
    begin: NDArray[np.int64]  # (n,) position of that token in the window
    size: NDArray[np.int64]  # (n,) number of tokens of the split text in the window
    # (S, 2) first character and one past the last of each token; -1, -1 for tokens that are not of
    # the split text: special tokens, and the first text of a pair
    offsets: NDArray[np.int32]
    # (S,) distance of each token to the nearer end of its window, not counting ends of the text
    margin: NDArray[np.int32]
    cut: NDArray[np.int64]  # (rows,) tokens truncated from the first text of a pair


def encode_windows(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    firsts: Sequence[str] | None = None,
    *,
    max_length: int,
    stride: int,
    segments: bool = False,
) -> Windows:
    """Encode texts, alone or each after a first text, as windows of at most `max_length` tokens.

    stride: tokens that consecutive windows share, at most half of the available length. A first
    text that is too long is truncated at its end, which is counted.
    """
    parts: list[_Window] = []
    cut = np.zeros(len(texts), np.int64)
    for row, encoding in enumerate(_encodings(tokenizer, texts, firsts)):
        of_row, cut[row] = _windows(encoding, row, firsts is not None, max_length, stride)
        parts += of_row
    lengths = [len(part.ids) for part in parts]
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    flat = _joined([part.ids for part in parts], np.int32)  # (S,)
    types = _joined([part.types for part in parts], np.uint8)  # (S,)
    offsets = _joined([part.offsets for part in parts], np.int32).reshape(-1, 2)  # (S, 2)
    rows = np.asarray([part.row for part in parts], np.int64)
    of_texts = starts[np.searchsorted(rows, np.arange(len(texts) + 1))]  # (texts + 1,)
    examples = Examples(
        tokens=flat,
        starts=starts,
        segments=types if segments and firsts is not None else None,
        cut=np.zeros(len(parts), np.int32),
        lost=unknown_in(tokenizer, flat, of_texts, 0, texts, firsts),
    )
    return Windows(
        examples=examples,
        row=rows,
        first=np.asarray([part.first for part in parts], np.int64),
        begin=np.asarray([part.begin for part in parts], np.int64),
        size=np.asarray([part.size for part in parts], np.int64),
        offsets=offsets,
        margin=_joined([part.margin for part in parts], np.int32),
        cut=cut,
    )


@dataclass(frozen=True)
class _Window:
    row: int
    first: int
    begin: int
    size: int
    ids: NDArray[np.int32]  # (t,)
    types: NDArray[np.uint8]  # (t,)
    offsets: NDArray[np.int32]  # (t, 2)
    margin: NDArray[np.int32]  # (t,)


def _encodings(
    tokenizer: Tokenizer, texts: Sequence[str], firsts: Sequence[str] | None
) -> Iterable[tokenizers.Encoding]:
    for begin, end in _chunks(texts):
        some = list(texts[begin:end])
        if firsts is None:
            yield from tokenizer.encode_batch(some, offsets=True)
        else:
            before = list(firsts[begin:end])
            yield from tokenizer.encode_batch(before, some, offsets=True)


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of texts to encode at a time: at most CHUNK texts with CHARACTERS in total,
    or a single one.
    """
    begin = 0
    held = 0
    for row, text in enumerate(texts):
        if row > begin and (row - begin == CHUNK or held + len(text) > CHARACTERS):
            yield begin, row
            begin = row
            held = 0
        held += len(text)
    if begin < len(texts):
        yield begin, len(texts)


def _windows(
    encoding: tokenizers.Encoding, row: int, paired: bool, max_length: int, stride: int
) -> tuple[list[_Window], int]:
    """Return the windows of one text, and how many tokens its first text lost."""
    ids = np.asarray(encoding.ids, np.int32)
    types = np.asarray(encoding.type_ids, np.uint8)
    offsets = np.asarray(encoding.offsets, np.int32).reshape(-1, 2)  # (t, 2)
    # (t,) 0: of the first text, 1: of the second, -1: of neither
    sequence = np.asarray([-1 if s is None else s for s in encoding.sequence_ids], np.int64)
    # Some tokenizers assign special tokens to a sequence, so the mask is more reliable.
    special = np.asarray(encoding.special_tokens_mask, bool)
    sequence[special] = -1
    body = np.flatnonzero(sequence == int(paired))
    fixed = np.flatnonzero(sequence != int(paired))
    lost = 0
    if len(fixed) + min(len(body), LEAST_ROOM) > max_length:
        fixed, lost = _shortened(fixed, sequence, max_length)
    room = max_length - len(fixed)
    begin = int(body[0]) if len(body) else len(ids)
    before = fixed[fixed < begin]
    after = fixed[fixed >= begin]
    shared = min(stride, room // 2)
    step = max(1, room - shared)
    found = []
    for first in _begins(len(body), room, step):
        own = body[first : first + room]
        places = np.concatenate([before, own, after])  # (t,) the window's tokens
        of_text = slice(len(before), len(before) + len(own))
        inside = np.full((len(places), 2), -1, np.int32)
        inside[of_text] = offsets[own]
        margin = np.zeros(len(places), np.int32)
        margin[of_text] = _margins(first, len(own), len(body))
        shown = first, len(before), len(own)
        found.append(_Window(row, *shown, ids[places], types[places], inside, margin))
    return found, lost


def _begins(size: int, room: int, step: int) -> list[int]:
    """Return the starts of the windows of `size` tokens; the last window starts earlier, so that it
    is full.
    """
    if size <= room:
        return [0]
    begins = list(range(0, size - room, step))
    return [*begins, size - room]


def _margins(first: int, size: int, whole: int) -> NDArray[np.int32]:
    """Return the distance of each token to the nearer position at which its window cuts the
    text.
    """
    places = np.arange(size)
    far = np.full(size, whole)
    left = places if first > 0 else far
    right = size - 1 - places if first + size < whole else far
    return np.minimum(left, right).astype(np.int32)


def _shortened(
    fixed: NDArray[np.int64], sequence: NDArray[np.int64], max_length: int
) -> tuple[NDArray[np.int64], int]:
    """Remove the last tokens of the first text, so that half of the available length is left for
    the other.
    """
    question = fixed[sequence[fixed] == 0]
    special = len(fixed) - len(question)
    kept = max(0, (max_length - special) // 2)
    if special + kept + 1 > max_length:
        what = f"data.max_length = {max_length} leaves no room beside {special} special tokens"
        raise DataError(what, do=f"raise it to at least {special + LEAST_ROOM}")
    gone = question[kept:]
    return np.setdiff1d(fixed, gone), len(gone)


def _joined(parts: list[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def offsets_of_texts(windows: Windows, n_texts: int) -> list[NDArray[np.int32]]:
    """Return, for each text that was split, the character offsets (G, 2) of all its tokens."""
    starts = windows.examples.starts
    sizes = np.zeros(n_texts, np.int64)
    np.maximum.at(sizes, windows.row, windows.first + windows.size)
    found = [np.zeros((size, 2), np.int32) for size in sizes]
    for window, text in enumerate(windows.row):
        part = int(starts[window] + windows.begin[window])
        first = int(windows.first[window])
        size = int(windows.size[window])
        found[text][first : first + size] = windows.offsets[part : part + size]
    return found


def places_of_words(
    windows: Windows, spans: Sequence[Sequence[tuple[int, int]]]
) -> list[NDArray[np.int64]]:
    """Return, for each row, the index of the first token of each word among all tokens; -1: none.

    If several windows contain a word, the one with the most context around it counts.
    """
    begins = windows.examples.starts
    first_window = np.searchsorted(windows.row, np.arange(len(spans) + 1))
    found = []
    for row, words in enumerate(spans):
        starts = np.array([begin for begin, _ in words], np.int64)  # (W,) characters
        places = np.full(len(words), -1, np.int64)
        shown = np.full(len(words), -1, np.int64)  # the margin of each chosen token
        for window in range(first_window[row], first_window[row + 1]):
            part = slice(int(begins[window]), int(begins[window + 1]))
            inside = np.flatnonzero(windows.offsets[part, 0] >= 0)  # (t,) tokens of the text
            offsets = windows.offsets[part][inside]  # (t, 2)
            margins = windows.margin[part][inside]  # (t,)
            # The token that covers a word's first character. Some tokenizers include the blank
            # before a word in its offsets, so the ends of the tokens decide.
            token = np.searchsorted(offsets[:, 1], starts, side="right")  # (W,)
            there = token < len(inside)
            there[there] = offsets[token[there], 0] <= starts[there]
            better = np.zeros(len(words), bool)
            better[there] = margins[token[there]] > shown[there]
            chosen = token[better]
            shown[better] = margins[chosen]
            places[better] = part.start + inside[chosen]
        found.append(places)
    return found
