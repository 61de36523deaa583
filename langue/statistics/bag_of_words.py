"""The bag-of-words baseline: linear models of the TF-IDF of n-grams.

TF-IDF with logistic regression (ridge regression for scores) is strong on topics and sentiment and
takes seconds; a Transformer that does not beat it is not worth its cost. The order of the n-grams
and the strength of the regularisation are chosen on a fifth of the training set, never on the test
set.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from langue.errors import DataError
from langue.statistics.ngrams import Ngrams
from langue.text.quality.script import UNSPACED

# inverse regularisation: C of scikit-learn; ridge regression uses alpha = 40 / C
STRENGTHS = (4.0, 32.0)
HELD_OUT = 0.2
# maximum amount of training text; of a larger set a seeded random part is used, and the name of the
# baseline says so
MAX_CHARACTERS = 100_000_000
BLOCK = 20_000  # number of test texts converted to features at once
ORDERS = {1: "unigram", 2: "bigram", 3: "trigram"}

Array = npt.NDArray[Any]


# Maps held-out targets and predictions to their quality, higher being better, and to whatever was
# tuned on them, such as a threshold.
Quality = Callable[[Array, Array], tuple[float | None, Any]]


class Learner(Protocol):
    """A linear model over features (N, F)."""

    name: str

    def fit(self, rows: Any, targets: Array, strength: float) -> Any:
        """Return the model fitted to these rows; strength: inverse regularisation."""

    def predict(self, model: Any, rows: Any, targets: Array) -> Array:
        """Return the predictions for rows; targets: those the model was fitted to."""


@dataclass(frozen=True)
class Answers:
    """The predictions of the bag-of-words baseline for the test texts."""

    name: str
    predictions: Array
    settled: Any  # whatever the quality function tuned for the chosen model; None: nothing
    seconds: float


def answer(
    learner: Learner,
    quality: Quality,
    train_texts: Sequence[str],
    train_targets: npt.ArrayLike,
    test_texts: Sequence[str],
    *,
    train_pairs: Sequence[str] | None = None,
    test_pairs: Sequence[str] | None = None,
    seed: int = 0,
) -> Answers:
    """Train on texts, or pairs of texts, and predict the test texts.

    quality: the criterion for choosing the order of the n-grams and the regularisation.
    """
    began = time.perf_counter()
    if not len(train_texts) or not len(test_texts):
        raise DataError("the baseline needs texts to train on and texts to be tested on")
    chosen = _affordable(train_texts, train_pairs, seed)
    train = [
        [texts[i] for i in chosen] for texts in (train_texts, train_pairs) if texts is not None
    ]
    targets = np.asarray(train_targets)[chosen]
    by_character = _is_unspaced(train[0])
    orders = (2, 3) if by_character else (1, 2)
    features = Features(orders[-1], min_df=2 if len(targets) >= 1000 else 1)
    counts = features.fit(train)
    order, strength, settled = _choose(learner, quality, features, counts, targets, orders, seed)
    model = learner.fit(features.matrix(counts, order), targets, strength)
    answers = [
        learner.predict(model, features.matrix(features.transform(block), order), targets)
        for block in _blocks([texts for texts in (test_texts, test_pairs) if texts is not None])
    ]
    name = f"{'character ' if by_character else ''}{ORDERS[order]} tf-idf + {learner.name}"
    if len(chosen) < len(train_texts):
        name += f" on {len(chosen):,} of {len(train_texts):,} training texts"
    seconds = round(time.perf_counter() - began, 3)
    return Answers(name, np.concatenate(answers), settled, seconds)


class Ridge:
    """Ridge regression: targets are numbers (N,), and predictions are clipped to their range."""

    name = "ridge regression"

    def fit(self, rows: Any, targets: Array, strength: float) -> Any:
        from sklearn.linear_model import Ridge

        return Ridge(alpha=40 / strength).fit(rows, targets)

    def predict(self, model: Any, rows: Any, targets: Array) -> Array:
        scores: Array = np.clip(model.predict(rows), targets.min(), targets.max())
        return scores


class Logistic:
    """Logistic regression: targets are label ids (N,), predictions are probabilities (N, C)."""

    name = "logistic regression"

    def __init__(self, n_labels: int, class_weight: str | None = None) -> None:
        """class_weight: as in scikit-learn."""
        self.n_labels = n_labels
        self.class_weight = class_weight

    def fit(self, rows: Any, targets: Array, strength: float) -> Any:
        """Return the fitted model, or `None` if there is only one label, so that there is nothing
        to learn.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(targets)) == 1:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=strength, max_iter=200, class_weight=self.class_weight)
            return model.fit(rows, targets)

    def predict(self, model: Any, rows: Any, targets: Array) -> Array:
        said = np.zeros((rows.shape[0], self.n_labels))
        if model is None:
            said[:, int(targets[0])] = 1.0
        else:
            said[:, model.classes_.astype(int)] = model.predict_proba(rows)
        return said


