"""What arrives: rows (T, I). What leaves: rows (T, O), x W^T + b.

PyTorch's own layer, but for inference in bf16 on processors. There `F.linear` writes the bias into
all of the result first and has oneDNN add the product to it; oneDNN adds a bias itself while it
still has the product at hand. (In training what is saved in this way goes again to calling a
function of our own.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.runtime import has_bf16


def in_bf16(device: torch.device) -> bool:
    """Whether products are made in bf16 now, by oneDNN on a processor (which some builds of PyTorch
    are without)."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: x (T, I), weight (O, I), bias (O,) -> (T, O)."""
    # a part of what processes share, which is a tensor of another kind
    shared = hasattr(weight, "to_local")
    if (
        bias is None
        or torch.is_grad_enabled()
        or shared
        or not (in_bf16(x.device) and has_bf16("cpu"))
    ):
        return F.linear(x, weight, bias)
    x = x.bfloat16()
    weight = weight.bfloat16()
    bias = bias.bfloat16()
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
