"""Token-level heads: take the hidden states (T, D) of a flat batch of sequences; return scores of
each token (tagging), of each token as a span's start and end (extractive question answering), or
labels (a conditional random field).

M selected tokens, C labels, N sequences; the tokens of sequence n are offsets[n] to offsets[n + 1].
With a causal decoder, a head uses the state of the token itself, as the published classes do.
"""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.errors import ModelError
from langue.model.config import ModelConfig
from langue.model.heads import Head, Sequences
from langue.model.kernels import Dropout
from langue.model.layers import ACTIVATIONS, make_norm


class ChainScores(NamedTuple):
    """The scores of a linear-chain conditional random field (Lafferty et al. 2001).

    The score of labels y for a sequence of length L is edge[C, y_1] + sum_t emission[t, y_t] +
    sum_t edge[y_t, y_(t+1)] + edge[y_L, C]; their probability is exp(score) / Z, where Z sums over
    all C^L label sequences.
    """

    emissions: Tensor  # (T, C)
    # (C + 1, C + 1) from the row's label to the column's; row C: start of a sequence, column C: end
    edges: Tensor


class TokenHead(Head):
    """A linear map from each token's state to a score for each label (Devlin et al. 2018, section
    5.3).

    It is preceded by a dense map, an activation and a norm if the family's published class has them
    (ModernBERT, Warner et al. 2024). With a `crf`, the scores are its emissions, and the head also
    returns the edges.
    """

    per_token: ClassVar[bool] = True  # returns a row for each token, not for each sequence
    of_labels: ClassVar[tuple[str, ...]] = ("out.", "crf.")

    def __init__(
        self, config: ModelConfig, n_outputs: int, *, dropout: float = 0.1, crf: bool = False
    ) -> None:
        super().__init__()
        transform = config.classifier_transform
        self.dense = (
            nn.Linear(config.out_dim, config.out_dim, bias=config.dense_bias) if transform else None
        )
        self.norm = make_norm(config, config.out_dim) if transform else None
        self.activation = ACTIVATIONS[config.head_activation]
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(config.out_dim, n_outputs)
        self.crf = CRF(n_outputs) if crf else None

    def forward(
        self, hidden: Tensor, batch: Sequences | None = None, *, places: Tensor | None = None
    ) -> Tensor | ChainScores:
        """Return scores (M, C), in fp32 or a wider dtype, from hidden (T, D).

        places (M,) int64: the tokens to score, as in `Batch.places`; None: all. batch: unused,
        because the scores do not depend on sequences.
        """
        selected = hidden if places is None else hidden[places]  # (M, D)
        if self.dense is not None and self.norm is not None:
            selected = self.norm(self.activation(self.dense(selected)))
        selected = self.dropout(selected)
        dtype = torch.promote_types(self.out.weight.dtype, torch.float32)
        # scores are compared, and summed along a sequence, for which bf16 is too coarse
        with torch.autocast(selected.device.type, enabled=False):
            scores = F.linear(
                selected.to(dtype), self.out.weight.to(dtype), self.out.bias.to(dtype)
            )
        return scores if self.crf is None else ChainScores(scores, self.crf.edges().to(dtype))


class SpanHead(TokenHead):
    """Two scores for each token, as the start and as the end of an answer (Devlin et al. 2018,
    section 4.2).
    """

    def __init__(self, config: ModelConfig, *, dropout: float = 0.1) -> None:
        super().__init__(config, 2, dropout=dropout)


def sequence_log_softmax(scores: Tensor, offsets: Tensor) -> Tensor:
    """Return the log-probabilities over the tokens of each sequence, of which one is the start and
    one the end.

    scores (T, C), offsets (N + 1,) -> (T, C); exp of each column sums to one over each sequence.
    """
    lengths = offsets.diff()
    sequence = torch.repeat_interleave(lengths)[:, None].expand_as(scores)  # (T, C)
    shape = (len(lengths), scores.shape[1])
    largest = scores.new_full(shape, -torch.inf)
    largest = largest.scatter_reduce(0, sequence, scores.detach(), "amax")
    shifted = scores - largest.gather(0, sequence)
    total = scores.new_zeros(shape).scatter_add(0, sequence, shifted.exp())
    return shifted - total.log().gather(0, sequence)


