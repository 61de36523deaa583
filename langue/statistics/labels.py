"""Label predictions: the counts behind their metrics, intervals, and paired systems; C labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from langue.statistics import metrics as m
from langue.statistics.compare import Systems, mcnemar
from langue.statistics.intervals import Counts, Interval, clopper_pearson

# shares of right answers, for which McNemar's test is exact
SHARES_OF_RIGHT = ("accuracy", "f1_micro")


def label_margins(confusion: m.Ints) -> tuple[m.Ints, m.Ints, m.Ints]:
    """Return for each label (C,) the number of examples classified correctly, of those that have
    it, and of those predicted to have it.
    """
    hit = confusion.diagonal()
    true = confusion.sum(axis=1)
    predicted = confusion.sum(axis=0)
    return hit, true, predicted


def label_counts(hit: m.Ints, true: m.Ints, predicted: m.Ints) -> Counts:
    """Return the numbers of examples behind each label's part of a macro average, for the labels
    that occur.
    """
    either = true + predicted - hit
    occurs = either > 0
    return {
        "precision_macro": predicted[occurs],
        "recall_macro": true[occurs],
        "f1_macro": either[occurs],
    }


def positive_intervals(
    hit: m.Ints, true: m.Ints, predicted: m.Ints, positive: int
) -> dict[str, Interval | None]:
    """Return exact intervals of one label's precision, recall and F1."""
    right = int(hit[positive])
    n_true = int(true[positive])
    n_predicted = int(predicted[positive])
    either = n_true + n_predicted - right
    # F1 is 2J / (1 + J) with J = right / either, a share of the examples that have the label or are
    # predicted to.
    low, high = clopper_pearson(right, either)
    f1_low = 2 * low / (1 + low)
    f1_high = 2 * high / (1 + high)
    return {
        "precision": clopper_pearson(right, n_predicted),
        "recall": clopper_pearson(right, n_true),
        "f1": (f1_low, f1_high),
    }


def systems_of_labels(
    true: m.Ints, first: m.Ints, second: m.Ints, n_labels: int, positive: int, metric: str
) -> Systems:
    """Return two systems that gave each example one label, all arguments (N,).

    Examples with the same label and the same two answers are one kind.
    """
    exact = None
    if metric in SHARES_OF_RIGHT:
        exact = mcnemar(first == true, second == true)
    codes = (true * n_labels + first) * n_labels + second  # (N,) a unique number for each kind
    kinds, sizes = np.unique(codes, return_counts=True)
    true = kinds // n_labels**2  # (K,), like the next two
    first = kinds // n_labels % n_labels
    second = kinds % n_labels

    def measure(true: m.Ints, answers: m.Ints) -> m.Measure:
        return m.decision_measure(true, answers, n_labels, positive)

    both_true = np.concatenate([true, true])  # (2K,)
    both_answers = np.concatenate([first, second])
    mixed = measure(both_true, both_answers)
    return Systems(measure(true, first), measure(true, second), mixed, sizes, exact)


def systems_of_several(
    true: npt.NDArray[np.bool_],
    first: npt.NDArray[np.bool_],
    second: npt.NDArray[np.bool_],
    metric: str,
) -> Systems:
    """Return two systems that gave each example any number of labels, all arguments (N, C).

    Examples with the same labels and the same two answers are one kind.
    """
    exact = None
    if metric == "accuracy":  # a text is right if all its labels are
        first_right = (first == true).all(axis=1)
        second_right = (second == true).all(axis=1)
        exact = mcnemar(first_right, second_right)
    together = np.hstack([true, first, second])  # (N, 3C)
    kinds, sizes = np.unique(together, axis=0, return_counts=True)
    true, first, second = np.split(kinds, 3, axis=1)  # three arrays (K, C)
    both_true = np.concatenate([true, true])  # (2K, C)
    both_answers = np.concatenate([first, second])
    return Systems(
        m.multilabel_measure(true, first),
        m.multilabel_measure(true, second),
        m.multilabel_measure(both_true, both_answers),
        sizes,
        exact,
    )
