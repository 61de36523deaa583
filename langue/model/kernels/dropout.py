"""What arrives: activations in training. What leaves: the same with a share set to zero and the
rest scaled up.

Srivastava et al. 2014. On the CPU a Bernoulli draw an element costs more than the layer it
regularises; here one random 64-bit draw decides eight elements, each by comparing its byte with a
threshold. The probability is rounded to 1/256 and the scale is that of the rounded one, so the
expectation is exact.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PART = 2**18  # bytes drawn at a time, which are compared while a core's cache has them


def threshold(probability: float) -> int:
    """How many of the 256 byte values drop."""
    return min(255, round(probability * 256))


def random_keep(shape: torch.Size | tuple[int, ...], dropped: int, device: torch.device) -> Tensor:
    """Mask of `shape` (uint8), 0 with probability `dropped`/256 and else 1, from the default
    generator of `device`."""
    size = math.prod(shape)
    if device.type == "cpu" and not torch.compiler.is_compiling():
        # NumPy draws and compares many times as fast as torch (docs/LOG.md). Seeded from torch's
        # own generator, the mask is a function of its state still, for exact resume and for blocks
        # computed again.
        source = np.random.SFC64(int(torch.randint(2**62, ())))
        keep = np.empty(size, np.bool_)
        for begin in range(0, size, PART):
            part = keep[begin : begin + PART]
            drawn = source.random_raw((len(part) + 7) // 8).view(np.uint8)
            np.greater_equal(drawn[: len(part)], dropped, out=part)
        return torch.from_numpy(keep.view(np.uint8)).view(shape)
    words = torch.empty((size + 7) // 8, dtype=torch.int64, device=device)
    # random_() alone would leave the sign bit at zero; the full range makes every byte uniform.
    words.random_(-(2**63), None)
    return (words.view(torch.uint8)[:size] >= dropped).view(torch.uint8).view(shape)


def drop(x: Tensor, keep: Tensor) -> Tensor:
    """x with zeros where `keep` (uint8, 0 or 1, of x's shape) has them."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x * keep
    # A product of two dtypes is three times as slow here as one of the bits of x, as a whole
    # number, by 0 or 1.
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return keep.to(bits).mul_(x.view(bits)).view(x.dtype)


def scale(dropped: int) -> float:
    """What the kept elements are multiplied by so that the expectation stays."""
    return 256 / (256 - dropped)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        keep = random_keep(x.shape, dropped, x.device)
        ctx.save_for_backward(keep)
        ctx.dropped = dropped
        return drop(x, keep).mul_(scale(dropped))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return drop(gradients[0], keep).mul_(scale(ctx.dropped)), None


class Dropout(nn.Module):
    """Zero each element with `probability` (rounded to 1/256) while training; identity
    otherwise."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        dropped = threshold(self.probability)
        if not self.training or dropped == 0:
            return x
        if x.device.type != "cpu":  # whose own kernel draws, compares and scales at once
            return F.dropout(x, dropped / 256)
        return _Dropout.apply(x, dropped)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        return f"{self.probability}"
