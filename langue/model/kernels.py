"""What arrives: operands of four simple formulas. What leaves: the same numbers as PyTorch's own
operations make, computed faster or in less memory (docs/LOG.md has the figures).

linear: x W^T + b. `Linear` is PyTorch's own layer, but for inference in bf16 on processors. There
`F.linear` writes the bias into all of the result first and has oneDNN add the product to it; oneDNN
adds a bias itself while it still has the product at hand. (In training what is saved in this way
goes again to calling a function of our own.)

Dropout (Srivastava et al. 2014): a share of the elements set to zero and the rest scaled up. On the
CPU a Bernoulli draw an element costs more than the layer it regularises; here one random 64-bit
draw decides eight elements, each by comparing its byte with a threshold. The probability is rounded
to 1/256 and the scale is that of the rounded one, so the expectation is exact.

softmax(x)_i = exp(x_i) / sum_j exp(x_j). Along rows, PyTorch's kernels for processors compute what
is left over from whole vectors one number at a time: the tail of a bf16 row forward, all of a row
that is shorter than a vector either way. Of texts of few tokens that took longer than the rest of
attention, and is avoided here: the same numbers, along another axis or in float32.

cross_entropy: the logits of a large vocabulary are never held whole: a chunk's are computed, turned
into their part of the loss and of the gradients, and dropped. loss = sum log Z - logit[label] + z
log(Z)^2, with Z = sum exp(logits); the last term keeps logits from drifting (PaLM, Chowdhery et al.
2022, arXiv:2204.02311, section 5).
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

PART = 2**18  # bytes drawn at a time, which are compared while a core's cache has them
# Numbers in float32 that a vector of this processor holds; in bf16 they are twice as many.
LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
# Of one chunk's logits in fp32: near the caches of a processor. For a GPU each chunk is a dozen
# kernels, and once more the output matrix's gradient read and written: fewer and larger ones, which
# are to its memory as one to so many.
CHUNK_BYTES = 2**25
CHUNK_SHARE = 256
FEWEST = 256  # tokens of a chunk, so that its matrix products stay large


def in_bf16(device: torch.device) -> bool:
    """Whether products are made in bf16 now, by oneDNN on a processor (which some builds of PyTorch
    are without).
    """
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not torch.compiler.is_compiling()
    )


def linear(x: Tensor, weight: "Tensor | AnyWeight", bias: Tensor | None) -> Tensor:
    """x W^T + b: x (T, I), weight (O, I), bias (O,) -> (T, O)."""
    if not isinstance(weight, Tensor):
        from langue.model.weight_linear import product

        return product(x, weight, bias)
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


def rows_of(layer: nn.Module, x: Tensor, begin: int, end: int) -> Tensor:
    """What a linear map gives in some of its rows: (..., I) -> (..., end - begin)."""
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
    """How many of the 256 byte values drop."""
    return min(255, round(probability * 256))


def random_keep(shape: torch.Size | tuple[int, ...], dropped: int, device: torch.device) -> Tensor:
    """Mask of `shape` (uint8), 0 with probability `dropped`/256 and else 1, from the default
    generator of `device`.
    """
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
    otherwise.
    """

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
    """hidden (M, E), weight (V, E), labels (M,) -> the summed loss, a scalar in fp32, and how much
    of it is the z term, which has no gradient of its own.

    logits = hidden weight^T + bias, then cap tanh(logits / cap) where there is a cap. The products
    are in autocast's dtype where it is on, the softmax always in fp32 (fp64 for fp64). compiled:
    what is made of a chunk's logits is fused by PyTorch's compiler.
    """
    chunk = _compiled() if compiled else _chunk
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        loss, z_term = _Chunked.apply(hidden, weight, bias, labels, cap, z_loss, dtype, chunk)  # type: ignore[no-untyped-call]
    return loss, z_term


def chunk_size(vocabulary: int, room: float | None) -> int:
    """Tokens whose logits are held at once; room: bytes of a GPU's memory, None: not on a GPU."""
    most = CHUNK_BYTES if room is None else room / CHUNK_SHARE
    return max(FEWEST, int(most) // (4 * vocabulary))


class _Chunked(torch.autograd.Function):
    """Computes the gradients on the way forward, while the chunk's probabilities are at hand."""

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
    """The loss of a chunk, how much of it is the z term, and its derivative by the logits (m, V).

    What is as large as the logits is read and written as seldom as can be: a log-softmax and its
    exponential, which in the usual case replaces the logits, rounded as the products want it.
    """
    logits = x @ w.t()
    at = labels[:, None]
    if bias is not None:
        logits = logits + bias  # in the wider of the two
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
    """Once for chunks of one size, and once for all others."""
    return torch.compile(_chunk)
