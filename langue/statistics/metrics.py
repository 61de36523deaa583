"""Metrics of predictions, given the targets.

Each kind of task has a `Measure`: a function of *weights* (N, R), which say how often each of N
examples counts in each of R samples, that returns every metric as an (R,) array. Weights of one
give the plain metric; the counts of a resample give one bootstrap replicate
(statistics/intervals.py). Both are computed by the same code, so an interval cannot disagree with
its metric.

Conventions are those of scikit-learn unless stated otherwise: a ratio 0 / 0 is 0; macro averages
run over the labels that occur in targets or predictions; whatever remains undefined (a correlation
with a constant) is `None`, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from langue.errors import DataError, RunError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Metrics = dict[str, float | None]
Measure = Callable[[Floats], dict[str, Floats]]

_AS_ACCURACY = (
    "precision_micro",
    "recall_micro",
)  # equal to accuracy if each text has one label; F1, which is equal too, is kept by convention
LOWER_IS_BETTER = frozenset(
    {"mse", "calibration_error", "hamming_loss", "loss", "perplexity", "bits_per_byte"}
)
# metrics conventionally given on a scale of 100; other shares are on a scale of 1
OF_HUNDRED = frozenset({"bleu", "chrf", "rouge1", "rouge2", "rougeL"})
OF_POSITIVE = ("precision", "recall", "f1")  # metrics of the positive one of two labels
REGRESSION = ("pearson", "spearman", "mse")
FEW_CELLS = 2048  # number of rows times number of groups
CANDIDATES = 100  # maximum number of thresholds that are tried
THRESHOLD = 0.5  # the minimum probability of a predicted label, if none was chosen on dev
N_BINS = 15  # of the calibration error, as in Guo et al. 2017 (arXiv:1706.04599)


def classification(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, n_labels: int, positive: int = 1
) -> Metrics:
    """Return accuracy, precision, recall, F1, MCC and calibration error of single-label
    classification.

    `targets` (N,) are label ids, `probabilities` have shape (N, C). With two labels, also
    `precision`, `recall` and `f1` of the label `positive`.
    """
    measure = classification_measure(targets, probabilities, n_labels, positive)
    return plain(measure, len(_array(targets)))


def multilabel(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = THRESHOLD
) -> Metrics:
    """Return subset accuracy, Hamming loss, precision, recall and F1 of multi-label classification.

    Both arguments have shape (N, C).
    """
    return plain(multilabel_measure(targets, probabilities, threshold), len(_array(targets)))


def best_threshold(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, name: str = "f1_micro"
) -> float:
    """Return the threshold that maximises `name` (or minimises it, if lower is better).

    Both arguments have shape (N, C), for N examples of C labels, any N. The candidates are
    THRESHOLD and up to CANDIDATES values just below the probability of a label that is present: F1
    is best at one of these, since predicting more absent labels never raises it. Ties are broken in
    favour of the value closest to THRESHOLD. Precision and recall are best if next to nothing or
    everything is predicted, so F1 is used in their place.
    """
    true = _array(targets).astype(bool)
    probability = _array(probabilities).astype(np.float64)
    if not true.any():
        return THRESHOLD
    kind, _, average = name.partition("_")
    judged = f"f1_{average or 'micro'}" if kind in ("precision", "recall") else name
    distinct = np.unique(probability)
    present = np.unique(probability[true])
    if len(present) > CANDIDATES:
        present = np.quantile(present, np.linspace(0, 1, CANDIDATES), method="nearest")
    place = np.searchsorted(distinct, present)
    below = np.where(place > 0, distinct[np.maximum(place - 1, 0)], 0.0)
    best = -np.inf
    chosen = THRESHOLD
    tried = {THRESHOLD, *((below + present) / 2).tolist()}
    for threshold in sorted(tried, key=lambda each: (abs(each - THRESHOLD), each)):
        value = multilabel(true, probability, threshold)[judged]
        score = -np.inf if value is None else -value if judged in LOWER_IS_BETTER else value
        if score > best:
            best = score
            chosen = threshold
    return chosen


def regression(targets: npt.ArrayLike, scores: npt.ArrayLike) -> Metrics:
    """Return Pearson's and Spearman's correlation and the mean squared error; both
    arguments (N,).
    """
    return plain(regression_measure(targets, scores), len(_array(targets)))


def plain(measure: Measure, n: int) -> Metrics:
    """Return the metrics with all weights 1, as Python numbers, `None` if undefined."""
    return {name: number(values[0]) for name, values in measure(np.ones((n, 1))).items()}


def number(value: float | np.float64) -> float | None:
    """Return a finite Python float, or `None`, since JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def classification_measure(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, n_labels: int, positive: int = 1
) -> Measure:
    """Return the measure of the metrics of `classification`."""
    true, probability = check_classification(targets, probabilities, n_labels)
    predicted = probability.argmax(axis=1)
    confidence = probability.max(axis=1)
    bins = confidence_bins(confidence)
    gap = confidence - (predicted == true)
    decisions = decision_measure(true, predicted, n_labels, positive)

    def measure(weights: Floats) -> dict[str, Floats]:
        # Expected calibration error: the distance between confidence and accuracy, for each bin.
        gaps = np.abs(_sum_by(bins, weights * gap[:, None], N_BINS)).sum(axis=0)
        return decisions(weights) | {"calibration_error": gaps / weights.sum(axis=0)}

    return measure


