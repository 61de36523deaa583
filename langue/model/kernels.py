"""Fast versions of four simple formulas, with the same results as PyTorch's operations in less time
or memory (docs/LOG.md has the figures).

linear: x W^T + b. `Linear` is PyTorch's own layer, except for inference in bf16 on CPUs. There,
`F.linear` first writes the bias to the whole result and has oneDNN add the product to it; oneDNN
itself can add the bias while it still has the product at hand. (In training, the cost of a custom
autograd function would outweigh that.)

Dropout (Srivastava et al. 2014): a fraction of the elements is set to zero, and the rest is scaled
up. On a CPU, one Bernoulli draw per element takes longer than the layer that it regularizes. Here
one random 64-bit number decides eight elements, each by comparing one byte with a threshold. The
probability is rounded to 1/256, and the scale is that of the rounded one, so that the expectation
is exact.

softmax(x)_i = exp(x_i) / sum_j exp(x_j). Along rows, PyTorch's CPU kernels process the remainder
after whole vectors one number at a time: in bf16 the tail of a row in the forward pass, and rows
shorter than a vector in both passes. For short texts this took longer than the rest of attention,
and is avoided here: the same numbers are computed along another axis or in float32.

cross_entropy: the logits of a large vocabulary are never in memory as a whole: those of a chunk are
computed, turned into their part of the loss and of the gradients, and discarded. loss = sum log Z -
logit[label] + z log(Z)^2, with Z = sum exp(logits); the last term keeps logits from drifting (PaLM,
Chowdhery et al. 2022, arXiv:2204.02311, section 5).
"""

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.runtime import device_memory, has_bf16

if TYPE_CHECKING:
    from langue.model.weight_kinds import AnyWeight

PART = 2**18  # bytes drawn at a time, which are compared while they are in a core's cache
# float32 numbers in a vector register; bf16 numbers are twice as many
LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
# Logits of one chunk in fp32: about the size of a CPU's caches. On a GPU each chunk costs a dozen
# kernels and another pass over the gradient of the output matrix, so chunks are fewer and larger:
# this fraction of its memory.
CHUNK_BYTES = 2**25
CHUNK_SHARE = 256
FEWEST = 256  # minimum tokens of a chunk, so that its matrix products stay large


def in_bf16(device: torch.device) -> bool:
    """Return whether products are currently computed in bf16 by oneDNN on a CPU (which some builds
    of PyTorch lack).
    """
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
    )


def linear(x: Tensor, weight: "Tensor | AnyWeight", bias: Tensor | None) -> Tensor:
    """Return x W^T + b: x (T, I), weight (O, I), bias (O,) -> (T, O)."""
    if not isinstance(weight, Tensor):
        from langue.model.weight_linear import product

        return product(x, weight, bias)
    # a sharded weight is a DTensor
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


def rows_of(layer: nn.Module, x: Tensor, begin: int, end: int) -> Tensor:
    """Return the output of some rows of a linear map: (..., I) -> (..., end - begin)."""
    rows: Any = getattr(layer, "rows", None)
    if rows is not None:
        out: Tensor = rows(x, begin, end)
        return out
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if begin == 0 and end == len(weight):
        out = layer(x)
        return out
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    return linear(x, weight[begin:end], None if bias is None else bias[begin:end])


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def threshold(probability: float) -> int:
    """Return how many of the 256 byte values mean dropping."""
    return min(255, round(probability * 256))


