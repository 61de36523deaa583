"""What arrives: each token's place in its own sequence, positions (T,).
What leaves: vectors (T, D) to add to the embedding."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from langue.model.config import ModelConfig


class Sinusoidal(nn.Module):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(the same): Vaswani et al. 2017, section 3.5."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        rates = torch.exp(-math.log(10_000.0) * torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
        table = torch.zeros(length, dim)
        table[:, 0::2] = angles.sin()
        table[:, 1::2] = angles.cos()[:, : dim // 2]
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return cast(Tensor, self.table)[positions]


def make_position(config: ModelConfig) -> nn.Module | None:
    if config.position == "learned":
        return nn.Embedding(config.max_length + config.position_offset, config.dim)
    if config.position == "sinusoidal":
        return Sinusoidal(config.max_length + config.position_offset, config.dim)
    return None
