"""Finds texts of one split that are exact or near copies of texts in another.

Texts that are in both training and test are the most common way to fool oneself. Exact copies are
equal after Unicode normalisation (NFKC), case folding and merging of white space. Near copies have
sets of shingles (Broder 1997), runs of five words, or five characters in scripts without spaces,
with an overlap of at least `near`: the Jaccard similarity, or the share of the test text's shingles
that the train text contains, which finds a review that was quoted in a longer one.

The search examines few pairs: of n shingles, near * n must be shared, so that at least one of any n
- near * n + 1 of them is shared; the rarest are looked up (prefix filter, Chaudhuri et al. 2006).
For a shingle that occurs in more than POSTINGS texts, only so many of them are examined: a near
copy may be missed if many texts share its rarest shingles.
"""

import re
import unicodedata
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from langue.text.quality.script import WORD

RUN = 5  # number of words in a shingle
# minimum number of shingles for a text to count as contained: short ones occur in many texts by
# chance
CONTAINED_FROM = 20
CHUNK = 2_000_000  # number of shingles of the first texts in memory at a time
POSTINGS = 32  # maximum number of texts examined for one shingle: boilerplate occurs in all of them
VOCABULARY = 1_000_000  # maximum number of words with a cached number
HASH = np.uint64((1 << 40) - 1)  # the bits of a shingle; the bits above are the number of the text
BUCKETS = np.uint64((1 << 22) - 1)
_ASCII = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True)
class Duplicates:
    """Each copy once, with the text it resembles most; exact copies are not listed as near ones."""

    exact: list[tuple[int, int]] = field(default_factory=list)  # (test row, train row)
    # (test row, train row, similarity)
    near: list[tuple[int, int, float]] = field(default_factory=list)


def find(train_texts: Sequence[str], test_texts: Sequence[str], near: float = 0.8) -> Duplicates:
    """Return the copies of training texts among test texts."""
    first: dict[int, int] = {}
    for row, text in enumerate(train_texts):
        first.setdefault(_key(text), row)
    copies = [(row, first.get(_key(text))) for row, text in enumerate(test_texts)]
    exact = [(row, of) for row, of in copies if of is not None]
    return Duplicates(
        exact, _near(train_texts, test_texts, near, {row for row, _ in exact}, within=False)
    )


def within(texts: Sequence[str], near: float = 0.8) -> Duplicates:
    """Return the copies of earlier texts among later ones of the same split, as (later row, earlier
    row).
    """
    first: dict[int, int] = {}
    copies = [(row, first.setdefault(_key(text), row)) for row, text in enumerate(texts)]
    exact = [(row, of) for row, of in copies if of != row]
    return Duplicates(exact, _near(texts, texts, near, {row for row, _ in exact}, within=True))


def _normal(text: str) -> str:
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def _key(text: str) -> int:
    return hash(" ".join(_normal(text).split()))


@dataclass(frozen=True)
class _Shingles:
    """Sets of shingles in flat arrays: `values[starts[i]:starts[i + 1]]` are those of text i,
    ascending and unique.
    """

    values: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @property
    def rows(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes)


