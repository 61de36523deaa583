"""The n-gram baseline of language models: trained on documents, evaluated on held-out documents.

Interpolated Kneser-Ney smoothing (Kneser and Ney 1995) with three discounts (Chen and Goodman 1998,
section 3): where language modelling began, and an honest lower bar for models that take hours to
train. With a(g) the count of an n-gram g,

    p(w | c) = (a(cw) - D(a(cw))) / A(c) + gamma(c) p(w | c without its first token)

where A(c) sums a(cw) over w, gamma(c) redistributes the mass that the discounts D took, and the
last p is uniform. Below the highest order, a(g) counts the distinct tokens seen before g rather
than its occurrences, except if g begins a document, since nothing precedes it (Heafield et al.
2013, section 3).

A document t1 ... tn is read as b t1 ... tn e; t1 to e are predicted, but never b, which is not in
the vocabulary.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.errors import DataError, SettingsError

Tokens = NDArray[Any]  # any integers
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Places = NDArray[np.int32]

WORKING = 44  # bytes for each token while an order is counted: keys, their order and ranks
# maximum bytes for each n-gram: its key, weight and share, and temporarily its count and context
KEPT = 32
FALLBACK = (0.5, 1.0, 1.5)  # discounts if the counts of counts do not give valid ones, as in KenLM
CHUNK = 1 << 20  # number of tokens evaluated at once
BLOCK = 1 << 20  # number of tokens sorted at once


@dataclass(frozen=True)
class Level:
    """The n-grams of one order, sorted by key.

    key = rank of the n-gram without its first token, among those of the order below, times the
    number of symbols, plus its first token. Unigrams have no keys: their ranks are the tokens.
    """

    keys: Ints  # (n,)
    weight: Floats  # (n,) (a - D(a)) / A
    # (n-grams of the order below,) gamma of each as a context; 1 if nothing followed it
    share: Floats


@dataclass(frozen=True)
class KneserNey:
    """The trained n-gram model."""

    order: int
    vocab_size: int
    eos: int | None  # predicted after the last token of a document; None: the end is not predicted
    levels: list[Level]
    tokens: int  # number of training tokens
    note: str  # says what was left out

    @property
    def ngrams(self) -> int:
        return sum(int(np.count_nonzero(level.weight)) for level in self.levels)

    def log_probabilities(self, tokens: Tokens, starts: Tokens) -> Floats:
        """Return the log probability of each token and of the end of each document, in order.

        Shape (tokens + documents,), or (tokens,) without an end symbol.
        """
        stream = _stream(tokens, starts, self.vocab_size, self.eos)
        out = np.empty(len(stream))
        for begin in range(0, len(stream), CHUNK):
            first = max(0, begin - self.order + 1)
            part = self._probabilities(stream[first : begin + CHUNK].astype(np.int64))
            out[begin : begin + CHUNK] = part[begin - first :]
        logs: Floats = np.log(out[stream != self.vocab_size])
        return logs

    def _probabilities(self, stream: Ints) -> Floats:
        """Return the probability of each symbol given those before it; that of begin symbols is
        meaningless.
        """
        symbols = self.vocab_size + 1
        unigrams = self.levels[0]
        p: Floats = unigrams.weight[stream] + unigrams.share[0] / self.vocab_size
        # rank of the n-gram of the order below that ends at each position; -1: not seen, or it
        # would cross the beginning of the document
        ranks = stream
        for order, level in enumerate(self.levels[1:], 2):
            context = np.concatenate([[-1], ranks[:-1]])
            context[stream == self.vocab_size] = -1
            left = np.concatenate([np.full(order - 1, -1), stream[: 1 - order]])[: len(stream)]
            ranks = _find(
                level.keys, np.where((ranks >= 0) & (left >= 0), ranks * symbols + left, -1)
            )
            p = np.where(context >= 0, level.share[context] * p, p)
            p += np.where((ranks >= 0) & (context >= 0), level.weight[ranks], 0.0)
        return p


@dataclass(frozen=True)
class Baseline:
    """The results of an n-gram model on held-out text."""

    model: KneserNey
    order: int
    cross_entropy: float  # nats per prediction
    perplexity: float
    predictions: int
    ngrams: int
    seconds: float
    tokens: int  # number of training tokens
    note: str
    document_losses: Floats  # (documents,) in nats, summed over the predictions of a document
    document_counts: Ints  # (documents,) number of predictions

    @property
    def name(self) -> str:
        return f"{self.order}-gram Kneser-Ney"


def baseline(
    train: tuple[Tokens, Tokens],
    dev: tuple[Tokens, Tokens],
    *,
    vocab_size: int,
    eos: int | None,
    order: int = 5,
    limit: int | None = None,
    memory: int = 4 * 2**30,
) -> Baseline:
    """Train on (tokens, starts) and evaluate on others; `starts` has one more entry than there are
    documents.
    """
    began = time.perf_counter()
    model = fit(*train, vocab_size=vocab_size, eos=eos, order=order, limit=limit, memory=memory)
    logs = model.log_probabilities(*dev)
    if not len(logs):
        raise DataError("there is no held-out text to judge the n-gram model on")
    mean = -float(logs.mean())
    starts = np.asarray(dev[1], np.int64)
    counts: Ints = starts[1:] - starts[:-1] + (eos is not None)
    documents = np.repeat(np.arange(len(counts)), counts)
    losses: Floats = np.bincount(documents, weights=-logs, minlength=len(counts)).astype(np.float64)
    return Baseline(
        model=model,
        order=model.order,
        cross_entropy=mean,
        perplexity=math.exp(mean),
        predictions=len(logs),
        ngrams=model.ngrams,
        seconds=time.perf_counter() - began,
        tokens=model.tokens,
        note=model.note,
        document_losses=losses,
        document_counts=counts,
    )


def fit(
    tokens: Tokens,
    starts: Tokens,
    *,
    vocab_size: int,
    eos: int | None,
    order: int = 5,
    limit: int | None = None,
    memory: int = 4 * 2**30,
) -> KneserNey:
    """Train the model on tokens (T,) of documents that begin at `starts` (documents + 1,).

    limit: use the first so many tokens only. memory: in bytes; if an order might need more, the
    model ends below it, and its `note` says so.
    """
    if order < 1:
        raise SettingsError(
            f"an n-gram model of order {order} does not exist", do="give at least 1"
        )
    notes = []
    cut = False
    if limit is not None and limit < len(tokens):
        if limit < 1:
            raise SettingsError(
                f"an n-gram model of {limit} tokens knows nothing", do="give a limit of at least 1"
            )
        notes.append(f"counted on the first {limit:,} of {len(tokens):,} tokens")
        inside = np.asarray(starts[: np.searchsorted(starts, limit)], np.int64)
        cut = limit not in starts
        tokens = tokens[:limit]
        starts = np.append(inside, limit)
    stream = _stream(tokens, starts, vocab_size, eos)
    if cut and eos is not None:
        stream = stream[:-1]  # the last document was truncated, so it has no end here
    predicted = int(np.count_nonzero(stream != vocab_size))
    if not predicted:
        raise DataError("there is no text to count n-grams in")
    levels, ended = _count(stream, vocab_size, order, memory)
    if ended:
        notes.append(f"order {len(levels)} instead of {order}: {ended}")
    return KneserNey(len(levels), vocab_size, eos, levels, len(tokens), "; ".join(notes))


def _stream(tokens: Tokens, starts: Tokens, vocab_size: int, eos: int | None) -> Places:
    """Return b t1 ... tn e of all documents, concatenated; b is `vocab_size`."""
    starts = np.asarray(starts, np.int64)
    if (
        len(starts) < 1
        or starts[0] != 0
        or starts[-1] != len(tokens)
        or np.any(np.diff(starts) < 0)
    ):
        raise DataError(f"the documents' starts do not fit {len(tokens):,} tokens")
    if eos is not None and not 0 <= eos < vocab_size:
        raise SettingsError(f"the end symbol {eos} is not in a vocabulary of {vocab_size:,}")
    documents = len(starts) - 1
    added = 1 if eos is None else 2
    stream = np.empty(len(tokens) + added * documents, np.int32)
    inside = np.ones(len(stream), bool)
    begins = starts[:-1] + added * np.arange(documents)
    ends = starts[1:] + added * np.arange(1, documents + 1) - 1
    inside[begins] = False
    stream[begins] = vocab_size
    if eos is not None:
        inside[ends] = False
        stream[ends] = eos
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        raise DataError(f"a token is not in the vocabulary of {vocab_size:,}")
    stream[inside] = tokens
    return stream


@dataclass
class _Counted:
    """An order with its counts; the weights depend on the order above."""

    keys: Ints
    counts: Ints  # (n,)
    contexts: Places  # (n,) rank of the context of each, an n-gram of the order below
    below: int  # number of n-grams of the order below


def _count(stream: Places, vocab_size: int, order: int, memory: int) -> tuple[list[Level], str]:
    """Return the levels from order 1 up, and the reason if there are fewer than `order`."""
    symbols = vocab_size + 1
    counts = np.bincount(stream, minlength=symbols)
    counts[vocab_size] = 0  # begin symbols are not predicted
    last = _Counted(np.zeros(0, np.int64), counts, np.zeros(symbols, np.int32), 1)
    levels: list[Level] = []
    ranks = stream  # (M,) rank of the n-gram that ends at each position
    # positions at which n-grams of the order below end, sorted by their ranks
    places = np.argsort(stream, kind="stable").astype(np.int32)
    kept = 0
    ended = ""
    for n in range(2, order + 1):
        places = places[stream[places - n + 2] != vocab_size]  # nothing precedes a begin symbol
        if not len(places):
            ended = "no document is longer"
            break
        most = min(len(places), len(last.counts) * symbols)
        if (
            kept + KEPT * (most + len(last.counts)) + WORKING * len(places) + 8 * len(stream)
            > memory
        ):
            ended = f"more might not fit in {memory / 2**20:,.0f} MiB"
            break
        keys, occurrences, contexts, above, places = _ranked(stream, ranks, places, n, symbols)
        # N-grams at the beginning of a document keep their count of occurrences; all others are
        # replaced by the count of distinct tokens before them.
        different = np.bincount(keys // symbols, minlength=len(last.counts))
        first = last.keys % symbols == vocab_size if n > 2 else np.zeros(symbols, bool)
        different[first] = last.counts[first]
        levels.append(_weighed(last, different))
        kept += sum(
            array.nbytes for array in (levels[-1].keys, levels[-1].weight, levels[-1].share)
        )
        last = _Counted(keys, occurrences, contexts, len(last.counts))
        ranks = above
    return [*levels, _weighed(last, last.counts)], ended


def _ranked(
    stream: Places, ranks: Places, places: Places, n: int, symbols: int
) -> tuple[Ints, Ints, Places, Places, Places]:
    """Return the keys of the n-grams that end at `places`, their counts, the ranks of their
    contexts, the rank at each position of the stream, and the positions sorted by these ranks.
    """
    below = ranks[places]
    left = stream[places - n + 1]
    new = np.empty(len(places), bool)
    begin = 0
    while begin < len(places):
        # Positions with equal ranks are adjacent already; runs of them remain to be sorted by the
        # preceding token.
        end = int(np.searchsorted(below, below[min(begin + BLOCK, len(places)) - 1], "right"))
        part = slice(begin, end)
        order, new[part] = _sorted(below[part] - below[begin], left[part], symbols)
        places[part] = places[part][order]
        left[part] = left[part][order]
        below[part] = below[part][order]
        begin = end
    firsts = np.flatnonzero(new)
    keys = below[firsts].astype(np.int64) * symbols + left[firsts]
    contexts = ranks[places[firsts] - 1]
    above = np.full(len(stream), -1, np.int32)
    above[places] = np.cumsum(new, dtype=np.int32) - np.int32(1)
    return keys, np.diff(firsts, append=len(new)), contexts, above, places


def _sorted(ranks: Places, left: Places, symbols: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the order by rank and then by symbol, and a mask of where in that order either
    changes.

    Key and index are packed into one integer if they fit, since sorting numbers is many times
    faster than sorting indices.
    """
    keys = ranks.astype(np.int64) * symbols + left
    bits = (len(keys) - 1).bit_length()
    if (int(ranks[-1]) + 1) * symbols < 1 << (63 - bits):
        keys = (keys << bits) | np.arange(len(keys))
        keys.sort()
        order = keys & ((1 << bits) - 1)
        keys >>= bits
    else:
        order = np.argsort(keys)
        keys = keys[order]
    return order, np.concatenate([[True], keys[1:] != keys[:-1]])


