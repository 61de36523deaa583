"""What arrives: rows (T, I). What leaves: rows (T, O), x W^T + b.

PyTorch's own layer, but for inference in bf16 on processors. There `F.linear` writes the bias into all of the result
first and has oneDNN add the product to it; oneDNN adds a bias itself while it still has the product at hand. (In
training what is saved in this way goes again to calling a function of our own.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.runtime import has_bf16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: x (T, I), weight (O, I), bias (O,) -> (T, O)."""
    if bias is None or x.ndim != 2 or torch.is_grad_enabled() or not _narrow(x, weight):
        return F.linear(x, weight, bias)
    x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def _narrow(x: Tensor, weight: Tensor) -> bool:
    """Whether the product is of bf16, and oneDNN's."""
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return (
        x.device.type == "cpu"
        and (autocast or x.dtype == weight.dtype == torch.bfloat16)
        and has_bf16("cpu")
        and not torch.compiler.is_compiling()
        and not hasattr(weight, "to_local")  # a part of what processes share
    )


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
