"""What arrives: queries, documents, and which documents answer which query.
What leaves: how high these are ranked, and what counts of words alone find.

BM25 is the baseline of retrieval, TF-IDF that of similarity: an encoder that does not beat them is
not worth its price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from langue.statistics.ngrams import Ngrams

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

K1, B = 1.2, 0.75  # Lucene's
CUTOFF = 10  # of nDCG and of the wider recall
METRICS = ("ndcg@10", "mrr", "recall@1", "recall@10")
BLOCK = 1 << 24  # scores of queries and documents that are held at once


@dataclass(frozen=True)
class Collection:
    """The distinct queries and documents of rows, Q and M of them."""

    queries: list[str]
    documents: list[str]
    first: Ints  # (Q,) the row in which each query stands first
    places: list[tuple[int, int]]  # of each document, a row that has it and which one of it it is
    relevant: list[Ints]  # of each query, which of the documents answer it


def collect(queries: Sequence[str], documents: Sequence[Sequence[str]]) -> Collection:
    """Of rows of a query and documents, of which the first answers it. A query of several rows is
    one, answered by the first document of each; equal documents are one.
    """
    first: dict[str, int] = {}
    answers: dict[str, dict[int, None]] = {}
    known: dict[str, int] = {}
    places: list[tuple[int, int]] = []
    for row, (query, given) in enumerate(zip(queries, documents, strict=True)):
        first.setdefault(query, row)
        for place, text in enumerate(given):
            if text not in known:
                known[text] = len(known)
                places.append((row, place))
        answers.setdefault(query, {})[known[given[0]]] = None
    relevant = [np.asarray(list(answers[query]), np.int64) for query in first]
    rows = np.asarray(list(first.values()), np.int64)
    return Collection(list(first), list(known), rows, places, relevant)


def ranks(scores: Floats, relevant: Sequence[Ints]) -> list[Ints]:
    """The ranks, from 1 on, of each query's relevant documents, best first; scores (Q, M).

    Of equal scores those of other documents come first: a tie never flatters.
    """
    found = []
    for own, right in zip(scores, relevant, strict=True):
        reached = np.sort(own[right])[::-1]
        # of all that reach a score, those that are relevant, too
        above = [int((own >= each).sum() - (reached >= each).sum()) for each in reached]
        found.append(np.asarray(above) + np.arange(1, len(right) + 1))
    return found


def values(ranked: Sequence[Ints]) -> dict[str, Floats]:
    """The METRICS of each query, (Q,), by the ranks of its relevant documents.

    nDCG has gains of 0 and 1 (Järvelin and Kekäläinen 2002); mrr is the inverse of the first rank,
    however low; recall the share of the relevant documents that is among the first.
    """
    discounts = 1 / np.log2(np.arange(2, CUTOFF + 2))
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for own in ranked:
        ideal = float(discounts[: len(own)].sum())
        gained = float(discounts[own[own <= CUTOFF] - 1].sum())
        found["ndcg@10"].append(gained / ideal)
        found["mrr"].append(1 / float(own[0]))
        found["recall@1"].append(float((own <= 1).mean()))
        found["recall@10"].append(float((own <= CUTOFF).mean()))
    return {name: np.asarray(each) for name, each in found.items()}


def cosine_ranks(queries: Floats, documents: Floats, relevant: Sequence[Ints]) -> list[Ints]:
    """As `ranks`, by the cosine of vectors (Q, D) and (M, D)."""
    columns = unit(documents).T
    found: list[Ints] = []
    for begin, end in _blocks(len(queries), columns.shape[1]):
        found += ranks(unit(queries[begin:end]) @ columns, relevant[begin:end])
    return found


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Vectors (N, D) of length 1; those of length 0 as they are."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    divided: npt.NDArray[Any] = vectors / np.where(lengths > 0, lengths, 1)
    return divided


@dataclass(frozen=True)
class Mined:
    """The hard negatives of pairs of a query and an answer, as numbers of documents."""

    negatives: list[list[int]]  # of each pair, the nearest to its query first
    too_near: int  # documents that were passed over since they may be answers, too


def mine(
    whole: Collection,
    vectors: tuple[Floats, Floats],
    pairs: Sequence[tuple[int, int]],
    *,
    number: int,
    skip: int,
    margin: float,
) -> Mined:
    """The documents that are nearest to a query and do not answer it.

    vectors: of the queries (Q, D) and the documents (M, D). pairs: the query and the answer of
    each, as numbers. Passed over are the `skip` nearest, and documents whose cosine is more than 1
    - margin times that of the answer: many of those are answers that nobody has marked (de Souza P.
    Moreira et al. 2024, arXiv:2407.15831, section 3).
    """
    queries = unit(vectors[0])  # (Q, D)
    documents = unit(vectors[1])  # (M, D)
    number_of = {text: place for place, text in enumerate(whole.documents)}
    negatives = []
    too_near = 0
    for query, answer in pairs:
        cosines = documents @ queries[query]  # (M,)
        of_answer = float(cosines[answer])
        highest = of_answer - margin * abs(of_answer)
        barred = set(whole.relevant[query].tolist())
        barred.add(number_of.get(whole.queries[query], -1))  # a document that is the query itself
        nearest = np.argsort(-cosines, kind="stable").tolist()
        others = [each for each in nearest if each not in barred]
        others = others[skip:]
        near = int((cosines[others] > highest).sum()) if others else 0
        too_near += near
        negatives.append(others[near : near + number])
    return Mined(negatives, too_near)


class BM25:
    """The documents of a collection, by their words (Robertson et al. 1994; idf as Lucene has it,
    which is never negative).

    A query's score of a document is the sum over its words w, each as often as it stands there, of
    log(1 + (M - m_w + 0.5) / (m_w + 0.5)) f / (f + k1 (1 - b + b l / mean l)), where w stands f
    times in the document's l words and in m_w of the M documents.
    """

    def __init__(self, documents: Sequence[str], k1: float = K1, b: float = B) -> None:
        self._words = Ngrams(1, min_df=1)
        counts = self._words.fit(documents)[0].astype(np.float64).tocsr()  # (M, words)
        lengths = np.asarray(counts.sum(axis=1)).ravel()  # (M,)
        mean = lengths.mean() if lengths.any() else 1.0
        holding = np.bincount(counts.indices, minlength=counts.shape[1])  # (words,)
        idf = np.log1p((len(documents) - holding + 0.5) / (holding + 0.5))
        # of each word of each document, z of them
        row = np.repeat(np.arange(len(documents)), np.diff(counts.indptr))  # (z,)
        slow = k1 * (1 - b + b * lengths[row] / mean)
        weights = idf[counts.indices] * counts.data / (counts.data + slow)
        self._weights = sparse.csr_matrix(
            (weights, counts.indices, counts.indptr), shape=counts.shape
        )

    def scores(self, queries: Sequence[str]) -> Floats:
        """(Q, M), dense."""
        asked = self._words.transform(queries)[0].astype(np.float64)
        found: Floats = (asked @ self._weights.T).toarray()
        return found

    def ranks(self, queries: Sequence[str], relevant: Sequence[Ints]) -> list[Ints]:
        """The ranks of each query's relevant documents, as `ranks` has them."""
        found: list[Ints] = []
        for begin, end in _blocks(len(queries), self._weights.shape[0]):
            found += ranks(self.scores(queries[begin:end]), relevant[begin:end])
        return found


def tfidf_cosines(texts: Sequence[str], pairs: Sequence[str], known: Sequence[str]) -> Floats:
    """The cosine of the TF-IDF of each text with that of its pair, (N,); 0 where one is empty.

    known: texts besides by which words are weighed.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = Ngrams(1, min_df=1).fit([*texts, *pairs, *known])[0]
    if not counts.shape[1]:
        return np.zeros(len(texts))
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts).tocsr()
    n = len(texts)
    cosines = weighted[:n].multiply(weighted[n : 2 * n]).sum(axis=1)
    return np.asarray(cosines, np.float64).ravel()


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    size = max(1, BLOCK // max(1, columns))
    return [(begin, min(rows, begin + size)) for begin in range(0, rows, size)]
