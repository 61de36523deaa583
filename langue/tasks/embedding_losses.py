"""Losses of text embeddings: take the vectors of a batch and which of them are queries, positives
and negatives; return a loss as (sum, count).

Shapes: n queries, m documents, D elements. Each docstring names the equivalent loss of
sentence-transformers, which the tests compare with. The "answer" of a query is its positive
document.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from langue.data.batch import Batch

Loss = tuple[Tensor, float]
# columns of a sequence's targets (N, 4): its row; its position in the row (0: query, 1: positive,
# then negatives); a number that identifies its text; its score as the bits of a float32
ROW, PLACE, TEXT, SCORE = range(4)


def score_bits(scores: NDArray[Any]) -> NDArray[Any]:
    """Return scores (N,) as the integers with the same float32 bits, so that they fit into an
    integer array.
    """
    bits: NDArray[Any] = scores.astype("float32").view("int32").astype("int64")
    return bits


@dataclass(frozen=True)
class Compared:
    """The queries and documents that a batch compares.

    Documents are sorted by query, and each query's positive precedes its negatives.
    """

    queries: Tensor  # (n, D)
    documents: Tensor  # (m, D)
    of: Tensor  # (m,) int64: the query that each document belongs to
    answers: Tensor  # (n,) int64: the index of each query's positive document
    query_texts: Tensor  # (n,) int64: equal if and only if the texts are equal
    document_texts: Tensor  # (m,) int64: numbered like query_texts
    scores: Tensor  # (m,) float: similarity of each document to its query; NaN: unknown

    @classmethod
    def of_batch(cls, vectors: Tensor, targets: Tensor) -> "Compared":
        """Build from vectors (N, D) and targets (N, 4) of whole rows, in any order."""
        row, place, text, bits = targets.unbind(1)
        order = torch.argsort(row * (int(place.max()) + 1) + place)
        is_query = place[order] == 0
        queries = order[is_query]
        documents = order[~is_query]
        of = torch.searchsorted(row[queries], row[documents])
        answers = torch.nonzero(place[documents] == 1).squeeze(1)
        scores = bits[documents].to(torch.int32).view(torch.float32)
        return cls(
            vectors[queries],
            vectors[documents],
            of,
            answers,
            text[queries],
            text[documents],
            scores,
        )

    def shortened(self, size: int, unit: bool) -> "Compared":
        """Return the vectors truncated to `size` elements; unit: renormalized to length 1."""
        if size >= self.queries.shape[1]:
            return self
        queries = self.queries[:, :size]
        documents = self.documents[:, :size]
        if unit:
            queries = F.normalize(queries, dim=-1)
            documents = F.normalize(documents, dim=-1)
        return replace(self, queries=queries, documents=documents)

    @property
    def cosines(self) -> Tensor:
        """The cosine (m,) of each document with its query."""
        return F.cosine_similarity(self.queries[self.of], self.documents, dim=-1)

    @property
    def negatives(self) -> Tensor:
        """The indices (m - n,) of the documents that are not positives."""
        kept = torch.ones(len(self.documents), dtype=torch.bool, device=self.of.device)
        kept[self.answers] = False
        return torch.nonzero(kept).squeeze(1)


def cosine(compared: Compared) -> Loss:
    """Return the squared error of the cosine against the score (`CosineSimilarityLoss`)."""
    return (compared.cosines - compared.scores).square().sum(), float(len(compared.documents))


def cosent(compared: Compared, scale: float) -> Loss:
    """Return log(1 + sum exp(scale (cos_i - cos_j))) over all pairs in which i has a lower score
    than j (`CoSENTLoss`; Su 2022; Huang et al. 2024, equation 3).

    The sum is this value times the number of pairs.
    """
    cosines = scale * compared.cosines  # (m,)
    differences = cosines[:, None] - cosines[None, :]  # (m, m)
    lower = compared.scores[:, None] < compared.scores[None, :]
    terms = torch.cat([cosines.new_zeros(1), differences[lower]])
    count = float(len(cosines))
    return torch.logsumexp(terms, 0) * count, count


def in_batch(compared: Compared, scale: float, symmetric: bool) -> Loss:
    """Return the cross-entropy of each query's positive among all documents of the batch, with
    cosine times `scale` as the logit (`MultipleNegativesRankingLoss`; Henderson et al. 2017,
    arXiv:1705.00652, section 4.4).

    symmetric: the mean of this and the reverse direction, each positive's query among all queries.
    A document does not count as a negative if it is another positive of the same query, has the
    same text as a positive, or is the query text itself.
    """
    queries = F.normalize(compared.queries, dim=-1)
    documents = F.normalize(compared.documents, dim=-1)
    similar = scale * queries @ documents.T  # (n, m)
    own = similar.gather(1, compared.answers[:, None]).squeeze(1)  # (n,)
    alike = _not_negatives(compared)
    log_z = similar.masked_fill(alike, -torch.inf).logsumexp(1)
    if symmetric:
        backwards = similar[:, compared.answers].T  # (n, n): answers, queries
        same = alike[:, compared.answers].T
        log_z = (log_z + backwards.masked_fill(same, -torch.inf).logsumexp(1)) / 2
    return (log_z - own).sum(), float(len(own))


def _not_negatives(compared: Compared) -> Tensor:
    """Return a mask (n, m) of the documents that are no negatives of a query, except its own
    positive.
    """
    texts = compared.document_texts
    asks_same = compared.query_texts[:, None] == compared.query_texts[None, :]  # (n, n)
    # (n, m): the document has the text of the query's positive
    is_answer = texts[compared.answers][:, None] == texts[None, :]
    # the counts stay below 2^24, so float32 is exact
    alike = (asks_same.float() @ is_answer.float()) > 0
    alike |= compared.query_texts[:, None] == texts[None, :]
    alike[torch.arange(len(alike), device=alike.device), compared.answers] = False
    return alike


def triplet(compared: Compared, margin: float) -> Loss:
    """Return max(0, cos(query, negative) - cos(query, positive) + margin) over all negatives
    (`TripletLoss` with cosine distance; Schroff et al. 2015, arXiv:1503.03832, equation 3).
    """
    cosines = compared.cosines
    negatives = compared.negatives
    right = cosines[compared.answers][compared.of[negatives]]
    return F.relu(cosines[negatives] - right + margin).sum(), float(len(negatives))


def margin_mse(compared: Compared) -> Loss:
    """Return the squared error of the dot-product margin between positive and negative against the
    margin of the scores (`MarginMSELoss`; Hofstätter et al. 2020, arXiv:2010.02666, equation 6).
    """
    dots = (compared.queries[compared.of] * compared.documents).sum(-1)  # (m,)
    negatives = compared.negatives
    right = compared.answers[compared.of[negatives]]
    margins = dots[right] - dots[negatives]
    true = compared.scores[right] - compared.scores[negatives]
    return (margins - true).square().sum(), float(len(negatives))


def cached(
    vectors: list[Tensor],
    again: list[Callable[[], Tensor]],
    loss_of: Callable[[Tensor], Loss],
) -> Loss:
    """Return a loss whose backward pass recomputes the vectors part by part (GradCache, Gao et al.
    2021, arXiv:2101.06983): the same gradients with the activation memory of one part.

    vectors: computed part by part without a graph. again: for each part, a function that recomputes
    its vectors with a graph and the same dropout.
    """
    sizes = [len(part) for part in vectors]
    whole = torch.cat(vectors).requires_grad_()
    with torch.enable_grad():
        loss, count = loss_of(whole)
        gradients = torch.split(torch.autograd.grad(loss, whole)[0], sizes)
    kept = loss.detach().requires_grad_()

    def backward(upstream: Tensor) -> None:
        for make, gradient in zip(again, gradients, strict=True):
            with torch.enable_grad():
                make().backward(gradient * upstream)  # type: ignore[no-untyped-call]

    kept.register_hook(backward)  # type: ignore[no-untyped-call]
    return kept, count


def repeatable(model: nn.Module, batch: Batch) -> Callable[[], Tensor]:
    """Return a function that runs the model on a batch, with the same dropout on every call and the
    current autocast precision.
    """
    kind = batch.tokens.device.type
    devices = [batch.tokens.device] if kind == "cuda" else []
    seed = torch.random.initial_seed()
    place = int(batch.rows[0])
    cast_to = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    def make() -> Tensor:
        with torch.random.fork_rng(devices), torch.autocast(kind, cast_to, cast_to is not None):
            torch.manual_seed(hash((seed, place)) % 2**63)
            found: Tensor = model(batch)
            return found

    return make