def _weighed(counted: _Counted, a: Ints) -> Level:
    """Return the discounted counts divided by the totals of their contexts, and the mass that each
    context leaves to the order below.
    """
    discount = np.asarray([0.0, *discounts(a)])
    taken = discount[np.minimum(a, 3)]
    totals = np.bincount(counted.contexts, weights=a, minlength=counted.below)
    gave = np.bincount(counted.contexts, weights=taken, minlength=counted.below)
    followed = totals > 0
    share = np.divide(gave, totals, out=np.ones(counted.below), where=followed)
    weight = np.subtract(a, taken, out=taken)
    weight /= np.where(followed, totals, 1.0)[counted.contexts]
    return Level(counted.keys, weight, share)


def discounts(counts: Ints) -> tuple[float, float, float]:
    """Return the discounts of n-grams counted once, twice, and more often (Chen and Goodman 1998,
    equation 17).
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    # An order must leave some mass to the order below, or unseen n-grams would have probability 0.
    return found if all(0 < d <= count for count, d in enumerate(found, 1)) else FALLBACK


def _find(keys: Ints, queries: Ints) -> Ints:
    """Return the index of each query, or -1."""
    found = np.full(len(queries), -1)
    places = np.flatnonzero(queries >= 0)
    if len(keys) and len(places):
        # sorted queries make the binary searches access neighbouring keys
        places = places[np.argsort(queries[places])]
        at = np.minimum(np.searchsorted(keys, queries[places]), len(keys) - 1)
        found[places] = np.where(keys[at] == queries[places], at, -1)
    return found
