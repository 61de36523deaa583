"""Evaluation of embeddings: takes the vectors of rows and which documents answer which query;
returns the similarities of pairs, and the rank of each query's positives among the documents of all
rows.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from langue.statistics import retrieval
from langue.statistics.metrics import Floats, Measure
from langue.tasks import judgement
from langue.tasks.embedding_rows import Gold
from langue.tasks.pooled import worst_mistakes

if TYPE_CHECKING:
    from langue.text.read.source import Table


def similarities(predictions: Any) -> Floats:
    """Return the cosines (N,) of rows of two vectors; a baseline's predictions already are
    cosines.
    """
    if isinstance(predictions, np.ndarray):
        return predictions
    pairs = np.stack([each[:2] for each in predictions]).astype(np.float64)  # (N, 2, D)
    unit = retrieval.unit(pairs)
    cosines: Floats = (unit[:, 0] * unit[:, 1]).sum(-1)
    return cosines


def collection(golds: Sequence[Gold]) -> retrieval.Collection:
    return retrieval.collect([gold.query for gold in golds], [gold.documents for gold in golds])


def _vectors(whole: retrieval.Collection, predictions: Any) -> tuple[Floats, Floats]:
    """Return the vectors of the queries (Q, D) and of the documents (M, D)."""
    queries = [predictions[row][0] for row in whole.first]
    documents = [predictions[row][1 + place] for row, place in whole.places]
    return np.stack(queries).astype(np.float64), np.stack(documents).astype(np.float64)


def search_metrics(golds: Sequence[Gold], predictions: Any) -> dict[str, Floats]:
    """Return each metric for each row (N,): the value of its query in the first row that has this
    query, NaN in later ones.

    predictions: vectors, or a baseline's ranks of each query's positives.
    """
    whole = collection(golds)
    ranks = predictions
    if len(predictions) == len(golds) and np.ndim(predictions[0]) == 2:
        ranks = retrieval.cosine_ranks(*_vectors(whole, predictions), whole.relevant)
    found = {}
    for name, own in retrieval.values(ranks).items():
        of_rows = np.full(len(golds), np.nan)
        of_rows[whole.first] = own
        found[name] = of_rows
    return found


def search_measure(values: Mapping[str, Floats]) -> Measure:
    """Return the mean over queries, each weighted as the first row that contains it."""
    counted = np.isfinite(next(iter(values.values())))

    def measure(weights: Floats) -> dict[str, Floats]:
        own = weights[counted]  # (Q, R)
        total = own.sum(axis=0)  # (R,)
        below = np.where(total > 0, total, np.nan)
        return {name: each[counted] @ own / below for name, each in values.items()}

    return measure


def worst_searches(
    table: "Table", golds: Sequence[Gold], predictions: Any, limit: int
) -> judgement.Examples:
    """Return the queries whose positives are ranked lowest."""
    whole = collection(golds)
    queries, documents = _vectors(whole, predictions)
    ranks = retrieval.cosine_ranks(queries, documents, whole.relevant)
    rank = np.ones(len(golds), np.int64)  # the rank of each row's best positive
    rank[whole.first] = [int(own[0]) for own in ranks]
    query_of = {int(row): query for query, row in enumerate(whole.first)}

    def values(row: int) -> tuple[int, str]:
        own = query_of[row]
        cosines = retrieval.unit(documents) @ retrieval.unit(queries[own])  # (M,)
        cosines[whole.relevant[own]] = -np.inf
        return int(rank[row]), whole.documents[int(cosines.argmax())]

    return judgement.Examples(
        title="Worst searches",
        columns=("rank of the best answer", "best of the others"),
        rows=worst_mistakes(table, rank.astype(np.float64), rank > 1, limit, values),
        texts_are="query and answer",
        note="The queries whose best answer is ranked lowest first.",
    )


def worst_similarities(
    table: "Table", golds: Sequence[Gold], predictions: Any, limit: int
) -> judgement.Examples:
    """Return the pairs whose cosines differ most from their scores."""
    true = np.asarray([gold.scores[0] for gold in golds])
    said = similarities(predictions)
    errors = np.abs(true - said)

    def values(row: int) -> tuple[str, str, float]:
        return f"{true[row]:.3f}", f"{said[row]:.3f}", float(errors[row])

    return judgement.Examples(
        title="Worst mistakes",
        columns=("true", "cosine", "error"),
        rows=worst_mistakes(table, errors, errors > 1e-6, limit, values),
        note="The largest errors first: a good place to look for wrong scores, too.",
    )


def tfidf_similarities(train: Sequence[Gold], test: Sequence[Gold]) -> Floats:
    """Return the baseline of scored pairs: the TF-IDF cosine (N,) of the two texts."""
    known: list[str] = []
    for gold in train:
        known += [gold.query, gold.documents[0]]
    queries = [gold.query for gold in test]
    documents = [gold.documents[0] for gold in test]
    return retrieval.tfidf_cosines(queries, documents, known)


def bm25_ranks(golds: Sequence[Gold]) -> list[retrieval.Ints]:
    """Return the retrieval baseline: the BM25 rank of each query's positives."""
    whole = collection(golds)
    return retrieval.BM25(whole.documents).ranks(whole.queries, whole.relevant)
