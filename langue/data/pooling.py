"""Pooling: takes the hidden states of a batch's tokens (T, D); returns one vector for each text (N,
D).

The modes are those of `Pooling` in sentence-transformers. `skip` excludes this many tokens at the
start of each text, such as a prompt.
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
    """Return the mean weighted by position, counted from 1 (Muennighoff 2022, arXiv:2202.08904)."""
    weights = torch.arange(skip + 1, states.shape[1] + 1, dtype=states.dtype, device=states.device)
    weighted = states[:, skip:] * weights[:, None]
    return weighted.sum(1) / weights.sum()


# (n, t, D) of texts of equal length -> (n, D)
MODES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": lambda states, skip: states[:, skip:].mean(1),
    "first": lambda states, skip: states[:, skip],
    "last": lambda states, skip: states[:, -1],
    "max": lambda states, skip: states[:, skip:].amax(1),
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
}


def reads(modes: tuple[str, ...], batch: Batch, skip: int = 0) -> Tensor | None:
    """Return the index (N,) of the single token of each text that the modes use; None if they use
    more.
    """
    if modes == ("first",):
        return first_tokens(batch) + skip
    return last_tokens(batch) if modes == ("last",) else None


def pool(hidden: Tensor, batch: Batch, modes: tuple[str, ...], skip: int = 0) -> Tensor:
    """Pool hidden states (T, D), or (N, D) if `reads` selects one token, to (N, len(modes) * D),
    the modes concatenated.
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
    """Pooled hidden states, normalized on request: (T, D), or (N, D) if one token of each text is
    used, -> (N, D).
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
