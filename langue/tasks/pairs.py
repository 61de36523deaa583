"""Sentence-pair objectives of masked pretraining: split each chunk into two parts, for the model to
predict whether the second follows the first.

next (Devlin et al. 2018, arXiv:1810.04805): half of the second parts come from another document.
order (Lan et al. 2019, arXiv:1909.11942): half of the chunks have their parts swapped. All draws
depend only on the seed, the epoch and the chunk, like the masks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langue.data.corpus.stream import Chunks, Documents, Numbers, places_of, uniform

# BERT's labels; NOT_ASKED marks chunks without a pair loss
FOLLOWS = 0
DOES_NOT = 1
NOT_ASKED = -1
CUT = 11
FATE = 12
OTHER = 13
WHERE = 14  # the purposes of a chunk's random numbers


@dataclass(frozen=True)
class Parts:
    """N chunks with T tokens, each split into two parts."""

    text: NDArray[np.int32]  # (T,) as in the documents, or with second parts from other documents
    cut: Numbers  # (N,) offset in the chunk's text at which the second part starts
    first: Numbers  # (N,) tokens of the part that comes first in the input
    order: Numbers  # (T,) index of the text's token at each input position
    label: Numbers  # (N,)


class Pairs:
    def __init__(self, kind: str, seed: int) -> None:
        self.kind = kind
        self.seed = seed
        # the last result of `_by_length`
        self.known: tuple[Documents, tuple[Numbers, Numbers, Numbers]] | None = None

    def parts(self, corpus: Documents, text: NDArray[np.int32], chunks: Chunks) -> Parts:
        size = chunks.length
        cut = 1 + (self._drawn(CUT, chunks) * (size - 1)).astype(np.int64)
        fate = (self._drawn(FATE, chunks) < 0.5).astype(np.int64)
        label: Numbers = np.where(size < 2, NOT_ASKED, fate)
        if self.kind == "next":
            text, label = self._with_other_documents(corpus, text, chunks, cut, label)
        exchanged = (label == DOES_NOT) & (self.kind == "order")
        begin = np.cumsum(size) - size
        (_, of) = places_of(chunks)  # (T,) chunk of each token
        shift = np.where(exchanged, cut, 0)  # (N,) swapping the two parts is a rotation
        place = np.arange(len(of)) - begin[of]  # (T,) position in its chunk
        moved: Numbers = place + shift[of]
        order = begin[of] + np.mod(moved, size[of])
        first = np.where(exchanged, size - cut, cut)
        return Parts(text, cut, first, order, label)

    def _drawn(self, salt: int, chunks: Chunks) -> NDArray[np.float64]:
        """Draw a number in [0, 1) for each chunk."""
        return uniform(self.seed, salt, chunks, chunks.begin, np.arange(len(chunks)))

    def _with_other_documents(
        self,
        corpus: Documents,
        text: NDArray[np.int32],
        chunks: Chunks,
        cut: Numbers,
        label: Numbers,
    ) -> tuple[NDArray[np.int32], Numbers]:
        """Replace second parts by text of another document; chunks for which no document is long
        enough get the label NOT_ASKED.

        The replacement ends its document if and only if the original did, and never starts it;
        otherwise the full stop at the end of a text would give the label away.
        """
        order, rank, sizes = self._by_length(corpus)
        lengths = corpus.lengths
        rest = chunks.length - cut
        ends = chunks.begin + chunks.length == lengths[chunks.document]
        least = rest + np.where(ends, 1, 2)
        lowest = np.searchsorted(sizes, least)
        # excludes the chunk's own document, which is always long enough
        others = len(order) - lowest - 1
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
        """Return the documents sorted by length, each document's rank, and the sorted lengths."""
        if self.known is None or self.known[0] is not corpus:
            order = np.argsort(corpus.lengths, kind="stable")
            self.known = corpus, (order, np.argsort(order), corpus.lengths[order])
        return self.known[1]
