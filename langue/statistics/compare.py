"""Paired comparison of a model and its baseline on the same examples: by how much the model is
better, and whether the difference may be due to chance.

Two intervals, one for each system, cannot show that: most examples are easy or hard for both, so
that the difference varies much less, or much more, than the intervals suggest. Two paired methods
can:

- A randomisation test (Noreen 1989; Yeh 2000, arXiv:cs/0008005). If the systems were equal, it
  would be chance which of them gave which of the two answers to an example: the answers are
  exchanged at random, and the resulting differences are counted. For a share of right answers,
  this is McNemar's test (1947), which is computed exactly.
- A paired bootstrap (Efron and Tibshirani 1993): the difference over resampled examples. It is
  also valid for systems that are equal in the metric but differ in kind, for which exchanged
  answers are not representative.

A system is called better only if both methods agree, each at the 5% level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from langue.statistics import metrics as m
from langue.statistics.intervals import RESAMPLES, Interval, chunks, drawn

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """The difference of a metric, model minus baseline, over the same examples."""

    metric: str
    difference: float
    interval: Interval | None  # 95% interval of the difference; None: undefined in every resample
    p_value: float  # two-sided: how often equal systems would differ as much
    examples: int

    def as_json(self) -> dict[str, Any]:
        """Return what metrics.json stores beside the baseline's metrics."""
        return {
            "metric": self.metric,
            "difference": self.difference,
            "interval": list(self.interval) if self.interval else None,
            "p_value": self.p_value,
            "examples": self.examples,
        }


@dataclass(frozen=True)
class Systems:
    """The answers of both systems to K kinds of examples, as measures of how often each kind
    counts.
    """

    model: m.Measure  # of weights (K, R)
    baseline: m.Measure  # of weights (K, R)
    mixed: m.Measure  # of weights (2K, R): for the model's answers, then for the baseline's
    sizes: m.Ints  # (K,) number of examples of each kind
    exact_p_value: float | None = None  # given if no random exchanges are needed


def systems_of(model: m.Measure, baseline: m.Measure, mixed: m.Measure, n: int) -> Systems:
    """Return two systems that answered n examples, each a kind of its own."""
    return Systems(model, baseline, mixed, np.ones(n, np.int64))


def systems_of_scores(
    true: npt.ArrayLike, model: npt.ArrayLike, baseline: npt.ArrayLike, metric: str
) -> Systems:
    """Return two systems that gave n examples a score, compared by one of `metrics.REGRESSION`.

    true, model, baseline: (n,). Each score is a kind of its own. Exchanged scores must be on one
    scale: for a correlation these are ranks or standard scores, since the scale of a system's
    scores does not affect its correlation.
    """
    true, first = m.check_regression(true, model)
    _, second = m.check_regression(true, baseline)
    if metric not in m.REGRESSION:
        raise ValueError(f"{metric!r} is none of {', '.join(m.REGRESSION)}")
    of_model = m.regression_measure(true, first, (metric,))
    of_baseline = m.regression_measure(true, second, (metric,))
    scale = {"spearman": _ranks, "pearson": _standard}.get(metric, np.asarray)
    scaled_true = scale(true)
    scaled = np.concatenate([scale(first), scale(second)])
    # Spearman's correlation is Pearson's of ranks; exchanged answers are not ranked again.
    of_exchanged = "pearson" if metric == "spearman" else metric
    both = np.concatenate([scaled_true, scaled_true])
    measure = m.regression_measure(both, scaled, (of_exchanged,))

    def mixed(weights: m.Floats) -> dict[str, m.Floats]:
        return {metric: measure(weights)[of_exchanged]}

    return systems_of(of_model, of_baseline, mixed, len(true))