def random_keep(shape: torch.Size | tuple[int, ...], dropped: int, device: torch.device) -> Tensor:
    """Draw a mask of `shape` (uint8), 0 with probability `dropped`/256 and otherwise 1, from the
    default generator of `device`.
    """
    size = math.prod(shape)
    if device.type == "cpu" and not torch.compiler.is_compiling():
        # NumPy draws and compares many times faster than torch (docs/LOG.md). Because the seed
        # comes from torch's generator, the mask is still a function of its state, as needed for
        # exact resume and for activation checkpointing.
        source = np.random.SFC64(int(torch.randint(2**62, ())))
        keep = np.empty(size, np.bool_)
        for begin in range(0, size, PART):
            part = keep[begin : begin + PART]
            drawn = source.random_raw((len(part) + 7) // 8).view(np.uint8)
            np.greater_equal(drawn[: len(part)], dropped, out=part)
        return torch.from_numpy(keep.view(np.uint8)).view(shape)
    words = torch.empty((size + 7) // 8, dtype=torch.int64, device=device)
    # Without a range, random_() would leave the sign bit at zero; the full range makes every byte
    # uniform.
    words.random_(-(2**63), None)
    return (words.view(torch.uint8)[:size] >= dropped).view(torch.uint8).view(shape)


def drop(x: Tensor, keep: Tensor) -> Tensor:
    """Return x with zeros where `keep` (uint8, 0 or 1, of x's shape) is zero."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x * keep
    # A product of two dtypes is three times slower here than multiplying the bits of x, as an
    # integer, by 0 or 1.
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return keep.to(bits).mul_(x.view(bits)).view(x.dtype)


def scale(dropped: int) -> float:
    """Return the factor of the kept elements that preserves the expectation."""
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
    """Zero each element with `probability` (rounded to 1/256) in training; the identity
    otherwise.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        dropped = threshold(self.probability)
        if not self.training or dropped == 0:
            return x
        if x.device.type != "cpu":  # its own kernel draws, compares and scales at once
            return F.dropout(x, dropped / 256)
        return _Dropout.apply(x, dropped)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        return f"{self.probability}"


def softmax(scores: Tensor) -> Tensor:
    """Return the softmax of rows (n, t, t), in the precision of the scores."""
    t = scores.shape[-1]
    dtype = scores.dtype
    if scores.device.type != "cpu" or dtype == torch.float32 and t >= LANES:
        return torch.softmax(scores, dim=-1)
    if t < LANES:
        # as columns, n in parallel
        across = scores.transpose(0, 2).to(_wide(dtype), memory_format=torch.contiguous_format)
        return (
            torch.softmax(across, dim=0)
            .transpose(0, 2)
            .to(dtype, copy=True, memory_format=torch.contiguous_format)
        )
    vectors, tail = divmod(t, 2 * LANES)
    return torch.softmax(scores if tail <= vectors else scores.to(_wide(dtype)), dim=-1).to(dtype)


def softmax_gradient(gradient: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of the scores, w * (g - sum_j w_j g_j), from that of the weights, (n, t,
    t) each.
    """
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


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    cap: float = 0.0,
    z_loss: float = 0.0,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the summed loss for hidden (M, E), weight (V, E), labels (M,), a scalar in fp32, and
    the part of it that is the z-loss, which has no gradient of its own.

    logits = hidden weight^T + bias, followed by cap tanh(logits / cap) if there is a cap. Products
    are in autocast's dtype if it is enabled, the softmax always in fp32 (fp64 for fp64). compiled:
    fuse the operations on a chunk's logits with PyTorch's compiler.
    """
    chunk = _compiled() if compiled else _chunk
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        loss, z_term = _Chunked.apply(hidden, weight, bias, labels, cap, z_loss, dtype, chunk)  # type: ignore[no-untyped-call]
    return loss, z_term


def chunk_size(vocabulary: int, room: float | None) -> int:
    """Return the number of tokens whose logits are in memory at once; room: bytes of a GPU's
    memory, None on other devices.
    """
    most = CHUNK_BYTES if room is None else room / CHUNK_SHARE
    return max(FEWEST, int(most) // (4 * vocabulary))


class _Chunked(torch.autograd.Function):
    """Computes the gradients in the forward pass, while a chunk's probabilities are at hand."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        cap: float,
        z_loss: float,
        dtype: torch.dtype,
        chunk: "Chunk",
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        x = hidden.to(dtype)
        w = weight.to(dtype)
        total, z_term = (torch.zeros((), dtype=wide, device=hidden.device) for _ in range(2))
        needs = ctx.needs_input_grad
        grads = [torch.empty_like(x) if needs[0] else None]
        grads.append(torch.zeros_like(weight, dtype=wide) if needs[1] else None)
        grads.append(torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None)
        size = chunk_size(len(w), device_memory(w.device))
        for begin in range(0, len(x), size):
            part = slice(begin, begin + size)
            loss, of_z, slope = chunk(
                x[part], w, bias, labels[part], cap, z_loss, wide, any(needs[:3])
            )
            total += loss
            z_term += of_z
            if slope is None:
                continue
            if grads[2] is not None:
                grads[2] += slope.sum(0, dtype=wide)
            narrow = slope.to(dtype)
            if grads[0] is not None:
                torch.mm(narrow, w, out=grads[0][part])
            if grads[1] is not None and wide == dtype:
                grads[1].addmm_(narrow.t(), x[part])
            elif grads[1] is not None:
                grads[1] += narrow.t() @ x[part]
        ctx.save_for_backward(*(g for g in grads if g is not None))
        ctx.there = [g is not None for g in grads]
        ctx.dtypes = [hidden.dtype, weight.dtype, None if bias is None else bias.dtype]
        ctx.mark_non_differentiable(z_term)
        return total, z_term

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        saved = iter(ctx.saved_tensors)
        scaled = [
            (next(saved) * gradients[0]).to(dtype) if there else None
            for there, dtype in zip(ctx.there, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None, None, None, None)


def _chunk(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    cap: float,
    z_loss: float,
    wide: torch.dtype,
    with_slope: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the loss of a chunk, its z-loss, and the derivative by the logits (m, V).

    Tensors of the size of the logits are read and written as rarely as possible: a log-softmax and
    its exponential, which usually replaces the logits, rounded to the dtype of the products.
    """
    logits = x @ w.t()
    at = labels[:, None]
    if bias is not None:
        logits = logits + bias  # in the wider dtype of the two
    capped = torch.tanh_(logits.to(wide).div_(cap)) if cap else logits  # in units of the cap
    if cap:
        logits = capped * cap
    logs = torch.log_softmax(logits, dim=-1, dtype=wide)
    chosen = logs.gather(1, at)
    z = logits.gather(1, at).to(wide) - chosen  # (m, 1)
    of_z = z_loss * z.square().sum()
    loss = of_z - chosen.sum()
    if not with_slope:
        return loss, of_z, None
    by_z = 1 + 2 * z_loss * z
    slope = torch.exp(logs, out=logs if cap or z_loss else logits)
    if z_loss:
        slope *= by_z
    slope.scatter_(1, at, (chosen.exp() * by_z - 1).to(slope.dtype))
    if cap:
        slope *= 1 - capped.square()
    return loss, of_z, slope


Chunk = Callable[..., tuple[Tensor, Tensor, Tensor | None]]


@cache
def _compiled() -> Chunk:
    """Compile `_chunk`, once for the usual chunk size and once for all others."""
    return torch.compile(_chunk)
