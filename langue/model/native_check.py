"""What arrives: kernels just built. What leaves: whether they compute what the formulas say.

The formulas stand here in float64, slow and obvious; the tests hold the kernels against the same
functions, with more shapes. A compiler that gets one of these wrong is not used.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

UNIT = 32  # elements of x that share a scale, as in kernels.cpp
TOLERANCE = 1e-5  # of the sum of absolute products: fp32 sums, in one order or another


@dataclass(frozen=True)
class PlainWeight:
    """A matrix (O, K) as langue's kinds of weights store it."""

    kind: str
    data: Tensor
    scales: Tensor | None = None
    mins: Tensor | None = None
    group: int = UNIT


class Kernels(Protocol):
    def linear(self, x: Tensor, weight: PlainWeight, bias: Tensor | None) -> Tensor: ...

    def attend(
        self,
        q: Tensor,
        pages: Tensor,
        tables: Tensor,
        lengths: Tensor,
        scale: float,
        window: int,
        cap: float,
        slopes: Tensor | None,
        sinks: Tensor | None,
    ) -> Tensor: ...

    def write(self, k: Tensor, v: Tensor, pages: Tensor, slots: Tensor) -> None: ...

    def rotate(self, x: Tensor, cosines: Tensor, sines: Tensor) -> None: ...


