"""Floor 5. What arrives: targets and predictions of one split. What leaves: a `Judgement`: numbers with intervals.

Intervals are 95% percentile bootstraps (Efron 1979) over examples: how far the number would move with another test set
of this size. They say nothing of another training seed. At an end of a range, where resamples are all alike, those of
shares are exact (Clopper and Pearson 1934).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from langue.tasks import metrics as m

RESAMPLES = 1000
CHUNK = 2_000_000  # weights held at once, so that memory does not grow with the split
MAX_POINTS = 1500  # of a regression's scatter plot

MAIN_METRIC = {"classify": "accuracy", "multilabel": "f1_micro", "regress": "spearman"}
LOWER_IS_BETTER = m.LOWER_IS_BETTER
_SIGNED = frozenset({"mcc", "pearson", "spearman"})  # from -1 to 1
_UNBOUNDED = frozenset({"mse", "loss", "perplexity", "bits_per_byte"})  # the others are shares

Interval = tuple[float, float]


@dataclass(frozen=True)
class Judgement:
    """How good the predictions are. `None` stands for what is undefined, and `notes` says why, or for no interval."""

    task: str  # classify, multilabel or regress
    examples: int
    metrics: m.Metrics
    intervals: dict[str, Interval | None]
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)  # label -> precision, recall, f1, support
    confusion: list[list[int]] | None = None  # rows are true, columns predicted; classify only
    calibration: list[dict[str, float]] = field(default_factory=list)  # filled bins: confidence, accuracy, count
    points: list[tuple[float, float]] = field(default_factory=list)  # regression: (true, predicted) of a sample
    notes: list[str] = field(default_factory=list)

    def as_json(self, split: str, baseline: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        """The content of metrics.json."""
        return {
            "split": split,
            "examples": self.examples,
            "metrics": dict(self.metrics),
            "intervals": {name: list(pair) if pair else None for name, pair in self.intervals.items()},
            "baseline": dict(baseline) if baseline else None,
            "seconds": round(seconds, 3),
        }


def judge(
    task: str,
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    labels: Sequence[str] = (),
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    threshold: float = m.THRESHOLD,
) -> Judgement:
    """Judge `predictions`: probabilities (N, C) for classify and multilabel, scores (N,) for regress.

    `targets` are label ids (N,), zeros and ones (N, C), or numbers (N,); `labels` are the C names. `threshold`: the
    probability from which on a label of multilabel is given.
    """
    if task == "classify":
        return _classify(targets, predictions, labels, resamples, seed)
    if task == "multilabel":
        return _multilabel(targets, predictions, labels, resamples, seed, threshold)
    if task == "regress":
        return _regress(targets, predictions, resamples, seed)
    raise ValueError(f"task {task!r} is none of {', '.join(MAIN_METRIC)}")


def _classify(
    targets: npt.ArrayLike, predictions: npt.ArrayLike, labels: Sequence[str], resamples: int, seed: int
) -> Judgement:
    n_labels = len(labels)
    true, probability = m.check_classification(targets, predictions, n_labels)
    predicted = probability.argmax(axis=1)
    confusion = np.bincount(true * n_labels + predicted, minlength=n_labels**2).reshape(n_labels, n_labels)
    measure = m.classification_measure(true, probability, n_labels)
    metrics = m.plain(measure, len(true))
    notes = []
    if len(np.unique(true)) == 1:
        notes.append(
            f"Every example is {labels[true[0]]!r}: nothing shows whether labels are told apart; MCC is undefined."
        )
    elif len(np.unique(predicted)) == 1:
        notes.append(f"The model answers {labels[predicted[0]]!r} every time.")
    return Judgement(
        task="classify",
        examples=len(true),
        metrics=metrics,
        intervals=bootstrap(measure, metrics, len(true), resamples, seed),
        per_class=_per_class(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), labels),
        confusion=confusion.tolist(),
        calibration=_calibration(probability.max(axis=1), predicted == true),
        notes=notes + _missing(confusion.sum(axis=1), labels),
    )


def _multilabel(
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    labels: Sequence[str],
    resamples: int,
    seed: int,
    threshold: float,
) -> Judgement:
    true, probability = m.check_multilabel(targets, predictions)
    if true.shape[1] != len(labels):
        raise ValueError(f"{len(labels)} labels and targets {true.shape}")
    predicted = probability >= threshold
    measure = m.multilabel_measure(true, probability, threshold)
    metrics = m.plain(measure, len(true))
    notes = []
    if threshold != m.THRESHOLD:
        notes.append(f"A label is given from a probability of {threshold:.4g} on, which was best on dev.")
    if not predicted.any():
        notes.append("The model gives no label to any text.")
    return Judgement(
        task="multilabel",
        examples=len(true),
        metrics=metrics,
        intervals=bootstrap(measure, metrics, len(true), resamples, seed),
        per_class=_per_class((true & predicted).sum(axis=0), true.sum(axis=0), predicted.sum(axis=0), labels),
        notes=notes + _missing(true.sum(axis=0), labels),
    )


def _regress(targets: npt.ArrayLike, predictions: npt.ArrayLike, resamples: int, seed: int) -> Judgement:
    true, predicted = m.check_regression(targets, predictions)
    measure = m.regression_measure(true, predicted)
    metrics = m.plain(measure, len(true))
    notes = [
        f"{whose} {true_or_said.flat[0]:g} every time, so the correlations are undefined."
        for whose, true_or_said in (("The true score is", true), ("The model answers", predicted))
        if true_or_said.min() == true_or_said.max()
    ]
    shown = np.arange(len(true))
    if len(true) > MAX_POINTS:
        shown = np.random.default_rng(seed).choice(len(true), MAX_POINTS, replace=False)
    return Judgement(
        task="regress",
        examples=len(true),
        metrics=metrics,
        intervals=bootstrap(measure, metrics, len(true), resamples, seed),
        points=[(float(true[i]), float(predicted[i])) for i in shown],
        notes=notes,
    )


def _missing(support: npt.NDArray[Any], labels: Sequence[str]) -> list[str]:
    absent = [labels[i] for i in np.flatnonzero(support == 0).tolist()]
    if not absent:
        return []
    names = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    return [f"No example is labelled {names}."]


def _per_class(
    hit: npt.NDArray[Any], true: npt.NDArray[Any], predicted: npt.NDArray[Any], labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    values = m.per_label(*(counts[:, None].astype(np.float64) for counts in (hit, true, predicted)))
    return {
        label: {**{name: float(column[i, 0]) for name, column in values.items()}, "support": int(true[i])}
        for i, label in enumerate(labels)
    }


def _calibration(confidence: m.Floats, hit: npt.NDArray[np.bool_]) -> list[dict[str, float]]:
    bins = m.confidence_bins(confidence)
    chosen = [bins == i for i in range(m.N_BINS)]
    return [
        {"confidence": float(confidence[mask].mean()), "accuracy": float(hit[mask].mean()), "count": int(mask.sum())}
        for mask in chosen
        if mask.any()
    ]


# --- intervals ---


def bootstrap(
    measure: m.Measure, metrics: m.Metrics, n: int, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval | None]:
    """The 95% interval of each metric, over the resamples in which it is defined; `None` where nothing shows one."""
    chunks: dict[str, list[m.Floats]] = {name: [] for name in metrics}
    for weights in _resample(n, resamples, seed):
        for name, values in measure(weights).items():
            chunks[name].append(values)
    intervals: dict[str, Interval | None] = {}
    for name, value in metrics.items():
        drawn = np.concatenate(chunks[name])
        drawn = drawn[np.isfinite(drawn)]
        if value is None or not drawn.size:
            intervals[name] = None
            continue
        if name == "calibration_error":
            # An absolute value of noise is never negative, so resampling adds to it: without recentring
            # the interval of a well calibrated model would lie above its own number.
            drawn = np.maximum(drawn - drawn.mean() + value, 0.0)
        low, high = np.percentile(drawn, (2.5, 97.5))
        if high - low < 1e-9:
            low, high = at_end(name, round(value, 9), n)
        intervals[name] = (float(low), float(high)) if low < high else None
    return intervals


def at_end(name: str, value: float, n: int) -> Interval:
    """The interval of a metric that is as high or low as can be on n examples, for which no resample differs; the value
    itself, twice, where it is not at an end. Exact for a share of examples; the same part of the range for others."""
    bottom = -1.0 if name in _SIGNED else 0.0
    room = 0.0 if name in _UNBOUNDED else (1.0 - bottom) * (1.0 - 0.025 ** (1.0 / n))
    return value - room * (value == 1.0), value + room * (value == bottom)


def _resample(n: int, resamples: int, seed: int) -> Iterator[m.Floats]:
    """Weights (n, R): how often each of n examples is drawn, n draws with replacement a resample, R at a time."""
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK // n)
    for start in range(0, resamples, size):
        columns = min(size, resamples - start)
        drawn = generator.integers(0, n, size=(n, columns), dtype=np.int64)
        flat = (drawn * columns + np.arange(columns)).ravel()
        yield np.bincount(flat, minlength=n * columns).reshape(n, columns).astype(np.float64)


# --- what people ask of a judgement ---


def mistakes(
    task: str,
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    texts: Sequence[str],
    labels: Sequence[str] = (),
    *,
    limit: int = 20,
    pairs: Sequence[str] | None = None,
    threshold: float = m.THRESHOLD,
) -> list[dict[str, Any]]:
    """The worst mistakes first: `[{"text", "label", "predicted", "score"}]`, with `"pair"` where texts come in pairs.

    Worst is the highest confidence in a wrong label (`score` is that confidence); for regress the largest error
    (`score` is the error); for multilabel the most confident wrong decision about one label.
    """
    true, said = np.asarray(targets), np.asarray(predictions, dtype=np.float64)
    if task == "classify":
        picked, badness = said.argmax(axis=1), said.max(axis=1)
        wrong = picked != true
        names = [(labels[t], labels[p]) for t, p in zip(true, picked, strict=True)]
    elif task == "multilabel":
        given = said >= threshold
        wrong_at = given != true.astype(bool)
        badness = np.where(wrong_at, np.where(given, said, 1 - said), 0.0).max(axis=1)
        wrong = wrong_at.any(axis=1)
        names = [(_names(t, labels), _names(p, labels)) for t, p in zip(true == 1, given, strict=True)]
    else:
        badness = np.abs(true - said)
        wrong = badness > 0
        names = [(f"{t:.4g}", f"{p:.4g}") for t, p in zip(true, said, strict=True)]
    order = sorted(np.flatnonzero(wrong).tolist(), key=lambda i: (-badness[i], i))[:limit]
    return [
        {"text": texts[i], **({"pair": pairs[i]} if pairs is not None else {})}
        | {"label": names[i][0], "predicted": names[i][1], "score": float(badness[i])}
        for i in order
    ]


def _names(chosen: npt.NDArray[np.bool_], labels: Sequence[str]) -> str:
    return ", ".join(labels[i] for i in np.flatnonzero(chosen).tolist()) or "(none)"


@dataclass(frozen=True)
class Verdict:
    """Whether the model is worth more than its baseline: `outcome` is better, same, worse or unknown."""

    outcome: str
    sentence: str


def verdict(task: str, summary: Mapping[str, Any]) -> Verdict:
    """Compare the main metric in a metrics.json with its baseline, in one honest sentence."""
    name = summary.get("main_metric") or MAIN_METRIC[task]
    ours = summary["metrics"].get(name)
    baseline = summary.get("baseline") or {}
    theirs = (baseline.get("metrics") or {}).get(name)
    if ours is None or theirs is None:
        what = (
            "has no baseline to be compared with"
            if ours is not None
            else f"has no {readable(name)}: it is undefined here"
        )
        return Verdict("unknown", f"The model {what}.")
    low, high = summary["intervals"].get(name) or (-math.inf, math.inf)
    least, most = at_end(name, theirs, summary["examples"])  # the baseline was judged on as few
    at = theirs
    if name in LOWER_IS_BETTER:
        low, high, least, most, at = -high, -low, -most, -least, -theirs
    against = f"{readable(name)} {written(name, ours)} against {written(name, theirs)} of {baseline['name']}"
    off, usual = (each.get("mse") for each in (summary["metrics"], baseline.get("metrics") or {}))
    if low > most and off is not None and usual is not None and off > usual:
        errors = f"mean squared error {written('mse', off)} against {written('mse', usual)}"
        return Verdict("same", f"It ranks better than its baseline, but errs more: {against}; {errors}.")
    if low > most:
        return Verdict("better", f"Better than its baseline: {against}.")
    if high < least:
        return Verdict("worse", f"Worse than its baseline: {against}. Use the baseline, or train longer.")
    why = "which lies within the 95% interval" if -math.inf < low <= at <= high else "on too few examples to tell"
    return Verdict("same", f"Not distinguishable from its baseline: {against}, {why}.")


def readable(name: str) -> str:
    """The metric's name as people write it: `f1_macro` -> `F1, macro`."""
    words = {"f1": "F1", "mcc": "MCC", "mse": "mean squared error", "pearson": "Pearson", "spearman": "Spearman"}
    head, _, tail = name.partition("_")
    if tail in ("macro", "micro", "samples"):
        return f"{words.get(head, head)}, {'per text' if tail == 'samples' else tail}"
    return words.get(name, name.replace("_", " "))


def written(name: str, value: float | None) -> str:
    """A metric's value as people write it: shares in percent, perplexity with two decimals, the rest with four; a dash
    where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    if name == "mse" and 0 < value < 1e-3:  # of scores that lie near each other, where four decimals say nothing
        return f"{value:.4g}"
    share = name.endswith("accuracy") or name.split("_")[0] in ("f1", "precision", "recall")
    return f"{100 * value:.2f}%" if share else f"{value:,.2f}" if name == "perplexity" else f"{value:.4f}"