def decision_measure(true: Ints, predicted: Ints, n_labels: int, positive: int = 1) -> Measure:
    """Return the measure of those metrics of `classification` that need only the predicted labels
    (N,).
    """
    hit = predicted == true

    def measure(weights: Floats) -> dict[str, Floats]:
        margins = (
            _sum_by(true, weights * hit[:, None], n_labels),
            _sum_by(true, weights, n_labels),
            _sum_by(predicted, weights, n_labels),
        )
        averages = _averages(*margins)
        metrics = {
            "accuracy": margins[0].sum(axis=0) / margins[1].sum(axis=0),
            **{name: values for name, values in averages.items() if name not in _AS_ACCURACY},
            "mcc": _mcc(*margins),
        }
        if n_labels == 2:
            metrics |= {name: values[positive] for name, values in per_label(*margins).items()}
        return metrics

    return measure


def multilabel_measure(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = THRESHOLD
) -> Measure:
    true, probability = check_multilabel(targets, probabilities)
    predicted = probability >= threshold
    both = true & predicted
    either = true.sum(axis=1) + predicted.sum(axis=1)
    # A text without labels and without predicted labels is right, so its F1 is 1 (0 by default in
    # scikit-learn).
    f1_samples = np.where(either > 0, 2 * both.sum(axis=1) / np.maximum(either, 1), 1.0)
    # (3, N)
    a_row = np.stack(
        [(true == predicted).all(axis=1), (true != predicted).mean(axis=1), f1_samples]
    )
    margins_rows = [part.T.astype(np.float64) for part in (both, true, predicted)]  # 3 x (C, N)

    def measure(weights: Floats) -> dict[str, Floats]:
        exact, wrong, f1 = a_row @ weights / weights.sum(axis=0)
        averages = _averages(*(rows @ weights for rows in margins_rows))
        return {"accuracy": exact, **averages, "f1_samples": f1, "hamming_loss": wrong}

    return measure


def regression_measure(
    targets: npt.ArrayLike, scores: npt.ArrayLike, names: Sequence[str] = REGRESSION
) -> Measure:
    """Return the measure of the named metrics of `regression`."""
    true, predicted = check_regression(targets, scores)
    error = (true - predicted) ** 2
    x = _centred(true)
    y = _centred(predicted)
    rank_x = _ranker(true)
    rank_y = _ranker(predicted)
    measures: dict[str, Callable[[Floats], Floats]] = {
        "pearson": lambda weights: _correlation(weights, x[:, None], y[:, None]),
        "spearman": lambda weights: _correlation(weights, rank_x(weights), rank_y(weights)),
        "mse": lambda weights: error @ weights / weights.sum(axis=0),
    }

    def measure(weights: Floats) -> dict[str, Floats]:
        return {name: measures[name](weights) for name in names}

    return measure


# --- checks of the arguments ---


def check_classification(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, n_labels: int
) -> tuple[Ints, Floats]:
    true = _array(targets).astype(np.int64)
    probability = _probabilities(probabilities)
    _not_empty(true)
    if true.ndim != 1 or probability.shape != (len(true), n_labels):
        raise ValueError(
            f"targets {true.shape} and probabilities {probability.shape} for {n_labels} labels"
        )
    if true.min() < 0 or true.max() >= n_labels:
        raise ValueError(f"targets from {true.min()} to {true.max()} for {n_labels} labels")
    return true, probability


def check_multilabel(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], Floats]:
    raw = _array(targets)
    probability = _probabilities(probabilities)
    _not_empty(raw)
    if raw.ndim != 2 or raw.shape != probability.shape:
        raise ValueError(
            f"targets {raw.shape} and probabilities {probability.shape}: both are (N, C)"
        )
    if not np.isin(raw, (0, 1)).all():
        raise ValueError("multi-label targets are 0 or 1")
    return raw.astype(bool), probability