class CRF(nn.Module):
    """The edges of a conditional random field over C labels, initially zero, so that the labels of
    a sequence are independent.
    """

    # The minimum of their peak learning rate: at the rate of a pretrained model they would hardly
    # move, staying within a few hundredths of a nat from zero (docs/LOG.md).
    least_rate: ClassVar[float] = 0.01

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        # from the row's label to the column's
        self.transitions = nn.Parameter(torch.zeros(n_labels, n_labels))
        self.start = nn.Parameter(torch.zeros(n_labels))
        self.end = nn.Parameter(torch.zeros(n_labels))

    def edges(self) -> Tensor:
        """Return the edges as `ChainScores` has them: (C + 1, C + 1)."""
        begins = torch.cat([self.start, self.start.new_zeros(1)])  # (C + 1,)
        inner = torch.cat([self.transitions, self.end[:, None]], 1)  # (C, C + 1)
        return torch.cat([inner, begins[None]])


def chain_loss(
    chain: ChainScores, labels: Tensor, offsets: Tensor, whole: Tensor | None = None
) -> Tensor:
    """Return the negative log-likelihood of each sequence's labels, in nats.

    chain of M tokens, labels (M,) int64, offsets (N + 1,) int64 -> (N,). A sequence without tokens
    has likelihood 1. whole (N, 2): whether a sequence starts and ends where its text does; None:
    all do. The neighbour of a sequence that does not is unknown, and has no edge.
    """
    return log_partition(chain, offsets, whole) - chain_score(chain, labels, offsets, whole)


def chain_score(
    chain: ChainScores, labels: Tensor, offsets: Tensor, whole: Tensor | None = None
) -> Tensor:
    """Return the score of each sequence's labels: M tokens, (M,), (N + 1,) -> (N,)."""
    emissions, edges = chain
    lengths = offsets.diff()
    sequence = torch.repeat_interleave(lengths)  # (M,)
    each = emissions.gather(1, labels[:, None])[:, 0]  # (M,)
    before = torch.cat([labels[:1], labels])[: len(labels)]  # the previous label, if there is one
    inside = torch.ones_like(labels, dtype=torch.bool)
    inside[offsets[:-1][lengths > 0]] = False
    each = each + torch.where(inside, edges[before, labels], 0.0)
    scores = emissions.new_zeros(len(lengths)).index_add(0, sequence, each)
    begins, ends = _borders(edges, whole, len(lengths))
    filled = torch.nonzero(lengths)[:, 0]
    first = labels[offsets[:-1][filled]]
    last = labels[offsets[1:][filled] - 1]
    return scores.index_add(0, filled, begins[filled, first] + ends[filled, last])


def log_partition(chain: ChainScores, offsets: Tensor, whole: Tensor | None = None) -> Tensor:
    """Return log Z of each sequence by the forward algorithm in log space: M tokens, (N + 1,) ->
    (N,).

    alpha[y] is the log-sum-exp over all prefixes that end in y. All sequences are processed in
    parallel; shorter ones drop out.
    """
    emissions, edges = chain
    inner = edges[:-1, :-1]
    steps, order = _steps(offsets)
    begins, ends = _borders(edges, whole, len(order))
    begins = begins[order]  # (N, C), longest first
    ends = ends[order]
    done = []
    alpha = emissions[:0]  # (0, C) if no sequence has a token
    for t, rows in enumerate(steps):  # rows (n,): index of token t of the n longest sequences
        if t == 0:
            alpha = begins[: len(rows)] + emissions[rows]  # (n, C)
            continue
        done.append(alpha[len(rows) :])
        before = alpha[: len(rows), :, None] + inner  # (n, C, C)
        alpha = before.logsumexp(1) + emissions[rows]  # (n, C)
    done.append(alpha)
    last = torch.cat(done[::-1])  # (N', C): of the sequences with tokens, longest first
    ended = (last + ends[: len(last)]).logsumexp(1)
    empty = emissions.new_zeros(len(order) - len(last))
    return torch.cat([ended, empty])[order.argsort()]


