"""What arrives: the vectors of a batch's texts, and which of them are queries, answers and
negatives. What leaves: a loss as (sum, count).

n queries, m documents, D elements. Each is the loss that sentence-transformers has under another
name, which is said; tests hold them to it.
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
# what a sequence's targets say, (N, 4): the row that it is of; its place there, 0 of the query and
# 1 of what answers it; a number for its text; and its score, the bits of a float32
ROW, PLACE, TEXT, SCORE = range(4)


def score_bits(scores: NDArray[Any]) -> NDArray[Any]:
    """Scores (N,) as whole numbers, so that they stand beside whole numbers."""
    bits: NDArray[Any] = scores.astype("float32").view("int32").astype("int64")
    return bits


@dataclass(frozen=True)
class Compared:
    """What a batch compares. Documents stand in order of their queries, and each query's answer
    before its negatives.
    """

    queries: Tensor  # (n, D)
    documents: Tensor  # (m, D)
    of: Tensor  # (m,) int64: which query each document is of
    answers: Tensor  # (n,) int64: which of the documents answers each query
    query_texts: Tensor  # (n,) int64, equal where the texts are
    document_texts: Tensor  # (m,) int64, of the same numbers
    scores: Tensor  # (m,) float: how similar each document is to its query; nan: not known

    @classmethod
    def of_batch(cls, vectors: Tensor, targets: Tensor) -> "Compared":
        """vectors (N, D) and targets (N, 4) of whole rows, in any order."""
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
        """The same with the first `size` elements of each vector; unit: of length 1 again."""
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
        """(m,) of each document with its query."""
        return F.cosine_similarity(self.queries[self.of], self.documents, dim=-1)

    @property
    def negatives(self) -> Tensor:
        """(m - n,) which documents are no answers."""
        kept = torch.ones(len(self.documents), dtype=torch.bool, device=self.of.device)
        kept[self.answers] = False
        return torch.nonzero(kept).squeeze(1)


def cosine(compared: Compared) -> Loss:
    """Squared difference of cosine and score: `CosineSimilarityLoss`."""
    return (compared.cosines - compared.scores).square().sum(), float(len(compared.documents))


def cosent(compared: Compared, scale: float) -> Loss:
    """log(1 + sum exp(scale (cos_i - cos_j))) over all i of a lower score than j: `CoSENTLoss` (Su
    2022; Huang et al. 2024, equation 3). The sum is that times the pairs.
    """
    cosines = scale * compared.cosines  # (m,)
    differences = cosines[:, None] - cosines[None, :]  # (m, m)
    lower = compared.scores[:, None] < compared.scores[None, :]
    terms = torch.cat([cosines.new_zeros(1), differences[lower]])
    count = float(len(cosines))
    return torch.logsumexp(terms, 0) * count, count


def in_batch(compared: Compared, scale: float, symmetric: bool) -> Loss:
    """Cross-entropy of each query's answer among all documents of the batch, by the cosine times
    `scale`: `MultipleNegativesRankingLoss` (Henderson et al. 2017, arXiv:1705.00652, section 4.4).

    symmetric: the mean of that and of each answer's query among all queries. Not taken as a
    negative is another document that answers the query, that has the same text as what answers it,
    or that is the query itself.
    """
    queries = F.normalize(compared.queries, dim=-1)
    documents = F.normalize(compared.documents, dim=-1)
    similar = scale * queries @ documents.T  # (n, m)
    own = similar.gather(1, compared.answers[:, None]).squeeze(1)  # (n,)
    alike = _alike(compared)
    log_z = similar.masked_fill(alike, -torch.inf).logsumexp(1)
    if symmetric:
        backwards = similar[:, compared.answers].T  # (n, n): answers, queries
        same = alike[:, compared.answers].T
        log_z = (log_z + backwards.masked_fill(same, -torch.inf).logsumexp(1)) / 2
    return (log_z - own).sum(), float(len(own))


def _alike(compared: Compared) -> Tensor:
    """(n, m) whether a document is no negative of a query, its own answer excepted."""
    texts = compared.document_texts
    asks_same = compared.query_texts[:, None] == compared.query_texts[None, :]  # (n, n)
    is_answer = texts[compared.answers][:, None] == texts[None, :]  # (n, m) of each query
    # counts below 2^24, which float32 holds exactly
    alike = (asks_same.float() @ is_answer.float()) > 0
    alike |= compared.query_texts[:, None] == texts[None, :]
    alike[torch.arange(len(alike), device=alike.device), compared.answers] = False
    return alike


def triplet(compared: Compared, margin: float) -> Loss:
    """max(0, cos(query, negative) - cos(query, answer) + margin) of each negative: `TripletLoss` of
    cosine distances (Schroff et al. 2015, arXiv:1503.03832, equation 3).
    """
    cosines = compared.cosines
    negatives = compared.negatives
    right = cosines[compared.answers][compared.of[negatives]]
    return F.relu(cosines[negatives] - right + margin).sum(), float(len(negatives))


def margin_mse(compared: Compared) -> Loss:
    """Squared difference of the margin between answer and negative in dot products and in scores:
    `MarginMSELoss` (Hofstätter et al. 2020, arXiv:2010.02666, equation 6).
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
    """A loss over vectors that were made part by part without a graph, whose backward pass makes
    each part again: the same gradients with the memory of one part (Gao et al. 2021,
    arXiv:2101.06983).

    again: of each part, what makes its vectors with a graph, as they were made before.
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
    """What passes a batch, with the same dropout each time, in the precision of now."""
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