class LogisticOfEach:
    """One logistic regression for each label: targets are zeros and ones (N, C), predictions are
    probabilities (N, C).
    """

    name = "logistic regression"

    def __init__(self, class_weight: str | None = None) -> None:
        self.one = Logistic(2, class_weight)

    def fit(self, rows: Any, targets: Array, strength: float) -> Any:
        return [self.one.fit(rows, column, strength) for column in targets.T]

    def predict(self, model: Any, rows: Any, targets: Array) -> Array:
        columns = [
            self.one.predict(each, rows, column)[:, 1]
            for each, column in zip(model, targets.T, strict=True)
        ]
        return np.stack(columns, axis=1)


class Features:
    """TF-IDF rows of texts; for pairs: those of both sides, their products and differences, and
    measures of overlap.
    """

    def __init__(self, order: int, min_df: int) -> None:
        self.ngrams = Ngrams(order, min_df)
        self.idf: dict[int, Any] = {}

    def fit(self, columns: list[list[str]]) -> list[list[Any]]:
        """Return the counts of each column of texts (one, or two for pairs): a list with one matrix
        for each order.
        """
        both = self.ngrams.fit([text for column in columns for text in column])
        n = len(columns[0])
        return [
            [matrix[start : start + n] for matrix in both]
            for start in range(0, n * len(columns), n)
        ]

    def transform(self, columns: list[list[str]]) -> list[list[Any]]:
        return [self.ngrams.transform(column) for column in columns]

    def matrix(self, counts: list[list[Any]], order: int) -> Any:
        """Return the features (N, F) of n-grams up to `order`, with the document frequencies of the
        first call, which is that of training.
        """
        from sklearn.feature_extraction.text import TfidfTransformer

        stacked = [sparse.hstack(matrices[:order], format="csr") for matrices in counts]
        if not stacked[0].shape[1]:  # no n-grams: only the intercept can be learnt
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
    """Return (N, 6): cosine, Jaccard index, the share of each side's words in the other, and the
    log ratio of lengths, signed and absolute.
    """
    shared, left, right = (
        np.asarray(counts.sum(axis=1)).ravel()
        for counts in (words[0].multiply(words[1]), words[0], words[1])
    )
    cosine = np.asarray(weighted[0].multiply(weighted[1]).sum(axis=1)).ravel()
    ratio = np.log1p(left) - np.log1p(right)
    shares = [shared / np.maximum(below, 1) for below in (left + right - shared, left, right)]
    return sparse.csr_matrix(np.stack([cosine, *shares, ratio, np.abs(ratio)], axis=1))


def _affordable(texts: Sequence[str], pairs: Sequence[str] | None, seed: int) -> Array:
    """Return the indices of the rows to train on, in order: all, or a random part within
    `MAX_CHARACTERS`.
    """
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
    learner: Learner,
    quality: Quality,
    features: Features,
    counts: list[list[Any]],
    targets: Array,
    orders: tuple[int, ...],
    seed: int,
) -> tuple[int, float, Any]:
    """Return the order and strength that are best on a held-out part of the training set, and
    whatever was tuned there.
    """
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    n_held = int(HELD_OUT * len(targets))
    held = np.sort(shuffled[:n_held])
    kept = np.sort(shuffled[n_held:])
    best = -np.inf
    choice: tuple[int, float, Any] = (orders[0], STRENGTHS[0], None)
    if n_held < 10:  # too few for a meaningful comparison
        return choice
    for order in orders:
        rows = features.matrix(counts, order)
        for strength in STRENGTHS:
            model = learner.fit(rows[kept], targets[kept], strength)
            said = learner.predict(model, rows[held], targets[kept])
            score, settled = quality(targets[held], said)
            if score is not None and score > best:
                best = score
                choice = (order, strength, settled)
    return choice


def _blocks(columns: list[Sequence[str]]) -> list[list[list[str]]]:
    return [
        [list(column[start : start + BLOCK]) for column in columns]
        for start in range(0, len(columns[0]), BLOCK)
    ]
