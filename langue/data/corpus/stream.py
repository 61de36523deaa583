"""Turns tokenized documents into batches of chunks that fill the token budget.

A chunk is a contiguous run of tokens of one document and its own sequence in the batch: there is no
attention across documents and no padding. Documents longer than a block are cut into blocks; for
long ones, the offset of the first cut is drawn anew each epoch. A batch has exactly its budget of
tokens; its last chunk is divided where necessary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Pairs
from langue.data.loader import Rows
from langue.data.pack import BUCKET, exact_bounds
from langue.errors import DataError, SettingsError

Numbers = NDArray[np.int64]
TOGETHER = 1 << 16  # documents that are cut at a time
MANY = 2**31
# blocks; in documents longer than this the cut moves from epoch to epoch, and their first chunk may
# be short
LONG = 8


class Documents(Protocol):
    """What a corpus offers: the tokens of its documents, without special ones."""

    @property
    def lengths(self) -> Numbers:
        """(n,) tokens of each document."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the text, in UTF-8."""

    @property
    def lost_bytes(self) -> float:
        """About how many of them unknown tokens stand for."""

    @property
    def sources(self) -> list[tuple[str, float, int, int]]:
        """(name, weight, first document, one past the last) of each text that was mixed."""

    def tokens(self, documents: Numbers, begin: Numbers, length: Numbers) -> NDArray[np.int32]:
        """The flat run of these chunks."""


@dataclass(frozen=True)
class Chunks:
    """Chunks of a batch: which tokens of which documents."""

    document: Numbers  # (N,)
    begin: Numbers  # (N,)
    length: Numbers  # (N,)
    epoch: int
    # (N,) how often its document was drawn before in this epoch; None: never
    repeat_index: Numbers | None = None

    def __len__(self) -> int:
        return len(self.document)


@dataclass(frozen=True)
class SpecialTokenOverhead:
    """How an objective wraps a chunk: tokens that a document has beside its own, and that every
    chunk gets added.
    """

    # 1: what begins a document is a token of it too, and its end something to predict
    document: int = 0
    chunk: int = 0


Make = Callable[["Documents", Chunks, torch.device], Batch | Pairs]


