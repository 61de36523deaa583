"""Evaluation of classification: takes gold labels and predicted probabilities, single-label or
multi-label; returns a `Judgement`.

Intervals are 95% intervals. Those of proportions are exact and based on the number of examples in
the denominator: for recall, the examples that have the label.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.statistics import metrics as m
from langue.statistics.intervals import RESAMPLES, Counts, bootstrap, clopper_pearson
from langue.statistics.labels import label_counts, label_margins, positive_intervals
from langue.tasks.judgement import Judgement, Matrix, Points, Section, Table

FEW = 5  # support of a label below which its own scores are hardly meaningful


def judge_labels(
    golds: Any,
    probabilities: Any,
    labels: Sequence[str],
    positive: int,
    *,
    main: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judgement:
    """Judge single-label predictions: golds (N,), probabilities (N, C).

    positive: of two labels, the index of the one that precision, recall and F1 refer to.
    """
    n_labels = len(labels)
    true, probability = m.check_classification(golds, probabilities, n_labels)
    predicted = probability.argmax(axis=1)
    confusion = np.bincount(true * n_labels + predicted, minlength=n_labels**2)
    confusion = confusion.reshape(n_labels, n_labels)
    hit, of_true, of_predicted = label_margins(confusion)
    measure = m.classification_measure(true, probability, n_labels, positive)
    metrics = m.plain(measure, len(true))
    counts: Counts = label_counts(hit, of_true, of_predicted)
    either = of_true + of_predicted - hit
    counts["mcc"] = int(either[either > 0].min())  # the rarest label limits how reliable MCC is
    intervals = bootstrap(measure, metrics, len(true), resamples, seed, counts=counts)
    right = clopper_pearson(int(hit.sum()), len(true))
    intervals |= {"accuracy": right, "f1_micro": right}
    if n_labels == 2:
        intervals |= positive_intervals(hit, of_true, of_predicted, positive)
    notes = []
    if len(np.unique(true)) == 1:
        notes.append(
            f"Every example is {labels[true[0]]!r}: nothing shows whether labels are told"
            " apart; MCC is undefined."
        )
    elif len(np.unique(predicted)) == 1:
        notes.append(f"The model answers {labels[predicted[0]]!r} every time.")
    sections: list[Section] = [
        confusions(confusion, labels),
        calibration(probability.max(axis=1), predicted == true),
        by_label(hit, of_true, of_predicted, labels),
    ]
    return Judgement(
        examples=len(true),
        metrics=metrics,
        intervals=intervals,
        primary_metric=main,
        notes=notes + notes_on_labels(of_true, labels),
        sections=sections,
        positive=labels[positive] if n_labels == 2 else None,
        repeated=("f1_micro",),  # equal to accuracy when each text has one label
    )


def judge_several_labels(
    golds: Any,
    probabilities: Any,
    labels: Sequence[str],
    threshold: float,
    *,
    main: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judgement:
    """Judge multi-label predictions: golds (N, C) of zeros and ones, probabilities (N, C).

    threshold: minimum probability at which a label is predicted.
    """
    true, probability = m.check_multilabel(golds, probabilities)
    if true.shape[1] != len(labels):
        raise ValueError(f"{len(labels)} labels and targets {true.shape}")
    predicted = probability >= threshold
    measure = m.multilabel_measure(true, probability, threshold)
    metrics = m.plain(measure, len(true))
    hit, of_true, of_predicted = (each.sum(axis=0) for each in (true & predicted, true, predicted))
    counts: Counts = label_counts(hit, of_true, of_predicted)
    # Micro averages depend on the texts that have, or are predicted to have, a label at all.
    counts["precision_micro"] = int(predicted.any(axis=1).sum())
    counts["recall_micro"] = int(true.any(axis=1).sum())
    counts["f1_micro"] = int((true | predicted).any(axis=1).sum())
    intervals = bootstrap(measure, metrics, len(true), resamples, seed, counts=counts)
    exact = int((true == predicted).all(axis=1).sum())
    intervals["accuracy"] = clopper_pearson(exact, len(true))
    notes = []
    if threshold != m.THRESHOLD:
        notes.append(
            f"A label is given from a probability of {threshold:.4g} on, which was best on dev."
        )
    if not predicted.any():
        notes.append("The model gives no label to any text.")
    return Judgement(
        examples=len(true),
        metrics=metrics,
        intervals=intervals,
        primary_metric=main,
        notes=notes + notes_on_labels(of_true, labels),
        sections=[by_label(hit, of_true, of_predicted, labels)],
        settled={"threshold": threshold},
    )


def confusions(confusion: m.Ints, labels: Sequence[str]) -> Matrix:
    return Matrix(
        title="Confusion matrix",
        rows=labels,
        columns=labels,
        counts=confusion.tolist(),
    )


def by_label(
    hit: NDArray[Any], true: NDArray[Any], predicted: NDArray[Any], labels: Sequence[str]
) -> Table:
    values = m.per_label(*(counts[:, None].astype(np.float64) for counts in (hit, true, predicted)))
    precision, recall, f1 = (values[name][:, 0].tolist() for name in ("precision", "recall", "f1"))
    return Table(
        title="By label",
        columns=("label", "precision", "recall", "F1", "examples"),
        rows=[
            (label, precision[i], recall[i], f1[i], int(true[i])) for i, label in enumerate(labels)
        ],
        shares=(1, 2, 3),
        bar=3,
    )


def calibration(confidence: m.Floats, hit: NDArray[np.bool_]) -> Points:
    """Return the mean confidence and the accuracy in each non-empty confidence bin."""
    bins = m.confidence_bins(confidence)
    chosen = [mask for i in range(m.N_BINS) if (mask := bins == i).any()]
    return Points(
        title="Calibration",
        x="confidence",
        y="share that is right",
        points=[(float(confidence[mask].mean()), float(hit[mask].mean())) for mask in chosen],
        sizes=[int(mask.sum()) for mask in chosen],
        sizes_are="answers",
        diagonal=True,
        joined=True,
        percent=True,
        note=(
            "Of the answers given with some confidence, how many are right. On the diagonal they"
            " agree; below it the model is too sure of itself. The size of a point is the number of"
            " its answers."
        ),
    )


def notes_on_labels(support: NDArray[Any], labels: Sequence[str]) -> list[str]:
    """Return notes on labels with no examples, or with too few for reliable scores."""
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
    """Return the first five names, and the number of the others."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
