"""Two parts of a chunk of text, for a model to say whether the second follows the first.

next (Devlin et al. 2018, arXiv:1810.04805): half of the second parts are another document's; order
(Lan et al. 2019, arXiv:1909.11942): half of the chunks have their parts exchanged. What is drawn
depends on the seed, the epoch and the chunk alone, as what is masked does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langue.data.corpus.stream import Chunks, Documents, Numbers, places_of, uniform

# BERT's labels; of a chunk that cannot be answered for, nothing is asked
FOLLOWS = 0
DOES_NOT = 1
NOT_ASKED = -1
CUT = 11
FATE = 12
OTHER = 13
WHERE = 14  # what a chunk's random numbers are for


@dataclass(frozen=True)
class Parts:
    """N chunks of T tokens, each in two parts."""

    text: NDArray[np.int32]  # (T,) as it stood, or with another document's tokens in second parts
    cut: Numbers  # (N,) where in its chunk of the text the second part begins
    first: Numbers  # (N,) tokens of the part that is read first
    order: Numbers  # (T,) which token of the text is read at each place
    label: Numbers  # (N,)


class Pairs:
    def __init__(self, kind: str, seed: int) -> None:
        self.kind = kind
        self.seed = seed
        # what `_by_length` found last
        self.known: tuple[Documents, tuple[Numbers, Numbers, Numbers]] | None = None

    def parts(self, corpus: Documents, text: NDArray[np.int32], chunks: Chunks) -> Parts:
        size = chunks.length
        cut = 1 + (self._drawn(CUT, chunks) * (size - 1)).astype(np.int64)
        fate = (self._drawn(FATE, chunks) < 0.5).astype(np.int64)
        label: Numbers = np.where(size < 2, NOT_ASKED, fate)
        if self.kind == "next":
            text, label = self._replaced(corpus, text, chunks, cut, label)
        exchanged = (label == DOES_NOT) & (self.kind == "order")
        begin = np.cumsum(size) - size
        (_, of) = places_of(chunks)  # (T,) the chunk that each token is of
        shift = np.where(exchanged, cut, 0)  # (N,) the second part first is a rotation
        place = np.arange(len(of)) - begin[of]  # (T,) in its chunk
        moved: Numbers = place + shift[of]
        order = begin[of] + np.mod(moved, size[of])
        first = np.where(exchanged, size - cut, cut)
        return Parts(text, cut, first, order, label)

    def _drawn(self, salt: int, chunks: Chunks) -> NDArray[np.float64]:
        """A number in [0, 1) for each chunk."""
        return uniform(self.seed, salt, chunks, chunks.begin, np.arange(len(chunks)))

    def _replaced(
        self,
        corpus: Documents,
        text: NDArray[np.int32],
        chunks: Chunks,
        cut: Numbers,
        label: Numbers,
    ) -> tuple[NDArray[np.int32], Numbers]:
        """Second parts from another document that is long enough; where there is none, nothing is
        asked.

        What is put in ends its document where what it replaces did, and never begins it: else the
        full stop at the end of a text would give the answer away.
        """
        order, rank, sizes = self._by_length(corpus)
        lengths = corpus.lengths
        rest = chunks.length - cut
        ends = chunks.begin + chunks.length == lengths[chunks.document]
        least = rest + np.where(ends, 1, 2)
        lowest = np.searchsorted(sizes, least)
        others = len(order) - lowest - 1  # the chunk's own document is long enough, and is left out
        place = lowest + (self._drawn(OTHER, chunks) * others).astype(np.int64)
        place += place >= rank[chunks.document]
        label = np.where(others == 0, NOT_ASKED, label)
        away = np.flatnonzero(label == DOES_NOT)
        other = order[np.minimum(place, len(order) - 1)]
        last = lengths[other] - rest
        within = 1 + (self._drawn(WHERE, chunks) * (last - 1)).astype(np.int64)
        begin = np.where(ends, last, within)
        out = text.copy()
        stop = np.cumsum(chunks.length)
        tails = [np.arange(stop[n] - rest[n], stop[n]) for n in away]
        if tails:
            out[np.concatenate(tails)] = corpus.tokens(other[away], begin[away], rest[away])
        return out, label

    def _by_length(self, corpus: Documents) -> tuple[Numbers, Numbers, Numbers]:
        """A corpus's documents in order of length, each document's place in that order, and the
        lengths in order.
        """
        if self.known is None or self.known[0] is not corpus:
            order = np.argsort(corpus.lengths, kind="stable")
            self.known = corpus, (order, np.argsort(order), corpus.lengths[order])
        return self.known[1]
