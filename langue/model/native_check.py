"""The self-test of compiled kernels: compares them with the formulas.

The formulas are written here in float64, slow and obvious, and the tests compare the kernels with
the same functions on more shapes. If a compiler gets one of them wrong, its kernels are not used.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

UNIT = 32  # elements of x that share a scale, as in kernels.cpp
PAGE = 16  # tokens of a KV cache page
TOLERANCE = 1e-5  # relative to the sum of absolute products, since fp32 sums depend on the order


@dataclass(frozen=True)
class PlainWeight:
    """A matrix (O, K) in one of langue's storage formats."""

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
    """Return the values of a stored matrix, (O, K) float64."""
    data = weight.data
    if weight.kind in ("fp32", "bf16"):
        return data.double()
    assert weight.scales is not None
    rows = len(data)
    codes = data.double() if weight.kind == "int8" else _unpack_int4(weight)  # (O, K)
    groups = codes.view(rows, -1, weight.group)  # (O, groups, group)
    scales = weight.scales.double().view(rows, -1, 1)
    values = groups * scales
    if weight.mins is not None:
        mins = weight.mins.double().view(rows, -1, 1)
        values = values - mins
    return values.flatten(1)  # (O, K)


def _unpack_int4(weight: PlainWeight) -> Tensor:
    """Return the codes of a 4-bit matrix, (O, K) float64: signed if it has no minimums."""
    data = weight.data
    pairs = data.view(len(data), -1, UNIT // 2)  # (O, units, 16)
    low = pairs & 15
    high = pairs >> 4
    units = torch.cat([low, high], dim=2)  # (O, units, 32)
    codes = units.flatten(1).double()  # (O, K)
    if weight.mins is None:
        codes -= 8
    return codes


def rounded(x: Tensor) -> Tensor:
    """Return x (M, K) as integer products read it, in float64: 8 bits, and a scale for each
    unit.
    """
    units = x.view(len(x), -1, UNIT)  # (M, units, 32)
    largest = units.abs().amax(dim=2, keepdim=True)
    # not 127 / largest: PyTorch multiplies by the reciprocal, which is itself rounded
    inverse = torch.tensor(127.0).div(largest)
    zero = torch.zeros(())
    factor = torch.where(largest < 1e-36, zero, inverse)
    codes = (units * factor).round()
    scales = (largest / 127).double()
    values = codes.double() * scales
    return values.flatten(1)  # (M, K)


def linear_reference(
    x: Tensor, weight: PlainWeight, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return x W^T + b in float64, and the same sum of absolute values, to which errors are
    relative.
    """
    is_float = weight.kind in ("fp32", "bf16")
    inputs = x.double() if is_float else rounded(x)
    matrix = dequantised(weight)
    offset = torch.zeros(len(matrix)).double()
    if bias is not None:
        offset = bias.double()
    products = inputs @ matrix.T + offset
    magnitude = inputs.abs() @ matrix.abs().T + offset.abs()
    return products, magnitude


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
    """Compute `Native.attend` in float64, one sequence and one head at a time."""
    sequences, heads, width = q.shape
    kv_heads = pages.shape[2]
    scale = scale or 1 / math.sqrt(width)
    out = torch.zeros(sequences, heads, width, dtype=torch.float64)
    for n, length in enumerate(lengths.tolist()):
        n_pages = (length + PAGE - 1) // PAGE
        own_pages = tables[n, :n_pages].long()
        first = max(0, length - window) if window else 0
        visible = slice(first, length)
        distances = torch.arange(length - 1, -1, -1).double()[visible]  # to the last token
        for head in range(heads):
            kv_head = head * kv_heads // heads
            own = pages[:, own_pages, kv_head].double()  # (2, pages, 16, K)
            tokens = own.flatten(1, 2)  # (2, pages * 16, K)
            keys, values = tokens[:, visible]  # (visible, K) each
            query = q[n, head].double()  # (K,)
            scores = keys @ query * scale  # (visible,)
            if cap:
                scores = cap * torch.tanh(scores / cap)
            if slopes is not None:
                slope = slopes[head].double()
                scores = scores - slope * distances
            if sinks is not None:
                sink = sinks[head, None].double()
                scores = torch.cat([scores, sink])
            probabilities = torch.softmax(scores, dim=0)
            out[n, head] = probabilities[: len(values)] @ values
    return out.flatten(1)  # (N, H * K)


def random_weight(kind: str, shape: tuple[int, int], draw: torch.Generator) -> PlainWeight:
    """Return a random matrix; kind: that of a `Weight`, or "int8 of 16", "int4 with mins"."""
    rows, columns = shape
    if kind in ("fp32", "bf16"):
        values = torch.randn(rows, columns, generator=draw)
        return PlainWeight(kind, values.bfloat16() if kind == "bf16" else values)
    group = 16 if kind == "int8 of 16" else UNIT
    both = torch.rand(2, rows, columns // group, generator=draw)
    scales, mins = both.half().unbind(0)
    if kind.startswith("int8"):
        integers = torch.randint(-128, 128, (rows, columns), generator=draw)
        codes = integers.to(torch.int8)
        return PlainWeight("int8", codes, scales, None, group)
    integers = torch.randint(0, 256, (rows, columns // 2), generator=draw)
    codes = integers.to(torch.uint8)
    has_mins = kind == "int4 with mins"
    return PlainWeight("int4", codes, scales, mins if has_mins else None)


RANDOM_KINDS = ("fp32", "bf16", "int8", "int8 of 16", "int4", "int4 with mins")


def passes_self_test(kernels: Kernels) -> bool:
    """Return whether each function agrees with float64 on small operands with odd shapes."""
    draw = torch.Generator().manual_seed(0)
    for kind in RANDOM_KINDS:
        if not _linear_agrees(kernels, kind, draw):
            return False
    return _attention_agrees(kernels, draw)


def _linear_agrees(kernels: Kernels, kind: str, draw: torch.Generator) -> bool:
    rows = 37
    columns = 1120
    weight = random_weight(kind, (rows, columns), draw)
    bias = torch.randn(rows, generator=draw)
    for n_inputs in (1, 2, 3, 4, 7):
        x = torch.randn(n_inputs, columns, generator=draw)
        expected, magnitude = linear_reference(x, weight, bias)
        found = kernels.linear(x, weight, bias).double()
        error = (found - expected).abs()
        is_close = error <= TOLERANCE * magnitude  # false for NaN
        if not bool(is_close.all()):
            return False
    return True


def _attention_agrees(kernels: Kernels, draw: torch.Generator) -> bool:
    """Return whether writing to pages, rotation and attention agree with float64."""
    pages = torch.zeros(2, 7, 2, PAGE, 40)
    if not _write_agrees(kernels, pages, draw):
        return False
    q = torch.randn(2, 4, 40, generator=draw)
    angles = torch.randn(2, 10, generator=draw)
    if not _rotation_agrees(kernels, q, angles):
        return False
    tables = torch.tensor([[5, 2, 0], [1, 3, 6]], dtype=torch.int32)
    lengths = torch.tensor([41, 3], dtype=torch.int32)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0])
    sinks = torch.tensor([1.0, -2.0, 20.0, 0.0])
    for axes in ((0, 0.0, None, None), (19, 2.0, slopes, sinks)):
        found = kernels.attend(q, pages, tables, lengths, 0.0, *axes)
        expected = attend_reference(q, pages, tables, lengths, 0.0, *axes)
        if not _is_close(found, expected):
            return False
    return True


def _write_agrees(kernels: Kernels, pages: Tensor, draw: torch.Generator) -> bool:
    """Fill the pages (2, P, G, 16, K) with random keys and values in a random order, and return
    whether they are there.
    """
    _, n_pages, kv_heads, _, width = pages.shape
    slots = torch.randperm(n_pages * PAGE, generator=draw)
    both = torch.randn(2, len(slots), kv_heads, width, generator=draw)
    keys, values = both.unbind(0)
    kernels.write(keys, values, pages, slots)
    by_token = pages.transpose(2, 3).flatten(1, 2)  # (2, P * 16, G, K)
    written_keys, written_values = by_token[:, slots]
    return torch.equal(written_keys, keys) and torch.equal(written_values, values)


def _rotation_agrees(kernels: Kernels, q: Tensor, angles: Tensor) -> bool:
    """Rotate the first 2 R elements of each head of q (N, H, K) by angles (N, R), and return
    whether the result agrees with float64.
    """
    size = angles.shape[1]
    found = q.clone()
    kernels.rotate(found, angles.cos(), angles.sin())
    real = q[..., :size]
    imaginary = q[..., size : 2 * size]
    pairs = torch.stack([real, imaginary], -1).double()
    numbers = torch.view_as_complex(pairs)  # (N, H, R)
    ones = torch.ones(len(q), 1, size).double()
    rotation = torch.polar(ones, angles.double()[:, None])
    rotated = numbers * rotation
    kept = q[..., 2 * size :].double()
    expected = torch.cat([rotated.real, rotated.imag, kept], dim=-1)  # (N, H, K)
    return _is_close(found, expected)


def _is_close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.double(), expected, rtol=0, atol=TOLERANCE)
