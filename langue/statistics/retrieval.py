"""Ranks of the relevant documents of queries, metrics of retrieval, and the lexical baselines.

BM25 is the baseline of retrieval, TF-IDF that of similarity. An encoder that does not beat them is
not worth its cost.
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

K1, B = 1.2, 0.75  # as in Lucene
CUTOFF = 10  # of nDCG and of the larger recall
METRICS = ("ndcg@10", "mrr", "recall@1", "recall@10")
BLOCK = 1 << 24  # number of scores of queries and documents in memory at once


@dataclass(frozen=True)
class Collection:
    """The Q distinct queries and M distinct documents of a table."""

    queries: list[str]
    documents: list[str]
    first: Ints  # (Q,) the row of the first occurrence of each query
    places: list[tuple[int, int]]  # for each document, a row that has it, and its index there
    relevant: list[Ints]  # for each query, the relevant documents


def collect(queries: Sequence[str], documents: Sequence[Sequence[str]]) -> Collection:
    """Collect rows of a query and documents, of which the first is relevant.

    Equal queries become one query, for which the first document of each of its rows is relevant.
    Equal documents become one document.
    """
    first: dict[str, int] = {}
    answers: dict[str, dict[int, None]] = {}
    known: dict[str, int] = {}
    places: list[tuple[int, int]] = []
    for row, (query, given) in enumerate(zip(queries, documents, strict=True)):
        first.setdefault(query, row)
        for index, text in enumerate(given):
            if text not in known:
                known[text] = len(known)
                places.append((row, index))
        answer = known[given[0]]
        answers.setdefault(query, {})[answer] = None
    relevant = []
    for query in first:
        own = list(answers[query])
        relevant.append(np.asarray(own, np.int64))
    rows = np.asarray(list(first.values()), np.int64)
    return Collection(list(first), list(known), rows, places, relevant)


def ranks(scores: Floats, relevant: Sequence[Ints]) -> list[Ints]:
    """Return the ranks, from 1, of each query's relevant documents, best first; scores (Q, M).

    In case of ties, irrelevant documents are ranked first, so that a tie never improves a metric.
    """
    found = []
    for own, right in zip(scores, relevant, strict=True):
        ascending = np.sort(own[right])
        best_first = ascending[::-1]
        irrelevant_before = []
        for score in best_first:
            at_least = int((own >= score).sum())
            relevant_at_least = int((best_first >= score).sum())
            irrelevant_before.append(at_least - relevant_at_least)
        own_order = np.arange(1, len(right) + 1)
        found.append(np.asarray(irrelevant_before) + own_order)
    return found


def values(ranked: Sequence[Ints]) -> dict[str, Floats]:
    """Return the METRICS of each query, (Q,), from the ranks of its relevant documents.

    nDCG has gains of 0 and 1 (Järvelin and Kekäläinen 2002); mrr is the reciprocal of the first
    rank, without a cutoff; recall@k is the share of the relevant documents among the first k.
    """
    discounts = 1 / np.log2(np.arange(2, CUTOFF + 2))
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for own in ranked:
        is_high = own <= CUTOFF
        high = own[is_high]
        ideal = float(discounts[: len(own)].sum())
        gain = float(discounts[high - 1].sum())
        is_first = own <= 1
        found["ndcg@10"].append(gain / ideal)
        found["mrr"].append(1 / float(own[0]))
        found["recall@1"].append(float(is_first.mean()))
        found["recall@10"].append(float(is_high.mean()))
    return {name: np.asarray(each) for name, each in found.items()}


def cosine_ranks(queries: Floats, documents: Floats, relevant: Sequence[Ints]) -> list[Ints]:
    """Return `ranks` by the cosine of vectors (Q, D) and (M, D)."""
    columns = unit(documents).T  # (D, M)
    found: list[Ints] = []
    for begin, end in _blocks(len(queries), columns.shape[1]):
        cosines = unit(queries[begin:end]) @ columns
        found += ranks(cosines, relevant[begin:end])
    return found


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return vectors (N, D) scaled to length 1; vectors of length 0 remain unchanged."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    divisors = np.where(lengths > 0, lengths, 1)
    divided: npt.NDArray[Any] = vectors / divisors
    return divided


@dataclass(frozen=True)
class Mined:
    """Hard negatives for pairs of a query and an answer, as indices of documents."""

    negatives: list[list[int]]  # of each pair, the closest to its query first
    too_near: int  # number of documents skipped because they may be answers


def mine(
    whole: Collection,
    vectors: tuple[Floats, Floats],
    pairs: Sequence[tuple[int, int]],
    *,
    number: int,
    skip: int,
    margin: float,
) -> Mined:
    """Find the documents closest to a query that are not relevant to it.

    vectors: of the queries (Q, D) and the documents (M, D). pairs: indices of each query and its
    answer. Skipped are the `skip` closest documents, and those whose cosine is more than 1 - margin
    times that of the answer: many of those are unlabelled answers (de Souza P. Moreira et al. 2024,
    arXiv:2407.15831, section 3).
    """
    queries = unit(vectors[0])  # (Q, D)
    documents = unit(vectors[1])  # (M, D)
    index_of = {text: index for index, text in enumerate(whole.documents)}
    negatives = []
    too_near = 0
    for query, answer in pairs:
        cosines = documents @ queries[query]  # (M,)
        of_answer = float(cosines[answer])
        highest = of_answer - margin * abs(of_answer)
        excluded = set(whole.relevant[query].tolist())
        query_itself = index_of.get(whole.queries[query], -1)
        excluded.add(query_itself)
        nearest = np.argsort(-cosines, kind="stable").tolist()
        candidates = [index for index in nearest if index not in excluded]
        candidates = candidates[skip:]
        near = 0
        if candidates:
            near = int((cosines[candidates] > highest).sum())
        too_near += near
        negatives.append(candidates[near : near + number])
    return Mined(negatives, too_near)


class BM25:
    """BM25 scores of the documents of a collection (Robertson et al. 1994; idf as in Lucene, never
    negative).

    The score of a document is the sum over the query's words w, including repeated ones, of log(1 +
    (M - m_w + 0.5) / (m_w + 0.5)) f / (f + k1 (1 - b + b l / mean l)), where w occurs f times in
    the document's l words and in m_w of the M documents.
    """

    def __init__(self, documents: Sequence[str], k1: float = K1, b: float = B) -> None:
        self._words = Ngrams(1, min_df=1)
        fitted = self._words.fit(documents)[0]
        counts = fitted.astype(np.float64).tocsr()  # (M, words)
        lengths = np.asarray(counts.sum(axis=1)).ravel()  # (M,)
        mean = lengths.mean() if lengths.any() else 1.0
        n_documents = len(documents)
        holding = np.bincount(counts.indices, minlength=counts.shape[1])  # (words,)
        idf = np.log1p((n_documents - holding + 0.5) / (holding + 0.5))
        # for each of the z pairs of a document and one of its words
        words_of_document = np.diff(counts.indptr)
        document = np.repeat(np.arange(n_documents), words_of_document)  # (z,)
        saturation = k1 * (1 - b + b * lengths[document] / mean)
        frequency = counts.data
        weights = idf[counts.indices] * frequency / (frequency + saturation)
        parts = (weights, counts.indices, counts.indptr)
        self._weights = sparse.csr_matrix(parts, shape=counts.shape)

    def scores(self, queries: Sequence[str]) -> Floats:
        """Return the score of each document for each query, (Q, M)."""
        asked = self._words.transform(queries)[0].astype(np.float64)
        products = asked @ self._weights.T
        found: Floats = products.toarray()
        return found

    def ranks(self, queries: Sequence[str], relevant: Sequence[Ints]) -> list[Ints]:
        """Return the ranks of each query's relevant documents; see `ranks`."""
        found: list[Ints] = []
        for begin, end in _blocks(len(queries), self._weights.shape[0]):
            scores = self.scores(queries[begin:end])
            found += ranks(scores, relevant[begin:end])
        return found


def tfidf_cosines(texts: Sequence[str], pairs: Sequence[str], known: Sequence[str]) -> Floats:
    """Return the cosine of the TF-IDF vectors of each text and its pair, (N,); 0 if one is empty.

    known: additional texts for the document frequencies.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    counts = Ngrams(1, min_df=1).fit([*texts, *pairs, *known])[0]
    n = len(texts)
    if not counts.shape[1]:
        return np.zeros(n)
    transformer = TfidfTransformer(sublinear_tf=True)
    weighted = transformer.fit_transform(counts).tocsr()
    first = weighted[:n]
    second = weighted[n : 2 * n]
    cosines = first.multiply(second).sum(axis=1)
    return np.asarray(cosines, np.float64).ravel()


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    """Return ranges of rows with at most BLOCK scores each."""
    size = max(1, BLOCK // max(1, columns))
    return [(begin, min(rows, begin + size)) for begin in range(0, rows, size)]
