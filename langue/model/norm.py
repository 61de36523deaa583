"""What arrives: hidden states (T, D). What leaves: each row normalised, with a learned scale (and
shift)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.model.config import ModelConfig


class RMSNorm(nn.RMSNorm):
    """x / rms(x) * w, in the precision of the weights also where autocast's products are not."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, self.eps)


class OffsetRMSNorm(nn.RMSNorm):
    """x / rms(x) * (1 + w): the weight is stored as its difference from one, so that decay pulls
    towards identity."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(
            x.to(self.weight.dtype), self.normalized_shape, 1.0 + self.weight, self.eps
        )


class PlainRMSNorm(nn.Module):
    """x / rms(x), nothing learned."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.size = size
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(
            x.float() if x.dtype == torch.bfloat16 else x, (self.size,), None, self.eps
        )


def make_norm(config: ModelConfig, dim: int | None = None) -> nn.Module:
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450) or RMSNorm (Zhang and Sennrich 2019,
    arXiv:1910.07467)."""
    size = config.dim if dim is None else dim
    if config.norm == "rms":
        return RMSNorm(size, eps=config.norm_eps)
    if config.norm == "rms_offset":
        return OffsetRMSNorm(size, eps=config.norm_eps)
    if config.norm == "rms_plain":
        return PlainRMSNorm(size, eps=config.norm_eps)
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.has_bias("norm"))
