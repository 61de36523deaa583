"""Floor 5. What arrives: the texts and targets of a model's training and test. What leaves: what a
bag of words does.

TF-IDF of n-grams with logistic regression (ridge regression for scores) is strong on topics and
sentiment and takes seconds; a Transformer that does not beat it is not worth its price. The order
of the n-grams and the strength of the regularisation are chosen on a fifth of the training set,
never on the test set.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from langue.errors import DataError
from langue.evaluation.judge import MAIN_METRIC
from langue.evaluation.ngrams import Ngrams
from langue.tasks import metrics as m
from langue.text.quality.script import UNSPACED

# inverse regularisation, scikit-learn's C; ridge takes its inverse times 40
STRENGTHS = (4.0, 32.0)
HELD_OUT = 0.2
# of training text; beyond it a seeded part is used, and the name says so
MAX_CHARACTERS = 100_000_000
BLOCK = 20_000  # test texts turned into features at once
ORDERS = {1: "unigram", 2: "bigram", 3: "trigram"}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Baseline:
    """What the bag of words answers to the test texts, and how good that is."""

    name: str
    metrics: m.Metrics
    predictions: Array  # as `judge.judge` takes them: probabilities (N, C), or scores (N,)
    threshold: float  # for multilabel: the probability from which on a label is given
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """What metrics.json keeps of it."""
        return {"name": self.name, "metrics": dict(self.metrics), "seconds": self.seconds}


def baseline(
    kind: str,
    train_texts: Sequence[str],
    train_targets: npt.ArrayLike,
    test_texts: Sequence[str],
    test_targets: npt.ArrayLike,
    *,
    train_pairs: Sequence[str] | None = None,
    test_pairs: Sequence[str] | None = None,
    n_labels: int | None = None,
    positive: int = 1,
    seed: int = 0,
    metric: str | None = None,
    balanced: bool = False,
    tune_threshold: bool = False,
) -> Baseline:
    """Train the baseline and have it answer the test texts.

    `kind` is classify (targets are label ids (N,)), multilabel (zeros and ones (N, C)) or regress
    (numbers (N,)). `positive`: of two labels, the one that precision, recall and F1 are of.
    `metric`: what it is chosen by, as the model beside it is; None: the main one of the kind.
    `balanced`: rare labels weigh more, as in the model beside it. `tune_threshold`: for multilabel
    a threshold is chosen, as the model's is.
    """
    began = time.perf_counter()
    if not len(train_texts) or not len(test_texts):
        raise DataError("the baseline needs texts to train on and texts to be tested on")
    targets = np.asarray(train_targets)
    truth = np.asarray(test_targets)
    if n_labels is None and kind == "classify":
        n_labels = int(max(targets.max(), truth.max())) + 1
    chosen = _affordable(train_texts, train_pairs, seed)
    train = [
        [texts[i] for i in chosen] for texts in (train_texts, train_pairs) if texts is not None
    ]
    targets = targets[chosen]

    by_character = _is_unspaced(train[0])
    orders = (2, 3) if by_character else (1, 2)
    features = Features(orders[-1], min_df=2 if len(targets) >= 1000 else 1)
    counts = features.fit(train)
    by = metric or MAIN_METRIC[kind]
    weights = "balanced" if balanced else None
    order, strength, threshold = _choose(
        kind,
        features,
        counts,
        targets,
        orders,
        n_labels,
        positive,
        seed,
        by,
        weights,
        tune_threshold,
    )
    model = _fit(kind, features.matrix(counts, order), targets, strength, weights)
    answers = [
        _predict(kind, model, features.matrix(features.transform(block), order), targets, n_labels)
        for block in _blocks([texts for texts in (test_texts, test_pairs) if texts is not None])
    ]
    name = f"{'character ' if by_character else ''}{ORDERS[order]} tf-idf + "
    name += "ridge regression" if kind == "regress" else "logistic regression"
    if len(chosen) < len(train_texts):
        name += f" on {len(chosen):,} of {len(train_texts):,} training texts"
    name += ", balanced" if balanced else ""
    predictions = np.concatenate(answers)
    metrics = _measure(kind, truth, predictions, n_labels, positive, threshold)
    return Baseline(name, metrics, predictions, threshold, round(time.perf_counter() - began, 3))


class Features:
    """TF-IDF rows of texts; of pairs, both sides, what they share, what differs, and how much they
    overlap."""

    def __init__(self, order: int, min_df: int) -> None:
        self.ngrams = Ngrams(order, min_df)
        self.idf: dict[int, Any] = {}

    def fit(self, columns: list[list[str]]) -> list[list[Any]]:
        """Counts of each column of texts (one, or two for pairs): a list with one matrix an
        order."""
        both = self.ngrams.fit([text for column in columns for text in column])
        n = len(columns[0])
        return [
            [matrix[start : start + n] for matrix in both]
            for start in range(0, n * len(columns), n)
        ]

    def transform(self, columns: list[list[str]]) -> list[list[Any]]:
        return [self.ngrams.transform(column) for column in columns]

    def matrix(self, counts: list[list[Any]], order: int) -> Any:
        """The features (N, F) of n-grams up to `order`, weighted as the first call, training's,
        found."""
        from sklearn.feature_extraction.text import TfidfTransformer

        stacked = [sparse.hstack(matrices[:order], format="csr") for matrices in counts]
        if not stacked[0].shape[1]:  # no n-gram at all: only the intercept is left to learn
            return sparse.csr_matrix((stacked[0].shape[0], 1))
        if order not in self.idf:
            self.idf[order] = TfidfTransformer(sublinear_tf=True).fit(sparse.vstack(stacked))
        weighted = [self.idf[order].transform(column) for column in stacked]
        if len(weighted) == 1:
            return weighted[0]
        left, right = weighted
        overlap = _overlap(weighted, [matrices[0] > 0 for matrices in counts])
        return sparse.hstack(
            [left, right, left.multiply(right), abs(left - right), overlap], format="csr"
        )


def _overlap(weighted: list[Any], words: list[Any]) -> Any:
    """(N, 6): cosine, Jaccard, the share of each side's words in the other, the ratio of lengths,
    signed and not."""
    shared, left, right = (
        np.asarray(counts.sum(axis=1)).ravel()
        for counts in (words[0].multiply(words[1]), words[0], words[1])
    )
    cosine = np.asarray(weighted[0].multiply(weighted[1]).sum(axis=1)).ravel()
    ratio = np.log1p(left) - np.log1p(right)
    shares = [shared / np.maximum(below, 1) for below in (left + right - shared, left, right)]
    return sparse.csr_matrix(np.stack([cosine, *shares, ratio, np.abs(ratio)], axis=1))


def _affordable(texts: Sequence[str], pairs: Sequence[str] | None, seed: int) -> Array:
    """The rows to train on, in order: all, or as many as `MAX_CHARACTERS` allows, drawn at
    random."""
    sizes = np.array([len(text) for text in texts])
    if pairs is not None:
        sizes = sizes + np.array([len(text) for text in pairs])
    shuffled = np.random.default_rng(seed).permutation(len(texts))
    fits = max(1, int(np.searchsorted(np.cumsum(sizes[shuffled]), MAX_CHARACTERS, side="right")))
    return np.sort(shuffled[:fits])


def _is_unspaced(texts: Sequence[str]) -> bool:
    sample = "".join(texts[:: max(1, len(texts) // 1000)])[:1_000_000]
    return len(re.findall(f"[{UNSPACED}]", sample)) > 0.3 * len(re.findall(r"\S", sample))


def _choose(
    kind: str,
    features: Features,
    counts: list[list[Any]],
    targets: Array,
    orders: tuple[int, ...],
    n_labels: int | None,
    positive: int,
    seed: int,
    by: str,
    weights: str | None,
    tune_threshold: bool,
) -> tuple[int, float, float]:
    """The order, the strength and, for multilabel, the threshold that do best in the metric `by` on
    a part of the training set held out for it."""
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    n_held = int(HELD_OUT * len(targets))
    held = np.sort(shuffled[:n_held])
    kept = np.sort(shuffled[n_held:])
    best = -np.inf
    choice = (orders[0], STRENGTHS[0], m.THRESHOLD)
    sign = -1 if by in m.LOWER_IS_BETTER else 1
    if n_held < 10:  # too few to tell anything
        return choice
    for order in orders:
        rows = features.matrix(counts, order)
        for strength in STRENGTHS:
            model = _fit(kind, rows[kept], targets[kept], strength, weights)
            said = _predict(kind, model, rows[held], targets[kept], n_labels)
            threshold = m.best_threshold(targets[held], said, by) if tune_threshold else m.THRESHOLD
            score = _measure(kind, targets[held], said, n_labels, positive, threshold)[by]
            if score is not None and sign * score > best:
                best = sign * score
                choice = (order, strength, threshold)
    return choice


def _fit(kind: str, rows: Any, targets: Array, strength: float, weights: str | None = None) -> Any:
    """A fitted estimator; `None` where one label only leaves nothing to learn. For multilabel a
    list, one a label. `weights`: scikit-learn's `class_weight`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if kind == "regress":
            return Ridge(alpha=40 / strength).fit(rows, targets)
        if kind == "multilabel":
            return [_fit("classify", rows, column, strength, weights) for column in targets.T]
        if len(np.unique(targets)) == 1:
            return None
        return LogisticRegression(C=strength, max_iter=200, class_weight=weights).fit(rows, targets)


