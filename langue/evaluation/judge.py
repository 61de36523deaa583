"""Floor 5. What arrives: targets and predictions of one split. What leaves: a `Judgement`: numbers
with intervals.

Intervals are of 95%: how far the number would move with another test set of this size. They say
nothing of another training seed. A share of examples has an exact one, of the number of examples
that it is a share of: recall, of the examples that have the label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from langue.evaluation.compare import LEVEL, outcome
from langue.evaluation.intervals import RESAMPLES, Counts, Interval, bootstrap, clopper_pearson
from langue.tasks import metrics as m

MAX_POINTS = 1500  # of a regression's scatter plot

MAIN_METRIC = {"classify": "accuracy", "multilabel": "f1_micro", "regress": "spearman"}
LOWER_IS_BETTER = m.LOWER_IS_BETTER
OF_POSITIVE = m.OF_POSITIVE
LONGEST = 60  # characters of a label that are shown beside a metric
FEW = 5  # examples of a label, below which its own scores say next to nothing


@dataclass(frozen=True)
class Judgement:
    """How good the predictions are. `None` stands for what is undefined, and `notes` says why, or
    for no interval."""

    task: str  # classify, multilabel or regress
    examples: int
    metrics: m.Metrics
    intervals: dict[str, Interval | None]
    # label -> precision, recall, f1, support
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    confusion: list[list[int]] | None = None  # rows are true, columns predicted; classify only
    # filled bins: confidence, accuracy, count
    calibration: list[dict[str, float]] = field(default_factory=list)
    # regression: (true, predicted) of a sample
    points: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    # with two labels: which of them `precision`, `recall` and `f1` are of
    positive: str | None = None

    def as_json(
        self, split: str, baseline: Mapping[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        """The content of metrics.json."""
        return {
            "split": split,
            "examples": self.examples,
            "metrics": dict(self.metrics),
            **({"positive": self.positive} if self.positive is not None else {}),
            "intervals": {
                name: list(pair) if pair else None for name, pair in self.intervals.items()
            },
            "baseline": dict(baseline) if baseline else None,
            "seconds": round(seconds, 3),
        }


def judge(
    task: str,
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    labels: Sequence[str] = (),
    *,
    positive: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
    threshold: float = m.THRESHOLD,
) -> Judgement:
    """Judge `predictions`: probabilities (N, C) for classify and multilabel, scores (N,) for
    regress.

    `targets` are label ids (N,), zeros and ones (N, C), or numbers (N,); `labels` are the C names.
    positive: of two labels, the one that `precision`, `recall` and `f1` are of. `threshold`: the
    probability from which on a label of multilabel is given.
    """
    if task == "classify":
        return _classify(targets, predictions, labels, positive, resamples, seed)
    if task == "multilabel":
        return _multilabel(targets, predictions, labels, resamples, seed, threshold)
    if task == "regress":
        return _regress(targets, predictions, resamples, seed)
    raise ValueError(f"task {task!r} is none of {', '.join(MAIN_METRIC)}")


def _classify(
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    labels: Sequence[str],
    positive: int,
    resamples: int,
    seed: int,
) -> Judgement:
    n_labels = len(labels)
    true, probability = m.check_classification(targets, predictions, n_labels)
    predicted = probability.argmax(axis=1)
    confusion = np.bincount(true * n_labels + predicted, minlength=n_labels**2)
    confusion = confusion.reshape(n_labels, n_labels)
    hit, of_true, of_predicted = _margins(confusion)
    measure = m.classification_measure(true, probability, n_labels, positive)
    metrics = m.plain(measure, len(true))
    counts: Counts = _label_counts(hit, of_true, of_predicted)
    either = of_true + of_predicted - hit
    counts["mcc"] = int(either[either > 0].min())  # the rarest label, on which it hangs
    intervals = bootstrap(measure, metrics, len(true), resamples, seed, counts=counts)
    right = clopper_pearson(int(hit.sum()), len(true))
    intervals |= {"accuracy": right, "f1_micro": right}
    if n_labels == 2:
        intervals |= _positive_intervals(hit, of_true, of_predicted, positive)
    notes = []
    if len(np.unique(true)) == 1:
        notes.append(
            f"Every example is {labels[true[0]]!r}: nothing shows whether labels are told apart;"
            " MCC is undefined."
        )
    elif len(np.unique(predicted)) == 1:
        notes.append(f"The model answers {labels[predicted[0]]!r} every time.")
    return Judgement(
        task="classify",
        examples=len(true),
        metrics=metrics,
        intervals=intervals,
        per_class=_per_class(hit, of_true, of_predicted, labels),
        confusion=confusion.tolist(),
        calibration=_calibration(probability.max(axis=1), predicted == true),
        notes=notes + _missing(of_true, labels),
        positive=labels[positive] if n_labels == 2 else None,
    )


def _margins(confusion: m.Ints) -> tuple[m.Ints, m.Ints, m.Ints]:
    """Of each label (C,): the examples told right, those that have it, and those that are said
    to."""
    return confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)


def _positive_intervals(
    hit: m.Ints, true: m.Ints, predicted: m.Ints, positive: int
) -> dict[str, Interval | None]:
    """Exact intervals of one label's precision, recall and F1."""
    right = int(hit[positive])
    either = int(true[positive] + predicted[positive]) - right
    # F1 is 2J / (1 + J) with J = right / either, a share of the examples that have the label or are
    # said to.
    low, high = clopper_pearson(right, either)
    return {
        "precision": clopper_pearson(right, int(predicted[positive])),
        "recall": clopper_pearson(right, int(true[positive])),
        "f1": (2 * low / (1 + low), 2 * high / (1 + high)),
    }


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
    hit, of_true, of_predicted = (each.sum(axis=0) for each in (true & predicted, true, predicted))
    counts: Counts = _label_counts(hit, of_true, of_predicted)
    # Micro averages are of the texts that have, or are said to have, a label at all.
    counts["precision_micro"] = int(predicted.any(axis=1).sum())
    counts["recall_micro"] = int(true.any(axis=1).sum())
    counts["f1_micro"] = int((true | predicted).any(axis=1).sum())
    intervals = bootstrap(measure, metrics, len(true), resamples, seed, counts=counts)
    intervals["accuracy"] = clopper_pearson(int((true == predicted).all(axis=1).sum()), len(true))
    notes = []
    if threshold != m.THRESHOLD:
        notes.append(
            f"A label is given from a probability of {threshold:.4g} on, which was best on dev."
        )
    if not predicted.any():
        notes.append("The model gives no label to any text.")
    return Judgement(
        task="multilabel",
        examples=len(true),
        metrics=metrics,
        intervals=intervals,
        per_class=_per_class(hit, of_true, of_predicted, labels),
        notes=notes + _missing(of_true, labels),
    )