def _borders(edges: Tensor, whole: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Return what is added at the start and at the end of each sequence: (N, C) each."""
    begins = edges[-1, :-1].expand(count, -1)
    ends = edges[:-1, -1].expand(count, -1)
    if whole is None:
        return begins, ends
    return torch.where(whole[:, :1], begins, 0.0), torch.where(whole[:, 1:], ends, 0.0)


def marginals(chain: ChainScores, offsets: Tensor) -> Tensor:
    """Return the marginal probability of each label of each token: M tokens, (N + 1,) -> (M, C).

    It is the derivative of log Z by the emission: the backward pass is the backward algorithm
    (Eisner 2016).
    """
    with torch.enable_grad():
        leaf = chain.emissions.detach().requires_grad_()
        total = log_partition(ChainScores(leaf, chain.edges.detach()), offsets).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
    return gradient


def constrained(edges: Tensor, allowed: Tensor) -> Tensor:
    """Return edges under which forbidden label sequences have probability zero.

    allowed (C + 1, C + 1) bool: whether label j may follow label i; row C: whether it may start a
    sequence, column C: whether it may end one.
    """
    return edges.masked_fill(~allowed.to(edges.device), -torch.inf)


def viterbi(chain: ChainScores, offsets: Tensor) -> Tensor:
    """Return the highest-scoring labels of each sequence (Viterbi 1967), all sequences in parallel.

    M tokens, offsets (N + 1,) -> (M,) int64. Raises ModelError if the edges allow no sequence.
    """
    emissions, edges = chain
    inner = edges[:-1, :-1]
    end = edges[:-1, -1]
    steps, _ = _steps(offsets)
    found = torch.empty(len(emissions), dtype=torch.int64, device=emissions.device)
    if not steps:
        return found
    # (n, C), best score of all prefixes that end in each label
    best = edges[-1, :-1] + emissions[steps[0]]
    final = [best + end]
    back = []  # backpointers of each step: (n, C), the previous label
    for rows in steps[1:]:
        highest, previous = (best[: len(rows), :, None] + inner).max(1)
        best = highest + emissions[rows]
        back.append(previous)
        final.append(best + end)
    current = final[0]  # (N', C): of each non-empty sequence, at its last token
    for each in final[1:]:
        current = torch.cat([each, current[len(each) :]])
    score, label = current.max(1)
    if not bool((score > -torch.inf).all()):
        raise ModelError(
            "no sequence of labels is allowed for a text of this length, or the scores are NaN",
            do="let every label that may begin be followed by one that may end",
        )
    for t in range(len(steps) - 1, -1, -1):
        rows = steps[t]
        found[rows] = label[: len(rows)]
        if t:
            before = back[t - 1].gather(1, label[: len(rows), None])[:, 0]
            label = torch.cat([before, label[len(rows) :]])
    return found


def _steps(offsets: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the indices of the tokens that are processed together, and the order of the sequences
    by length.

    offsets (N + 1,) -> for each t the indices (n,) of token t in the n sequences longer than t,
    longest first; and the index of each sequence in this order, (N,).
    """
    lengths, order = offsets.diff().sort(descending=True, stable=True)
    starts = offsets[:-1][order]
    # number of sequences longer than t
    sizes = torch.bincount(lengths).flip(0).cumsum(0).flip(0)[1:]
    counts: list[int] = sizes.tolist()
    return [starts[:n] + t for t, n in enumerate(counts)], order