def _predict(kind: str, model: Any, rows: Any, targets: Array, n_labels: int | None) -> Array:
    """Scores (N,) within the range of the training targets, or probabilities (N, C)."""
    if kind == "regress":
        scores: Array = np.clip(model.predict(rows), targets.min(), targets.max())
        return scores
    if kind == "multilabel":
        columns = [
            _predict("classify", one, rows, column, 2)[:, 1]
            for one, column in zip(model, targets.T, strict=True)
        ]
        return np.stack(columns, axis=1)
    assert n_labels is not None
    said = np.zeros((rows.shape[0], n_labels))
    if model is None:
        said[:, int(targets[0])] = 1.0
    else:
        said[:, model.classes_.astype(int)] = model.predict_proba(rows)
    return said


def _measure(
    kind: str,
    targets: Array,
    predictions: Array,
    n_labels: int | None,
    positive: int,
    threshold: float,
) -> m.Metrics:
    if kind == "regress":
        return m.regression(targets, predictions)
    if kind == "multilabel":
        return m.multilabel(targets, predictions, threshold)
    assert n_labels is not None
    return m.classification(targets, predictions, n_labels, positive)


def _blocks(columns: list[Sequence[str]]) -> list[list[list[str]]]:
    return [
        [list(column[start : start + BLOCK]) for column in columns]
        for start in range(0, len(columns[0]), BLOCK)
    ]