class _Hasher:
    """Maps words to numbers, the same in every process, and runs of words to shingles."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def chunks(self, texts: Sequence[str]) -> Iterator[tuple[int, _Shingles]]:
        """Yield (first row, shingles) of as many texts at a time as contain CHUNK words."""
        words = array("Q")
        ends = array("q")
        begin = 0
        for row, text in enumerate(texts):
            words.extend(self._words(text))
            ends.append(len(words))
            if len(words) >= CHUNK or len(ends) >= CHUNK:
                yield (
                    begin,
                    _shingles(np.frombuffer(words, np.uint64), np.frombuffer(ends, np.int64)),
                )
                words = array("Q")
                ends = array("q")
                begin = row + 1
        if ends:
            yield begin, _shingles(np.frombuffer(words, np.uint64), np.frombuffer(ends, np.int64))

    def _words(self, text: str) -> list[int]:
        if len(self.numbers) > VOCABULARY:
            self.numbers.clear()
        text = _normal(text)
        found = (_ASCII if text.isascii() else WORD).findall(text)
        numbers = self.numbers
        try:
            return [numbers[word] for word in found]
        except KeyError:
            for word in set(found).difference(numbers):
                data = word.encode("utf-8", "surrogatepass")
                numbers[word] = zlib.crc32(data) << 32 | zlib.crc32(data[::-1], len(data))
            return [numbers[word] for word in found]


def _shingles(words: NDArray[np.uint64], ends: NDArray[np.int64]) -> _Shingles:
    """Return the shingles of concatenated texts; a text shorter than RUN words is a
    single shingle.
    """
    sizes = np.diff(ends, prepend=0)
    padded = np.concatenate([words, np.zeros(RUN, np.uint64)])
    last = np.repeat(ends, sizes)  # the end of the text that contains each word
    places = np.arange(len(words))
    values = np.zeros(len(words), np.uint64)
    for shift in range(RUN):
        word = np.where(places + shift < last, padded[shift : shift + len(words)], np.uint64(0))
        values = (values ^ word) * np.uint64(0x9E3779B97F4A7C15)
        values ^= values >> np.uint64(29)
    rows = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    within_text = places - np.repeat(ends - sizes, sizes)
    keep = within_text < np.maximum(np.repeat(sizes, sizes) - RUN + 1, 1)
    flat = np.sort(rows[keep] << np.uint64(40) | values[keep] & HASH)
    flat = flat[np.append(True, flat[1:] != flat[:-1])] if len(flat) else flat
    starts = np.searchsorted(flat, np.arange(len(sizes) + 1, dtype=np.uint64) << np.uint64(40))
    return _Shingles(flat & HASH, starts)


def _near(
    train: Sequence[str], test: Sequence[str], near: float, done: set[int], *, within: bool
) -> list[tuple[int, int, float]]:
    """Return (row of test, row of train, similarity) of the best near copy of each test text that
    has one and is not in `done`.
    """
    hasher = _Hasher()
    asked = list(hasher.chunks(test))
    best: dict[int, tuple[float, int]] = {}
    for train_begin, held in asked if within else hasher.chunks(train):
        table = np.bincount(
            (held.values & BUCKETS).astype(np.int64), minlength=int(BUCKETS) + 1
        ).astype(np.int32)
        for test_begin, queries in asked:
            if within and test_begin < train_begin:
                continue
            for a, b in _candidates(
                queries, held, table, near, test_begin - train_begin if within else None
            ):
                if test_begin + a in done:
                    continue
                likeness = _similarity(queries, a, held, b)
                if likeness >= near:
                    found = (likeness, -(train_begin + b))
                    best[test_begin + a] = max(best.get(test_begin + a, found), found)
    return [(row, -of, round(likeness, 4)) for row, (likeness, of) in sorted(best.items())]


def _candidates(
    queries: _Shingles, held: _Shingles, table: NDArray[np.int32], near: float, offset: int | None
) -> list[tuple[int, int]]:
    """Return the pairs (query row, held row) that share one of the query's rarest shingles.

    table: the number of held shingles in each bucket, an upper bound of the number of equal ones.
    offset: if not None, queries and held texts are from the same list, this far apart, and only
    earlier held texts count.
    """
    sizes = queries.sizes
    owner = queries.rows
    count = table[(queries.values & BUCKETS).astype(np.int64)]
    looked_up = sizes - np.ceil(near * sizes - 1e-9).astype(np.int64) + 1
    novel = np.bincount(owner[count == 0], minlength=len(sizes))
    # If at least as many shingles occur in no held text as are looked up, nothing can be found.
    places = np.flatnonzero((novel < looked_up)[owner])
    order = places[np.lexsort((count[places], owner[places]))]
    sizes = np.where(novel < looked_up, sizes, 0)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    prefix = order[(rank < looked_up[owner[order]]) & (count[order] > 0)]
    in_bucket = np.zeros(int(BUCKETS) + 1, bool)
    in_bucket[(queries.values[prefix] & BUCKETS).astype(np.int64)] = True
    some = np.flatnonzero(in_bucket[(held.values & BUCKETS).astype(np.int64)])
    some = some[np.argsort(held.values[some], kind="stable")]
    values = held.values[some]
    rows = held.rows[some]
    low = np.searchsorted(values, queries.values[prefix], "left")
    n_each = np.minimum(np.searchsorted(values, queries.values[prefix], "right") - low, POSTINGS)
    which = np.arange(n_each.sum()) - np.repeat(np.cumsum(n_each) - n_each, n_each)
    found = rows[np.repeat(low, n_each) + which]
    asking = np.repeat(owner[prefix], n_each)
    if offset is not None:
        earlier = found < asking + offset
        found = found[earlier]
        asking = asking[earlier]
    pairs = (
        np.unique(np.stack([asking, found], 1), axis=0)
        if len(found)
        else np.empty((0, 2), np.int64)
    )
    return [(int(a), int(b)) for a, b in pairs]


def _similarity(queries: _Shingles, a: int, held: _Shingles, b: int) -> float:
    left = queries.values[queries.starts[a] : queries.starts[a + 1]]
    right = held.values[held.starts[b] : held.starts[b + 1]]
    shared = len(np.intersect1d(left, right, assume_unique=True))
    jaccard = shared / (len(left) + len(right) - shared)
    return max(jaccard, shared / len(left)) if len(left) >= CONTAINED_FROM else jaccard
