"""What arrives: the hidden states of a batch's tokens (T, D). What leaves: one vector a text (N,
D).

The modes are those of sentence-transformers' `Pooling`. `skip` leaves out that many tokens at each
text's front, such as a prompt.
"""

import math
from collections.abc import Callable
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from langue.data.batch import Batch
from langue.model.config import ModelConfig
from langue.model.heads import Head, Sequences, first_tokens, last_tokens, pool_mean


def _mean_sqrt_len(states: Tensor, skip: int) -> Tensor:
    kept = states[:, skip:]
    return kept.sum(1) / math.sqrt(kept.shape[1])


def _weighted_mean(states: Tensor, skip: int) -> Tensor:
    """Each token weighs as much as its place in the text, from 1 on (Muennighoff 2022,
    arXiv:2202.08904).
    """
    weights = torch.arange(skip + 1, states.shape[1] + 1, dtype=states.dtype, device=states.device)
    weighted = states[:, skip:] * weights[:, None]
    return weighted.sum(1) / weights.sum()


# (n, t, D) of texts of one length -> (n, D)
MODES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": lambda states, skip: states[:, skip:].mean(1),
    "first": lambda states, skip: states[:, skip],
    "last": lambda states, skip: states[:, -1],
    "max": lambda states, skip: states[:, skip:].amax(1),
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
}


def reads(modes: tuple[str, ...], batch: Batch, skip: int = 0) -> Tensor | None:
    """Where the one token of each text stands that is read, (N,); None: more than one is."""
    if modes == ("first",):
        return first_tokens(batch) + skip
    return last_tokens(batch) if modes == ("last",) else None


def pool(hidden: Tensor, batch: Batch, modes: tuple[str, ...], skip: int = 0) -> Tensor:
    """hidden: (T, D), or (N, D) where `reads` says which token -> (N, len(modes) * D), side by
    side.
    """
    if reads(modes, batch, skip) is not None:
        return hidden
    if modes == ("mean",) and not skip:
        return pool_mean(hidden, batch)
    parts = torch.split(hidden, [n * t for _, n, t in batch.groups])
    pooled = []
    for part, (_, n, t) in zip(parts, batch.groups, strict=True):
        states = part.view(n, t, -1)  # (n, t, D)
        pooled.append(torch.cat([MODES[mode](states, skip) for mode in modes], -1))
    return torch.cat(pooled)


class VectorHead(Head):
    """The pooled hidden states, of length 1 where that is wished: (T, D), or (N, D) where one token
    of each text is read, -> (N, D).
    """

    of_labels: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ModelConfig, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.modes = (pooling,)
        self.normalize = normalize
        self.dim = config.out_dim

    @property
    def size(self) -> int:
        return self.dim

    def reads(self, batch: Sequences) -> Tensor | None:
        return reads(self.modes, cast(Batch, batch))

    def forward(self, hidden: Tensor, batch: Sequences) -> Tensor:
        # a mean of many states in bf16 would lose most of its digits
        with torch.autocast(hidden.device.type, enabled=False):
            pooled = pool(hidden.float(), cast(Batch, batch), self.modes)
            return F.normalize(pooled, dim=-1) if self.normalize else pooled
