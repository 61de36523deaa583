"""What arrives: hidden states (M, E) and the tokens that should follow. What leaves: their summed
cross-entropy.

The logits of a large vocabulary are never held whole: a chunk's are computed, turned into their
part of the loss and of the gradients, and dropped. loss = sum log Z - logit[label] + z log(Z)^2,
with Z = sum exp(logits); the last term keeps logits from drifting (PaLM, Chowdhery et al. 2022,
arXiv:2204.02311, section 5).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from langue.runtime import device_memory

# Of one chunk's logits in fp32: near the caches of a processor. For a GPU each chunk is a dozen
# kernels, and once more the output matrix's gradient read and written: fewer and larger ones, which
# are to its memory as one to so many.
CHUNK_BYTES = 2**25
CHUNK_SHARE = 256
FEWEST = 256  # tokens of a chunk, so that its matrix products stay large


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
