"""95% intervals of a metric of n examples.

The interval of a share of examples is exact (Clopper and Pearson 1934); that of other metrics is a
percentile bootstrap over examples (Efron 1979). If all resamples are equal, at an end of the range,
it is bounded by the smallest number of examples that could have changed the metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from scipy.special import betaincinv

from langue.statistics import metrics as m

RESAMPLES = 1000
# number of weights in memory at once, so that memory does not grow with the split
CHUNK = 2_000_000
_TAIL = 0.025  # probability on either side of a 95% interval
_SIGNED = frozenset({"mcc", "pearson", "spearman"})  # from -1 to 1
_REAL = frozenset({"margin"})  # any real number
# all other metrics are shares
_UNBOUNDED = frozenset({"mse", "loss", "perplexity", "bits_per_byte"})

Interval = tuple[float, float]
Counts = dict[str, int | m.Ints]


def bootstrap(
    measure: m.Measure,
    metrics: m.Metrics,
    n: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
    counts: Mapping[str, int | m.Ints] = MappingProxyType({}),
) -> dict[str, Interval | None]:
    """Return the 95% interval of each metric over the resamples in which it is defined; `None` if
    none can be computed.

    counts: the number of examples that a metric is based on, if it is not n (see `at_end`).
    """
    generator = np.random.default_rng(seed)
    resampled: dict[str, list[m.Floats]] = {name: [] for name in metrics}
    for columns in chunks(n, resamples):
        weights = drawn(generator, np.ones(n, np.int64), columns)
        for name, values in measure(weights).items():
            resampled[name].append(values)
    intervals: dict[str, Interval | None] = {}
    for name, value in metrics.items():
        found = np.concatenate(resampled[name])
        found = found[np.isfinite(found)]
        if value is None or not found.size:
            intervals[name] = None
            continue
        if name == "calibration_error":
            # The absolute value of noise is never negative, so resampling increases this metric:
            # without recentring, the interval of a well calibrated model would lie above the metric
            # itself.
            found = np.maximum(found - found.mean() + value, 0.0)
        low, high = np.percentile(found, (2.5, 97.5))
        if high - low < 1e-9:
            low, high = at_end(name, round(value, 9), counts.get(name, n))
        intervals[name] = (float(low), float(high)) if low < high else None
    return intervals


def clopper_pearson(right: int, total: int) -> Interval:
    """Return the exact 95% interval of a share (Clopper and Pearson 1934); of zero
    trials, 0 to 1.
    """
    low = float(betaincinv(right, total - right + 1, _TAIL)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, total - right, 1 - _TAIL)) if right < total else 1.0
    return low, high


def wilson(right: float, total: float) -> Interval | None:
    """Return Wilson's 95% interval of a share (1927); None for zero trials."""
    if not total:
        return None
    z = 1.959963984540054
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = share * (1 - share) / total + z * z / (4 * total * total)
    reach = z * math.sqrt(spread) / (1 + z * z / total)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def bounds(name: str) -> Interval:
    """Return the minimum and maximum possible values of a metric."""
    if name in _REAL:
        return -math.inf, math.inf
    low = -1.0 if name in _SIGNED else 0.0
    if name in m.OF_HUNDRED:
        return low, 100.0
    return low, math.inf if name in _UNBOUNDED else 1.0


def at_end(name: str, value: float, count: int | m.Ints) -> Interval:
    """Return the interval of a metric at the end of its range, for which all resamples are equal;
    the value itself, twice, if it is not at an end.

    count: the number of examples that the metric is based on, or for a macro average the numbers
    (C,) for each label's part. The interval is exact for shares and their macro averages, and
    approximate for F1; other metrics get the same fraction of their range.
    """
    bottom, top = bounds(name)
    if math.isinf(top):
        return value, value
    shares = lowest_shares(np.atleast_1d(count))
    # F1 as a function of the share of right ones among the examples that have the label or are
    # predicted to, as in positive_intervals
    if name == "f1_macro":
        low = (2 * shares / (1 + shares)).mean()
        high = (2 * (1 - shares) / (2 - shares)).mean()
    else:
        low = shares.mean()
        high = (1 - shares).mean()
    room_below = (top - bottom) * (1.0 - low)
    room_above = (top - bottom) * high
    return value - room_below * (value == top), value + room_above * (value == bottom)


def lowest_shares(counts: m.Ints) -> m.Floats:
    """Return the true shares with the lowest mean for which the probability that all trials succeed
    is at least 2.5%.

    counts[c]: the number of trials of each label c; the share of a label without trials is 0. The
    mean is lowest if each share is proportional to its count, as far as that is below 1: so a label
    with few trials may be far from perfect. For a single label this is the lower bound of Clopper
    and Pearson.
    """
    ascending = np.sort(counts[counts > 0]).astype(np.float64)
    if not ascending.size:
        return np.zeros(len(counts))
    # If the k smallest are below 1: sum of n log(scale n) over these is log 2.5%.
    trials = np.cumsum(ascending)
    scales = np.exp((math.log(_TAIL) - np.cumsum(ascending * np.log(ascending))) / trials)
    below = int((scales * ascending < 1).sum())
    shares: m.Floats = np.minimum(1.0, scales[below - 1] * counts)
    return shares


def drawn(generator: np.random.Generator, sizes: m.Ints, columns: int) -> m.Floats:
    """Return how often each of K kinds of examples, sizes (K,), is drawn in each resample, (K,
    columns).

    Each column has as many draws with replacement as there are examples.
    """
    n = int(sizes.sum())
    kinds = len(sizes)
    if n > 4 * kinds:
        return generator.multinomial(n, sizes / n, size=columns).T.astype(np.float64)
    kind = np.repeat(np.arange(kinds), sizes)  # the kind of each example
    cells = kind[generator.integers(0, n, size=(n, columns))] * columns + np.arange(columns)
    counts = np.bincount(cells.ravel(), minlength=kinds * columns)
    return counts.reshape(kinds, columns).astype(np.float64)


def chunks(rows: int, resamples: int) -> Iterator[int]:
    """Yield the numbers of resamples with this many rows that fit into memory at once."""
    size = max(1, CHUNK // rows)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