def _ranks(values: m.Floats) -> m.Floats:
    """Return the standardised mean rank of each value among all, (N,)."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes - 1) / 2
    return _standard(middle[group])


def _standard(values: m.Floats) -> m.Floats:
    """Return the values minus their mean, divided by their standard deviation unless that is 0."""
    spread = float(values.std())
    standard: m.Floats = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return standard


def compare_documents(
    model: tuple[m.Floats, m.Ints],
    baseline: tuple[m.Floats, m.Ints],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison | None:
    """Compare two language models by their mean loss.

    Each is given as the summed losses and the numbers of predictions of the same D documents, both
    (D,).
    """

    def measure(losses: m.Floats, counts: m.Ints) -> m.Measure:
        def mean_loss(weights: m.Floats) -> dict[str, m.Floats]:
            predictions = counts @ weights  # (R,)
            return {"loss": losses @ weights / np.where(predictions > 0, predictions, np.nan)}

        return mean_loss

    losses = np.concatenate([model[0], baseline[0]])
    counts = np.concatenate([model[1], baseline[1]])
    sizes = np.ones(len(model[0]), np.int64)
    systems = Systems(measure(*model), measure(*baseline), measure(losses, counts), sizes)
    return compare_systems(systems, "loss", resamples, seed)


def compare_systems(
    systems: Systems, metric: str, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison | None:
    """Return the difference in `metric`, its interval and its p-value; `None` if it is
    undefined.
    """
    whole = systems.sizes[:, None].astype(np.float64)  # (K, 1)
    of_model = systems.model(whole)
    of_baseline = systems.baseline(whole)
    if metric not in of_model:
        return None
    difference = float((of_model[metric] - of_baseline[metric])[0])
    if not np.isfinite(difference):
        return None
    p_value = systems.exact_p_value
    if p_value is None:
        p_value = _randomisation(systems, metric, difference, resamples, seed)
    return Comparison(
        metric=metric,
        difference=difference,
        interval=_interval(systems, metric, resamples, seed),
        p_value=p_value,
        examples=int(systems.sizes.sum()),
    )


def outcome(comparison: dict[str, Any]) -> str:
    """Return whether the model of a `Comparison.as_json` is better, worse, or not distinguishable
    (same).
    """
    interval = comparison["interval"]
    if comparison["p_value"] > LEVEL or interval is None or interval[0] <= 0 <= interval[1]:
        return "same"
    rises = comparison["difference"] > 0
    return "better" if rises != (comparison["metric"] in m.LOWER_IS_BETTER) else "worse"


# --- the two methods ---


def _interval(systems: Systems, metric: str, resamples: int, seed: int) -> Interval | None:
    generator = np.random.default_rng(seed)
    gains = []
    for columns in chunks(len(systems.sizes), resamples):
        weights = drawn(generator, systems.sizes, columns)
        gains.append(systems.model(weights)[metric] - systems.baseline(weights)[metric])
    differences = np.concatenate(gains)
    differences = differences[np.isfinite(differences)]
    if not differences.size:
        return None
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def _randomisation(
    systems: Systems, metric: str, difference: float, resamples: int, seed: int
) -> float:
    """Return the share of random exchanges with a difference at least as large, including the
    observed one.
    """
    generator = np.random.default_rng(seed)
    sizes = systems.sizes[:, None]
    as_large = 1
    for columns in chunks(2 * len(sizes), resamples):
        kept = _kept(generator, sizes, columns)
        exchanged = sizes - kept
        first = systems.mixed(np.concatenate([kept, exchanged]))[metric]
        second = systems.mixed(np.concatenate([exchanged, kept]))[metric]
        # An undefined difference counts as a large one, which is conservative.
        as_large += int((~(np.abs(first - second) < abs(difference) - 1e-12)).sum())
    return as_large / (resamples + 1)


def _kept(generator: np.random.Generator, sizes: m.Ints, columns: int) -> m.Floats:
    """Return for how many examples of each kind (K, 1) the answers are not exchanged,
    (K, columns).
    """
    shape = (len(sizes), columns)
    if int(sizes.max()) == 1:
        return generator.integers(0, 2, size=shape, dtype=np.uint8).astype(np.float64)
    return generator.binomial(sizes, 0.5, size=shape).astype(np.float64)


def mcnemar(model_right: npt.NDArray[np.bool_], baseline_right: npt.NDArray[np.bool_]) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Under the null hypothesis, an answer that only one of the systems has right is equally likely to
    be from either.
    """
    model_alone = int((model_right & ~baseline_right).sum())
    baseline_alone = int((baseline_right & ~model_right).sum())
    fewer = min(model_alone, baseline_alone)
    total = model_alone + baseline_alone
    return min(1.0, 2.0 * float(bdtr(fewer, total, 0.5))) if total else 1.0