def dequantised(weight: PlainWeight) -> Tensor:
    """What the stored matrix stands for, (O, K) float64."""
    data = weight.data
    if weight.kind in ("fp32", "bf16"):
        return data.double()
    assert weight.scales is not None
    if weight.kind == "int8":
        codes = data.double()
    else:
        pairs = data.view(len(data), -1, UNIT // 2)  # (O, groups, 16)
        codes = torch.cat([pairs & 15, pairs >> 4], dim=2).flatten(1).double()  # (O, K)
        codes -= 0 if weight.mins is not None else 8
    groups = codes.view(len(data), -1, weight.group)  # (O, groups, group)
    values = groups * weight.scales.double().view(len(data), -1, 1)
    if weight.mins is not None:
        values = values - weight.mins.double().view(len(data), -1, 1)
    return values.flatten(1)


def rounded(x: Tensor) -> Tensor:
    """x (M, K) as products with whole numbers read it: 8 bits and a scale a unit; float64."""
    units = x.view(len(x), -1, UNIT)  # (M, units, 32)
    largest = units.abs().amax(dim=2, keepdim=True)
    # not 127 / largest: PyTorch multiplies by the reciprocal, which is rounded itself
    factor = torch.where(largest < 1e-36, torch.zeros(()), torch.tensor(127.0).div(largest))
    codes = (units * factor).round()
    return (codes.double() * (largest / 127).double()).flatten(1)


def linear_reference(
    x: Tensor, weight: PlainWeight, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x W^T + b in float64, and the same of absolute values, by which errors are judged."""
    inputs = x.double() if weight.kind in ("fp32", "bf16") else rounded(x)
    matrix = dequantised(weight)
    offset = torch.zeros(len(matrix)).double() if bias is None else bias.double()
    magnitude = inputs.abs() @ matrix.abs().T + offset.abs()
    return inputs @ matrix.T + offset, magnitude


def attend_reference(
    q: Tensor,
    pages: Tensor,
    tables: Tensor,
    lengths: Tensor,
    scale: float = 0.0,
    window: int = 0,
    cap: float = 0.0,
    slopes: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """`Native.attend` in float64, one sequence and one head at a time."""
    sequences, heads, width = q.shape
    kv_heads = pages.shape[2]
    out = torch.zeros(sequences, heads, width, dtype=torch.float64)
    for n, length in enumerate(lengths.tolist()):
        own = tables[n, : (length + 15) // 16].long()
        seen = slice(max(0, length - window) if window else 0, length)
        before = torch.arange(length - 1, -1, -1).double()[seen]  # distance to the last token
        for head in range(heads):
            kept = pages[:, own, head * kv_heads // heads].double()  # (2, pages, 16, K)
            k, v = kept.flatten(1, 2)[:, seen]  # (length, K) each
            scores = k @ q[n, head].double() * (scale or 1 / math.sqrt(width))
            if cap:
                scores = cap * torch.tanh(scores / cap)
            if slopes is not None:
                scores = scores - slopes[head].double() * before
            if sinks is not None:
                scores = torch.cat([scores, sinks[head, None].double()])
            out[n, head] = torch.softmax(scores, dim=0)[: len(v)] @ v
    return out.flatten(1)


def random_weight(kind: str, shape: tuple[int, int], draw: torch.Generator) -> PlainWeight:
    """A matrix of random numbers; kind: of `Weight`, or "int8 of 16", "int4 with mins"."""
    rows, columns = shape
    if kind in ("fp32", "bf16"):
        values = torch.randn(rows, columns, generator=draw)
        return PlainWeight(kind, values.bfloat16() if kind == "bf16" else values)
    group = 16 if kind == "int8 of 16" else UNIT
    scales, mins = torch.rand(2, rows, columns // group, generator=draw).half().unbind(0)
    if kind.startswith("int8"):
        codes = torch.randint(-128, 128, (rows, columns), generator=draw).to(torch.int8)
        return PlainWeight("int8", codes, scales, None, group)
    codes = torch.randint(0, 256, (rows, columns // 2), generator=draw).to(torch.uint8)
    return PlainWeight("int4", codes, scales, mins if kind == "int4 with mins" else None)


RANDOM_KINDS = ("fp32", "bf16", "int8", "int8 of 16", "int4", "int4 with mins")


def passes_self_test(kernels: Kernels) -> bool:
    """Whether each function agrees with float64 on small operands with odd shapes."""
    draw = torch.Generator().manual_seed(0)
    return all(_linear_agrees(kernels, kind, draw) for kind in RANDOM_KINDS) and _attention_agrees(
        kernels, draw
    )


def _linear_agrees(kernels: Kernels, kind: str, draw: torch.Generator) -> bool:
    weight = random_weight(kind, (37, 1120), draw)
    bias = torch.randn(37, generator=draw)
    for rows in (1, 2, 3, 4, 7):
        x = torch.randn(rows, 1120, generator=draw)
        want, magnitude = linear_reference(x, weight, bias)
        error = (kernels.linear(x, weight, bias).double() - want).abs()
        if not bool((error <= TOLERANCE * magnitude).all()):  # nor where one is NaN
            return False
    return True


def _attention_agrees(kernels: Kernels, draw: torch.Generator) -> bool:
    pages = torch.zeros(2, 7, 2, 16, 40)
    slots = torch.randperm(7 * 16, generator=draw)
    k, v = torch.randn(2, len(slots), 2, 40, generator=draw).unbind(0)
    kernels.write(k, v, pages, slots)
    places = pages.transpose(2, 3).flatten(1, 2)  # (2, pages * 16, G, K)
    if not (torch.equal(places[0, slots], k) and torch.equal(places[1, slots], v)):
        return False
    q = torch.randn(2, 4, 40, generator=draw)
    angles = torch.randn(2, 10, generator=draw)
    turned = q.clone()
    kernels.rotate(turned, angles.cos(), angles.sin())
    whole = torch.view_as_complex(torch.stack([q[..., :10], q[..., 10:20]], -1).double())
    whole = whole * torch.polar(torch.ones(2, 1, 10).double(), angles.double()[:, None])
    want = torch.cat([whole.real, whole.imag, q[..., 20:].double()], dim=-1)
    if not torch.allclose(turned.double(), want, rtol=0, atol=TOLERANCE):
        return False
    tables = torch.tensor([[5, 2, 0], [1, 3, 6]], dtype=torch.int32)
    lengths = torch.tensor([41, 3], dtype=torch.int32)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0])
    sinks = torch.tensor([1.0, -2.0, 20.0, 0.0])
    for axes in ((0, 0.0, None, None), (19, 2.0, slopes, sinks)):
        mixed = kernels.attend(q, pages, tables, lengths, 0.0, *axes)
        want = attend_reference(q, pages, tables, lengths, 0.0, *axes)
        if not torch.allclose(mixed.double(), want, rtol=0, atol=TOLERANCE):
            return False
    return True