def _label_counts(hit: m.Ints, true: m.Ints, predicted: m.Ints) -> Counts:
    """The examples that each label's part of a macro average is of, of the labels that occur."""
    either = true + predicted - hit
    occurs = either > 0
    counts = {"precision_macro": predicted, "recall_macro": true, "f1_macro": either}
    return {name: of_label[occurs] for name, of_label in counts.items()}


def _regress(
    targets: npt.ArrayLike, predictions: npt.ArrayLike, resamples: int, seed: int
) -> Judgement:
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
    """Notes on labels with no example, or with too few to say much of."""
    notes = []
    absent = [labels[i] for i in np.flatnonzero(support == 0).tolist()]
    if absent:
        notes.append(f"No example is labelled {_some(absent)}.")
    rare = [labels[i] for i in np.flatnonzero((support > 0) & (support < FEW)).tolist()]
    if rare and len(labels) > 2:
        notes.append(
            f"Fewer than {FEW} examples are labelled {_some(rare)}: macro averages lean on them as"
            " much as on other labels, and their intervals are too narrow."
        )
    return notes


def _some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _per_class(
    hit: npt.NDArray[Any],
    true: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    labels: Sequence[str],
) -> dict[str, dict[str, float]]:
    values = m.per_label(*(counts[:, None].astype(np.float64) for counts in (hit, true, predicted)))
    return {
        label: {
            **{name: float(column[i, 0]) for name, column in values.items()},
            "support": int(true[i]),
        }
        for i, label in enumerate(labels)
    }


def _calibration(confidence: m.Floats, hit: npt.NDArray[np.bool_]) -> list[dict[str, float]]:
    bins = m.confidence_bins(confidence)
    chosen = [bins == i for i in range(m.N_BINS)]
    return [
        {
            "confidence": float(confidence[mask].mean()),
            "accuracy": float(hit[mask].mean()),
            "count": int(mask.sum()),
        }
        for mask in chosen
        if mask.any()
    ]


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
    """The worst mistakes first: `[{"text", "label", "predicted", "score"}]`, with `"pair"` where
    texts come in pairs.

    Worst is the highest confidence in a wrong label (`score` is that confidence); for regress the
    largest error (`score` is the error); for multilabel the most confident wrong decision about one
    label.
    """
    true = np.asarray(targets)
    said = np.asarray(predictions, dtype=np.float64)
    if task == "classify":
        picked = said.argmax(axis=1)
        badness = said.max(axis=1)
        wrong = picked != true
        names = [(labels[t], labels[p]) for t, p in zip(true, picked, strict=True)]
    elif task == "multilabel":
        given = said >= threshold
        wrong_at = given != true.astype(bool)
        badness = np.where(wrong_at, np.where(given, said, 1 - said), 0.0).max(axis=1)
        wrong = wrong_at.any(axis=1)
        names = [
            (_names(t, labels), _names(p, labels)) for t, p in zip(true == 1, given, strict=True)
        ]
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
    """Whether the model is worth more than its baseline: `outcome` is better, same, worse or
    unknown."""

    outcome: str
    sentence: str