class Stream:
    """A corpus as a source of batches: every document once an epoch, or as often as its source's
    weight says.
    """

    def __init__(
        self,
        corpus: Documents,
        make: Make,
        overhead: SpecialTokenOverhead,
        *,
        block: int,
        budget: int,
        seed: int,
        ramp: int = 0,
    ) -> None:
        """block: longest chunk; budget: tokens of a batch; ramp: batches over which it grows from
        an eighth.
        """
        if not len(corpus.lengths) or not int(corpus.lengths.sum()):
            raise DataError("the corpus is empty", do="give text with at least one document")
        check_sizes(overhead, block, budget)
        self.corpus = corpus
        self.make = make
        self.overhead = overhead
        self.block = block
        self.seed = seed
        growing = np.linspace(budget // 8, budget, ramp, endpoint=False) if ramp else np.zeros(0)
        self.budgets = np.maximum(block, np.append(growing, budget)).astype(np.int64)
        self._before = [0]  # batches before each epoch, as far as the ramp goes

    def expected(self) -> int:
        """Tokens of an epoch, with what wraps its chunks: the mean over epochs, where weights
        sample some documents.
        """
        size = self.corpus.lengths + self.overhead.document
        wrapped = size + self.overhead.chunk * -(-size // (self.block - self.overhead.chunk))
        return round(
            sum(
                weight * int(wrapped[first:last].sum())
                for _, weight, first, last in self.corpus.sources
            )
        )

    def batches_for(self, tokens: int) -> int:
        """How many batches, from the first on, hold so many tokens."""
        grown = np.cumsum(self.budgets[:-1])
        rest = tokens - int(self.budgets[:-1].sum())
        if rest <= 0:
            return 1 + int(np.searchsorted(grown, tokens)) if len(grown) else 0
        return len(grown) + -(-rest // int(self.budgets[-1]))

    def tokens_in(self, batches: int) -> int:
        """How many tokens so many batches hold."""
        return int(self.budgets[:-1][:batches].sum()) + max(
            0, batches - len(self.budgets) + 1
        ) * int(self.budgets[-1])

    def _budgets(self, epoch: int) -> Numbers:
        """Budgets of an epoch's batches. The ramp goes on where the epoch before left it; how many
        batches that had, planning says.
        """
        while len(self._before) <= epoch and self._before[-1] < len(self.budgets) - 1:
            self.plan(len(self._before) - 1)
        before = self._before[min(epoch, len(self._before) - 1)]
        left: Numbers = self.budgets[min(before, len(self.budgets) - 1) :]
        return left

    def plan(self, epoch: int) -> "BatchSampler":
        """Batches as (N, 4): document, first token, tokens, how often the document was drawn
        before. Chunks of like length meet, their order is random.
        """
        budgets = self._budgets(epoch)
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        document, begin, length, repeat_index = self._chunks(random)
        order = np.arange(len(length), dtype=np.int32 if len(length) < MANY else np.int64)
        random.shuffle(order)
        mean = int(length.sum(dtype=np.int64)) / len(length) + self.overhead.chunk
        stretch = max(1, round(BUCKET * float(budgets[-1]) / max(1.0, mean)))
        for at in range(0, len(order), stretch):
            part = order[at : at + stretch]
            order[at : at + stretch] = part[np.argsort(length[part], kind="stable")]
        document = document[order]  # one after the other, that not all are there twice
        begin = begin[order]
        length = length[order]
        repeat_index = repeat_index[order]
        del order
        # A divided chunk is wrapped twice: room for that is kept, so that no batch exceeds its
        # budget.
        bounds = exact_bounds(length + self.overhead.chunk, budgets - self.overhead.chunk)
        made = BatchSampler(
            document,
            begin,
            length,
            repeat_index,
            *bounds,
            self.overhead.chunk,
            len(budgets) - 1,
            random,
        )
        if len(self._before) == epoch + 1:
            self._before.append(self._before[-1] + len(made))
        return made

    def chunks(self, epoch: int, random: np.random.Generator | None = None) -> Rows:
        """(P, 4): as in a batch, every chunk of an epoch; without `random` cuts stay, and nothing
        is sampled twice.
        """
        return np.stack(self._chunks(random), axis=1).astype(np.int64)

    def _chunks(self, random: np.random.Generator | None) -> tuple[Numbers, ...]:
        """The columns of all chunks (P,), in as few bytes as will do: there may be many
        millions.
        """
        lengths = self.corpus.lengths + self.overhead.document
        documents, copies = self._sample_documents(random)
        there = lengths[documents] > 0
        documents = documents[there]
        copies = copies[there]
        if not len(documents):  # weights may draw none, and every epoch has a step
            documents = np.array([lengths.argmax()])
            copies = np.zeros(1, copies.dtype)
        small = np.int32 if max(len(lengths), int(lengths.max())) < MANY else np.int64
        block = self.block - self.overhead.chunk
        shift: Numbers = (
            np.zeros(len(documents), np.int64)
            if random is None
            else random.integers(0, block, len(documents))
        )
        parts = []
        for at in range(0, len(documents), TOGETHER):
            some = documents[at : at + TOGETHER]
            cut = _cut(lengths[some], block, shift[at : at + TOGETHER])
            repeat_index = copies[at : at + TOGETHER][cut[0]]
            parts.append([*(each.astype(small) for each in (some[cut[0]], *cut[1:])), repeat_index])
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))

    def _sample_documents(
        self, random: np.random.Generator | None
    ) -> tuple[Numbers, NDArray[np.uint16]]:
        """Documents of one epoch, and how often each was drawn before: those of a source with
        weight 1.5 once each, and half of them once more.
        """
        parts = []
        copies = []
        for _, weight, first, last in self.corpus.sources:
            documents = np.arange(first, last)
            times = np.full(len(documents), int(weight))
            if random is not None and weight % 1:
                times += random.random(len(documents)) < weight % 1
            times = times if random is not None else np.ones_like(times)
            parts.append(np.repeat(documents, times))
            before = np.repeat(np.cumsum(times) - times, times)
            # a weight is at most 1000
            copies.append((np.arange(len(before)) - before).astype(np.uint16))
        return np.concatenate(parts), np.concatenate(copies)

    def batch(self, rows: Rows, epoch: int, device: torch.device) -> Batch | Pairs:
        return self.make(
            self.corpus, Chunks(rows[:, 0], rows[:, 1], rows[:, 2], epoch, rows[:, 3]), device
        )


def _cut(size: Numbers, block: int, shift: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Documents of these sizes as chunks: which each is of, its first token, its tokens. shift:
    tokens of a long one's first chunk, a short one before the first whole block.
    """
    shift = np.where(size > LONG * block, shift, 0)
    first = np.where(shift > 0, 1, 0)
    count = first + -(-(size - shift) // block)
    of = np.repeat(np.arange(len(size)), count)
    index = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    begin = np.maximum(0, shift[of] + (index - first[of]) * block)
    end = np.minimum(size[of], shift[of] + (index - first[of] + 1) * block)
    return of, begin, end - begin


class BatchSampler(Sequence[Rows]):
    """The batches of an epoch, each made when it is asked for: only the offsets of its chunks are
    kept.
    """

    def __init__(
        self,
        document: Numbers,
        begin: Numbers,
        length: Numbers,
        repeat_index: Numbers,
        first: Numbers,
        within: Numbers,
        wrap: int,
        ramp: int,
        random: np.random.Generator,
    ) -> None:
        """Chunks (P,) in their order; first, within: see `exact_bounds`; wrap: tokens that each
        chunk gets added; ramp: batches that stay in their places.
        """
        self.document = document
        self.begin = begin
        self.length = length
        self.repeat_index = repeat_index
        self.first = first
        self.within = within
        self.wrap = wrap
        # What holds nothing but the end of what wraps one chunk is no batch.
        goes_on = first[1:] + (within[1:] > 0) > first[:-1] + 1
        there = np.flatnonzero(goes_on | (within[:-1] < length[first[:-1]]))
        self.order = np.concatenate([there[:ramp], random.permutation(there[ramp:])])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        batch = self.order[index]
        low, high = self.within[batch : batch + 2].tolist()
        these = slice(int(self.first[batch]), int(self.first[batch + 1]) + (high > 0))
        text = self.length[these].astype(np.int64)
        since = np.zeros_like(text)
        until = text.copy()
        since[0] = low
        if high:
            until[-1] = min(high, until[-1])
        rows = np.stack(
            [
                self.document[these],
                self.begin[these] + since,
                until - since,
                self.repeat_index[these],
            ],
            axis=1,
        )
        return rows[rows[:, 2] > 0]


def check_sizes(overhead: SpecialTokenOverhead, block: int, budget: int) -> None:
    """SettingsError where a chunk does not go into a batch, or nothing into a chunk."""
    if block > budget:
        raise SettingsError(
            f"train.batch_tokens = {budget} is less than data.seq_len = {block}",
            do=f"set train.batch_tokens to at least {block}",
        )
    if block <= overhead.chunk:
        raise SettingsError(
            f"data.seq_len = {block} leaves no room for text", do=f"set it above {overhead.chunk}"
        )


def uniform(
    seed: int, salt: int, chunks: Chunks, places: Numbers, of: Numbers
) -> NDArray[np.float64]:
    """A number in [0, 1) for each token: a function of (seed, salt, epoch, document, its repeat
    index, place in it) and of nothing else.

    So what is masked does not depend on what a token is batched with, or on the number of
    processes. splitmix64 (Steele, Lea and Flood 2014), over the mixed coordinates. places: (T,)
    tokens' places in their documents; of: (T,) which chunk each is of.
    """
    with np.errstate(over="ignore"):
        x = np.full(
            len(places),
            np.uint64((seed * 1_000_003 + salt * 7919 + chunks.epoch * 104_729) % (1 << 64)),
        )
        if chunks.repeat_index is not None:
            x += np.uint64(0xD1B54A32D192ED03) * chunks.repeat_index[of].astype(np.uint64)
        for part in (chunks.document[of], places):
            x = _mixed(x + np.uint64(0x9E3779B97F4A7C15) * (part.astype(np.uint64) + np.uint64(1)))
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def places_of(chunks: Chunks) -> tuple[Numbers, Numbers]:
    """Each token's place in its document, and which chunk it is of: both (T,)."""
    of = np.repeat(np.arange(len(chunks)), chunks.length)
    within = np.arange(len(of)) - np.repeat(np.cumsum(chunks.length) - chunks.length, chunks.length)
    return chunks.begin[of] + within, of
