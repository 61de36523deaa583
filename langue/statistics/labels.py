"""Labels: the counts that their metrics are made of, intervals, and paired systems; C labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from langue.statistics import metrics as m
from langue.statistics.compare import Systems, mcnemar
from langue.statistics.intervals import Counts, Interval, clopper_pearson

# shares of right answers, which McNemar's test compares exactly
SHARES_OF_RIGHT = ("accuracy", "f1_micro")


def label_margins(confusion: m.Ints) -> tuple[m.Ints, m.Ints, m.Ints]:
    """Of each label (C,): the examples told right, those that have it, and those that are said
    to."""
    return confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)


def label_counts(hit: m.Ints, true: m.Ints, predicted: m.Ints) -> Counts:
    """The examples that each label's part of a macro average is of, of the labels that occur."""
    either = true + predicted - hit
    occurs = either > 0
    counts = {"precision_macro": predicted, "recall_macro": true, "f1_macro": either}
    return {name: of_label[occurs] for name, of_label in counts.items()}


def positive_intervals(
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


def systems_of_labels(
    true: m.Ints, first: m.Ints, second: m.Ints, n_labels: int, positive: int, metric: str
) -> Systems:
    """Two systems that gave each example one label, all (N,). Examples of the same label and
    answers are one kind."""
    exact = mcnemar(first == true, second == true) if metric in SHARES_OF_RIGHT else None
    coded, sizes = np.unique((true * n_labels + first) * n_labels + second, return_counts=True)
    true = coded // n_labels**2
    first = coded // n_labels % n_labels
    second = coded % n_labels

    def measure(true: m.Ints, answers: m.Ints) -> m.Measure:
        return m.decision_measure(true, answers, n_labels, positive)

    mixed = measure(np.concatenate([true, true]), np.concatenate([first, second]))
    return Systems(measure(true, first), measure(true, second), mixed, sizes, exact)


def systems_of_several(
    true: npt.NDArray[np.bool_],
    first: npt.NDArray[np.bool_],
    second: npt.NDArray[np.bool_],
    metric: str,
) -> Systems:
    """Two systems that gave each example any number of labels, all (N, C). Examples of the same
    labels and answers are one kind."""
    exact = None
    if metric == "accuracy":  # of all labels of a text at once
        exact = mcnemar((first == true).all(axis=1), (second == true).all(axis=1))
    kinds, sizes = np.unique(np.hstack([true, first, second]), axis=0, return_counts=True)
    true, first, second = np.split(kinds, 3, axis=1)  # three of (K, C)
    mixed = m.multilabel_measure(np.concatenate([true, true]), np.concatenate([first, second]))
    measures = m.multilabel_measure(true, first), m.multilabel_measure(true, second)
    return Systems(*measures, mixed, sizes, exact)