def check_regression(targets: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    true = _array(targets).astype(np.float64)
    predicted = _finite(_array(scores).astype(np.float64))
    _not_empty(true)
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ValueError(f"targets {true.shape} and scores {predicted.shape}: both are (N,)")
    return true, predicted


def _array(values: npt.ArrayLike) -> npt.NDArray[Any]:
    return np.asarray(values)


def _probabilities(values: npt.ArrayLike) -> Floats:
    probability = _finite(_array(values).astype(np.float64))
    # bf16 may round up slightly
    if probability.size and (probability.min() < 0 or probability.max() > 1 + 1e-3):
        raise ValueError("probabilities lie between 0 and 1; these are logits")
    return probability


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise RunError(
            f"the model gave {bad:,} outputs that are not numbers",
            do="training has diverged: lower train.lr, or set train.precision=fp32",
        )
    return values


def _not_empty(values: npt.NDArray[Any]) -> None:
    if len(values) == 0:
        raise DataError("nothing to judge: the split has no examples")


# --- helpers shared by the measures; C labels, R samples ---


def confidence_bins(confidence: Floats) -> Ints:
    """Return the bin of each confidence, out of `N_BINS` bins of equal width, (lower, upper]."""
    bins: Ints = np.clip(np.ceil(confidence * N_BINS) - 1, 0, N_BINS - 1).astype(np.int64)
    return bins


def per_label(hit: Floats, true: Floats, predicted: Floats) -> dict[str, Floats]:
    """Return precision, recall and F1 of each label from its counts, all (C, R)."""
    return {
        "precision": _ratio(hit, predicted),
        "recall": _ratio(hit, true),
        "f1": _ratio(2 * hit, true + predicted),
    }


def _averages(hit: Floats, true: Floats, predicted: Floats) -> dict[str, Floats]:
    """Return macro averages, the mean over occurring labels whatever their size, and micro
    averages, over all decisions together.
    """
    occurs = (true + predicted) > 0  # (C, R)
    n_labels = occurs.sum(axis=0)
    macro = {
        f"{name}_macro": _ratio(values.sum(axis=0), n_labels)
        for name, values in per_label(hit, true, predicted).items()
    }
    total = [counts.sum(axis=0, keepdims=True) for counts in (hit, true, predicted)]
    micro = {f"{name}_micro": values[0] for name, values in per_label(*total).items()}
    return {
        name: (macro | micro)[name]
        for kind in ("f1", "precision", "recall")
        for name in (f"{kind}_macro", f"{kind}_micro")
    }


def _mcc(hit: Floats, true: Floats, predicted: Floats) -> Floats:
    """Return the multiclass Matthews correlation coefficient (Gorodkin 2004): 0 for constant
    predictions, undefined for a single true class.
    """
    n = true.sum(axis=0)
    covariance = hit.sum(axis=0) * n - (true * predicted).sum(axis=0)
    var_true = n**2 - (true**2).sum(axis=0)
    var_predicted = n**2 - (predicted**2).sum(axis=0)
    result = _ratio(covariance, np.sqrt(var_true * var_predicted))
    result[var_true <= 0] = np.nan
    return result


def _ratio(above: Floats, below: Floats | Ints) -> Floats:
    result: Floats = np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
    return result


def _sum_by(groups: Ints, values: Floats, n_groups: int) -> Floats:
    """Return the sums of the rows of `values` (N, R) in each group, (n_groups, R)."""
    n = len(groups)
    # constructing a sparse matrix would take longer than the multiplication
    if n * n_groups <= FEW_CELLS:
        dense: Floats = (groups == np.arange(n_groups)[:, None]).astype(np.float64) @ values
        return dense
    from scipy.sparse import csr_matrix

    member = csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(n_groups, n))
    result: Floats = member @ values
    return result


def _centred(values: Floats) -> Floats:
    # Constant values must become exactly zero: the rounding error of the mean must not look like
    # variation. The median is close to the values of a resample that draws no outlier, while the
    # mean may be far from them.
    return values - np.median(values) if values.min() < values.max() else np.zeros_like(values)


def _ranker(values: Floats) -> Callable[[Floats], Floats]:
    """Return a function from weights (N, R) to the centred rank (N, R) of each example among those
    drawn, with mean ranks for ties.
    """
    _, group = np.unique(values, return_inverse=True)
    n_groups = int(group.max()) + 1

    def ranks(weights: Floats) -> Floats:
        size = _sum_by(group, weights, n_groups)
        # the mean rank of a group of ties, minus a half
        middle = np.cumsum(size, axis=0) - size / 2
        result: Floats = (middle - weights.sum(axis=0) / 2)[group]
        return result

    return ranks


def _correlation(weights: Floats, x: Floats, y: Floats) -> Floats:
    """Return Pearson's correlation under weights (N, R); `x` and `y` are (N, R) or (N, 1).

    It is NaN if one of them is constant.
    """
    n = weights.sum(axis=0)

    def mean(values: Floats) -> Floats:
        same = values.shape[1] == 1  # the same in every sample
        total: Floats = values[:, 0] @ weights if same else (weights * values).sum(axis=0)
        result: Floats = total / n
        return result

    mean_x = mean(x)
    mean_y = mean(y)
    square_x = mean(x**2)
    square_y = mean(y**2)
    var_x = square_x - mean_x**2
    var_y = square_y - mean_y**2
    # a smaller variance is rounding error
    varies = (var_x > 1e-12 * square_x) & (var_y > 1e-12 * square_y)
    product = np.sqrt(np.where(varies, var_x * var_y, 1.0))
    return np.where(varies, np.clip((mean(x * y) - mean_x * mean_y) / product, -1.0, 1.0), np.nan)
