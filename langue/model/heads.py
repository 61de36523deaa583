"""Heads for tasks: take the hidden states (T, D) of a batch of N sequences; return what the task's
loss and decoding need. `TaskModel` combines a Transformer body with a head.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.errors import DataError, SettingsError
from langue.model.attention import LengthBuckets
from langue.model.config import ModelConfig
from langue.model.kernels import Dropout
from langue.model.layers import ACTIVATIONS, make_norm
from langue.model.transformer import Transformer, initialise

Pooling = Literal["auto", "mean", "first", "last"]


class Sequences(Protocol):
    """What a head uses of a batch: T tokens of N sequences, sorted by length."""

    @property
    def tokens(self) -> Tensor: ...  # (T,)

    @property
    def positions(self) -> Tensor: ...  # (T,) 0 at each sequence's first token

    @property
    def starts(self) -> Tensor: ...  # (N + 1,)

    @property
    def groups(self) -> LengthBuckets: ...  # (offset, number of sequences, length), covering T

    @property
    def inputs(self) -> tuple[Tensor, Tensor, LengthBuckets, Tensor | None]: ...


class Head(nn.Module):
    """A task's module on the body.

    Its weights are saved under `head.`; the last linear map is called `out`, and is initialized
    again if its outputs have another meaning.
    """

    out: nn.Linear
    per_token: ClassVar[bool] = False  # whether it has an output for each token, (T, ...)
    # prefixes of the weights that are specific to a set of labels
    of_labels: ClassVar[tuple[str, ...]] = ("out.",)

    @property
    def size(self) -> int:
        """Number of outputs for each sequence or token."""
        return self.out.out_features

    def reads(self, batch: Sequences) -> Tensor | None:
        """Return the indices (M,) of the tokens whose hidden states the head uses; None: all T."""
        return None


class TaskModel(nn.Module):
    """A Transformer body with a task's head: a batch -> the head's outputs."""

    def __init__(self, config: ModelConfig, make_head: Callable[[], Head], seed: int = 0) -> None:
        super().__init__()
        self.body = Transformer(config)
        self.head = make_head()
        initialise(self.head, config.init_std, seed)

    def forward(self, batch: Sequences) -> Tensor:
        if any(not length for _, _, length in batch.groups):
            raise DataError(
                "a text has no tokens",
                do="leave empty texts out: there is nothing in them to judge",
            )
        hidden = self.body(*batch.inputs, query_positions=self.head.reads(batch))
        out: Tensor = self.head(hidden, batch)
        return out


class PooledHead(Head):
    """Pooling to one vector for each text, then a linear map: (T, D), or (N, D) if it uses one
    token of each, -> (N, n_outputs).

    mean: the mean of all hidden states. first: BERT's pooler, tanh(W h_first + b) (Devlin et al.
    2018), or with the family's own activation. Both are followed by a dense map, an activation and
    a norm if the family's classifier has them (ModernBERT, Warner et al. 2024). last: the state of
    the last token (Radford et al. 2018), without a bias, as published.
    """

    def __init__(
        self,
        config: ModelConfig,
        n_outputs: int,
        *,
        pooling: Pooling = "auto",
        dropout: float = 0.1,
        pad: int | None = None,
    ) -> None:
        """pad: a token that is skipped when looking for a text's last token."""
        super().__init__()
        self.pooling = resolve_pooling(pooling, config)
        self.pad = pad
        transform = config.classifier_transform and self.pooling != "last"
        first = self.pooling == "first" and not transform
        self.pooler = nn.Linear(config.out_dim, config.out_dim) if first else None
        self.dense = (
            nn.Linear(config.out_dim, config.out_dim, bias=config.dense_bias) if transform else None
        )
        self.norm = make_norm(config, config.out_dim) if transform else None
        self.activation = ACTIVATIONS[
            config.head_activation if transform else config.pooler_activation
        ]
        self.dropout = Dropout(dropout)
        self.out = nn.Linear(config.out_dim, n_outputs, bias=self.pooling != "last")

    def reads(self, batch: Sequences) -> Tensor | None:
        """Return the index (N,) of the single token of each text that is used; None: all are."""
        if self.pooling == "mean":
            return None
        return last_tokens(batch, self.pad) if self.pooling == "last" else first_tokens(batch)

    def forward(self, hidden: Tensor, batch: Sequences) -> Tensor:
        pooled = pool_mean(hidden, batch) if self.pooling == "mean" else hidden
        if self.pooler is not None:
            pooled = self.activation(self.pooler(pooled))
        elif self.dense is not None and self.norm is not None:
            pooled = self.norm(self.activation(self.dense(pooled)))
        pooled = self.dropout(pooled)
        # in bf16, a score of 258.3 would become 258 or 260
        with torch.autocast(pooled.device.type, enabled=False):
            bias = None if self.out.bias is None else self.out.bias.float()
            return F.linear(pooled.float(), self.out.weight.float(), bias)


def resolve_pooling(pooling: Pooling, config: ModelConfig) -> Pooling:
    """Resolve `auto` for this model; raise SettingsError for a pooling that cannot work on it."""
    if pooling == "first" and config.causal:
        raise SettingsError(
            "task.pooling = first: a causal decoder's first token sees nothing but itself",
            do="use task.pooling=last, whose state has read the whole text, or mean",
        )
    if pooling != "auto":
        return pooling
    return "last" if config.causal else "mean"


def pool_mean(hidden: Tensor, batch: Sequences) -> Tensor:
    """Return the mean of each sequence's hidden states: (T, D) -> (N, D)."""
    parts = torch.split(hidden, [n * t for _, n, t in batch.groups])
    means = []
    for part, (_, n, t) in zip(parts, batch.groups, strict=True):
        states = part.view(n, t, -1)  # (n, t, D)
        means.append(states.mean(1))
    return torch.cat(means)


def first_tokens(batch: Sequences) -> Tensor:
    """Return the index of each sequence's first token, BERT's [CLS]: (N,)."""
    return batch.starts[:-1]


def last_tokens(batch: Sequences, pad: int | None = None) -> Tensor:
    """Return the index of each sequence's last token other than `pad`: (N,)."""
    if pad is None:
        return batch.starts[1:] - 1
    # a text of padding only: its first token
    real = torch.where(batch.tokens == pad, 0, batch.positions)
    return batch.starts[:-1] + torch.cat(
        [real[o : o + n * t].view(n, t).amax(1) for o, n, t in batch.groups]
    )
