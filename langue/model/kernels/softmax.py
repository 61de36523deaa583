"""What arrives: scores (n, t, t) of n stacked matrices. What leaves: their rows as weights that sum
to one; gradients.

softmax(x)_i = exp(x_i) / sum_j exp(x_j). Along rows, PyTorch's kernels for processors compute what
is left over from whole vectors one number at a time: the tail of a bf16 row forward, all of a row
that is shorter than a vector either way. Of texts of few tokens that took longer than the rest of
attention (docs/LOG.md), and is avoided here: the same numbers, along another axis or in float32.
"""

import torch
from torch import Tensor

# Numbers in float32 that a vector of this processor holds; in bf16 they are twice as many.
LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


def softmax(scores: Tensor) -> Tensor:
    """Rows (n, t, t) -> weights, in the precision of the scores."""
    t = scores.shape[-1]
    dtype = scores.dtype
    if scores.device.type != "cpu" or dtype == torch.float32 and t >= LANES:
        return torch.softmax(scores, dim=-1)
    if t < LANES:
        # columns: n abreast
        across = scores.transpose(0, 2).to(_wide(dtype), memory_format=torch.contiguous_format)
        return (
            torch.softmax(across, dim=0)
            .transpose(0, 2)
            .to(dtype, copy=True, memory_format=torch.contiguous_format)
        )
    vectors, tail = divmod(t, 2 * LANES)
    return torch.softmax(scores if tail <= vectors else scores.to(_wide(dtype)), dim=-1).to(dtype)


def softmax_gradient(gradient: Tensor, weights: Tensor) -> Tensor:
    """Gradient of the scores, w * (g - sum_j w_j g_j), from that of the weights, (n, t, t) each."""
    t = weights.shape[-1]
    dtype = weights.dtype
    if weights.device.type == "cpu" and t < LANES:
        wide = weights.to(_wide(dtype))
        product = gradient * wide
        return product.sub_(wide * product.sum(-1, keepdim=True)).to(dtype)
    if weights.device.type == "cpu" and t < 2 * LANES and dtype == torch.bfloat16:
        return torch._softmax_backward_data(
            gradient.float(), weights.float(), -1, torch.float32
        ).to(dtype)
    return torch._softmax_backward_data(gradient, weights, -1, dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