def verdict(task: str, summary: Mapping[str, Any]) -> Verdict:
    """What the comparison in a metrics.json says of the model and its baseline, in one honest
    sentence."""
    baseline = summary.get("baseline") or {}
    comparison = baseline.get("comparison")
    name = comparison["metric"] if comparison else summary.get("main_metric") or MAIN_METRIC[task]
    called = named(name, summary)
    ours = summary["metrics"].get(name)
    theirs = (baseline.get("metrics") or {}).get(name)
    if ours is None:
        return Verdict("unknown", f"The model has no {called}: it is undefined here.")
    if theirs is None:
        return Verdict("unknown", "The model has no baseline to be compared with.")
    against = (
        f"{called} {format_metric(name, ours)} against {format_metric(name, theirs)} of"
        f" {baseline['name']}"
    )
    if comparison is None:
        return Verdict("unknown", f"Not compared with its baseline example by example: {against}.")
    found = outcome(comparison)
    if found == "same":
        return Verdict(
            "same", f"Not distinguishable from its baseline: {against}{_undecided(comparison)}."
        )
    against += _apart(comparison)
    if found == "worse":
        return Verdict(
            "worse", f"Worse than its baseline: {against}. Use the baseline, or train longer."
        )
    off, usual = (each.get("mse") for each in (summary["metrics"], baseline.get("metrics") or {}))
    if off is not None and usual is not None and off > usual:
        errors = (
            f"mean squared error {format_metric('mse', off)} against {format_metric('mse', usual)}"
        )
        return Verdict(
            "same", f"It ranks better than its baseline, but errs more: {against}; {errors}."
        )
    return Verdict("better", f"Better than its baseline: {against}.")


def _apart(comparison: Mapping[str, Any]) -> str:
    """By how much two systems differ for sure: `, by 0.52 to 5.48 points over the same 300
    examples`."""
    name = comparison["metric"]
    ends = sorted(abs(end) for end in comparison["interval"])
    low, high = (format_metric(name, end).removesuffix("%") for end in ends)
    points = " points" if _is_share(name) else ""
    return (
        f", by {low} to {high}{points} (95% interval over the same {comparison['examples']:,}"
        " examples)"
    )


def _undecided(comparison: Mapping[str, Any]) -> str:
    """Why a difference may be chance."""
    examples = (
        f"the same {comparison['examples']:,} example{'' if comparison['examples'] == 1 else 's'}"
    )
    if comparison["p_value"] > LEVEL:
        return (
            f"; equal systems differ as much on {examples} with a probability of"
            f" {comparison['p_value']:.2g}"
        )
    return f"; on other examples than {examples} the difference may well turn round"


def named(name: str, summary: Mapping[str, Any]) -> str:
    """The metric as people write it, and of which of two labels it is."""
    positive = summary.get("positive")
    if name not in OF_POSITIVE or positive is None:
        return metric_label(name)
    label = " ".join(positive.split())
    return f"{metric_label(name)} of {label if len(label) <= LONGEST else label[:LONGEST] + '…'}"


def metric_label(name: str) -> str:
    """The metric's name as people write it: `f1_macro` -> `F1, macro`."""
    words = {
        "f1": "F1",
        "mcc": "MCC",
        "mse": "mean squared error",
        "pearson": "Pearson",
        "spearman": "Spearman",
    }
    head, _, tail = name.partition("_")
    if tail in ("macro", "micro", "samples"):
        return f"{words.get(head, head)}, {'per text' if tail == 'samples' else tail}"
    return words.get(name, name.replace("_", " "))


def format_metric(name: str, value: float | None) -> str:
    """A metric's value as people write it: shares in percent, perplexity with two decimals, the
    rest with four; a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    # of scores that lie near each other, where four decimals say nothing
    if name == "mse" and 0 < value < 1e-3:
        return f"{value:.4g}"
    if _is_share(name):
        return f"{100 * value:.2f}%"
    return f"{value:,.2f}" if name == "perplexity" else f"{value:.4f}"


def _is_share(name: str) -> bool:
    return name.endswith("accuracy") or name.split("_")[0] in OF_POSITIVE
