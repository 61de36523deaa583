"""Norms and feed-forward networks: take hidden states (T, D); transform each token on its own.

Norms normalize each row, with a learned scale (and shift). Feed-forward: FFN(x) = act(x W1 + b1) W2
+ b2 (Vaswani et al. 2017, eq. 2); gated: (act(x W1) * x W3) W2 (Shazeer 2020). A mixture of experts
sends each token to the few experts with the highest router scores (Shazeer et al. 2017,
arXiv:1701.06538).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.model.config import ModelConfig
from langue.model.kernels import Dropout, Linear, linear


class RMSNorm(nn.RMSNorm):
    """x / rms(x) * w, in the precision of the weights, even under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, self.eps)


class OffsetRMSNorm(nn.RMSNorm):
    """x / rms(x) * (1 + w): the weight is stored as its difference from one, so that weight decay
    pulls towards the identity.
    """

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(
            x.to(self.weight.dtype), self.normalized_shape, 1.0 + self.weight, self.eps
        )


class PlainRMSNorm(nn.Module):
    """x / rms(x), without learned parameters."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.size = size
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(
            x.float() if x.dtype == torch.bfloat16 else x, (self.size,), None, self.eps
        )


class HeadNorm(nn.Module):
    """LayerNorm of each head's vector, x (T, H, K), with separate weights for each head."""

    def __init__(self, heads: int, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(heads * width))

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.to(self.weight.dtype), x.shape[-1:], eps=self.eps)
        return normed * self.weight.view(x.shape[1:])


def make_norm(config: ModelConfig, dim: int | None = None) -> nn.Module:
    """Return LayerNorm (Ba et al. 2016, arXiv:1607.06450) or RMSNorm (Zhang and Sennrich 2019,
    arXiv:1910.07467).
    """
    size = config.dim if dim is None else dim
    if config.norm == "rms":
        return RMSNorm(size, eps=config.norm_eps)
    if config.norm == "rms_offset":
        return OffsetRMSNorm(size, eps=config.norm_eps)
    if config.norm == "rms_plain":
        return PlainRMSNorm(size, eps=config.norm_eps)
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.has_bias("norm"))


class _SquaredReLU(torch.autograd.Function):
    """Two products, in place of the power and threshold of autograd, which take seven passes over
    memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        kept = F.relu(x)
        ctx.save_for_backward(kept)
        return kept * kept

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (kept,) = ctx.saved_tensors
        gradient: Tensor = gradients[0] * kept
        return gradient.mul_(2)


def relu_squared(x: Tensor) -> Tensor:
    """Return max(x, 0)^2 (So et al. 2021, arXiv:2109.08668)."""
    return _SquaredReLU.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def gelu_quick(x: Tensor) -> Tensor:
    """Return x sigmoid(1.702 x), an approximation of GELU (Hendrycks and Gimpel 2016, section
    2).
    """
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # Hendrycks and Gimpel 2016, arXiv:1606.08415, exact
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu_quick": gelu_quick,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "relu_squared": relu_squared,
}


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig, ffn_dim: int | None = None) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.limit = config.gated_limit
        self.offset = config.gated_offset
        size = ffn_dim or config.ffn_dim
        bias = config.has_bias("ffn")
        self.up = Linear(config.dim, size, bias=bias)
        self.gate = Linear(config.dim, size, bias=bias) if config.gated else None
        self.down = Linear(size, config.dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.up(x)) if self.gate is None else self._gated(self.gate, x)
        out: Tensor = self.down(hidden)
        return out

    def _gated(self, gate: nn.Module, x: Tensor) -> Tensor:
        """Return act(x W1) * (x W3), with the config's limits and offset: (T, D) -> (T, F)."""
        gating = gate(x)
        if self.limit:
            gating = gating.clamp(max=self.limit)
        hidden = self.activation(gating)
        linear_part: Tensor = self.up(x)
        if self.limit:
            linear_part = linear_part.clamp(-self.limit, self.limit)
        if self.offset:
            linear_part = linear_part + self.offset
        return hidden * linear_part


class Mixture(nn.Module):
    """y = sum over the top k experts e of p_e FFN_e(x), with p = softmax(x W_router) over all
    experts, in float32; with renormalisation, p is the softmax over the top k alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.best = config.experts_per_token
        self.renormalise = config.expert_renormalise
        self.router = nn.Linear(config.dim, config.n_experts, bias=config.router_bias)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(config.n_experts))
        self.shared = FeedForward(config, config.shared_ffn_dim) if config.shared_ffn_dim else None
        self.shared_gate = nn.Linear(config.dim, 1, bias=False) if config.shared_ffn_dim else None

    def forward(self, x: Tensor) -> Tensor:
        probabilities = torch.softmax(self.router(x).float(), dim=-1)  # (T, E)
        weights, chosen = probabilities.topk(self.best, dim=-1)  # (T, k)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        # (T k): grouped by expert, each group in token order
        sent, order = chosen.flatten().sort(stable=True)
        numbers = torch.arange(len(self.experts) + 1, device=x.device)
        # The sizes of the groups are transferred at once, because each transfer waits for the
        # accelerator.
        sizes = torch.searchsorted(sent, numbers).diff().tolist()
        for expert, own in zip(self.experts, torch.split(order, sizes), strict=True):
            tokens = own // self.best
            place = own % self.best
            mixed = expert(x[tokens]) * weights[tokens, place, None].to(x.dtype)
            out = out.index_add(0, tokens, mixed.to(out.dtype))
        if self.shared is not None and self.shared_gate is not None:
            out = out + torch.sigmoid(self.shared_gate(x)) * self.shared(x)
        return out


class Convolution(nn.Module):
    """norm(y + act(conv(x))) of the input x and output y of a block, as in DeBERTa v2: each token
    sees its nearest neighbours in its own sequence, and zeros beyond its ends.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.map = nn.Conv1d(config.dim, config.dim, config.convolution)
        self.activation = ACTIVATIONS[config.convolution_activation]
        self.dropout = Dropout(config.dropout)
        self.norm = make_norm(config)

    def forward(self, y: Tensor, x: Tensor, positions: Tensor) -> Tensor:
        """Return (T, D) from y, x (T, D) and positions (T,) in each sequence."""
        width = self.map.kernel_size[0]
        seen = [_neighbours(x, positions, i - width // 2) for i in range(width)]
        weight = self.map.weight.permute(0, 2, 1).flatten(1)  # (D, width * D)
        mixed = linear(torch.cat(seen, dim=1), weight, self.map.bias)
        out: Tensor = self.norm(y + self.activation(self.dropout(mixed)))
        return out


def _neighbours(x: Tensor, positions: Tensor, apart: int) -> Tensor:
    """Return the states of the tokens `apart` positions later in the same sequence; zeros beyond
    its ends.
    """
    # (T,): positions restart at 0 in other sequences
    there = positions.roll(-apart) == positions + apart
    return x.roll(-apart, 0) * there[:, None]


def make_feedforward(config: ModelConfig) -> nn.Module:
    return Mixture(config) if config.n_experts else FeedForward(config)
