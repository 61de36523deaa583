"""Quantized weights: take a matrix (O, K) in fp32 or bf16; return the same matrix in fewer bits,
and back.

int8 and int4 store groups of 32 numbers of a row as integers with a common scale (symmetric
group-wise rounding to nearest, as in GGUF's Q8_0 and Q4_0). Rounding uses the scale as it is
stored, in float16, and not the exact one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from langue.errors import ModelError, SettingsError

WeightKind = Literal["fp32", "bf16", "int8", "int4"]
KINDS: tuple[str, ...] = get_args(WeightKind)
GROUP = 32  # numbers of a row that share a scale
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_MOST = {"int8": 127, "int4": 8}  # largest absolute value of the integers
_PIECE = 2**18  # numbers that are rounded at a time, while they are in a core's cache
# The smallest scale for which the rounding error of float16 is at most 0.4%, half a step of the
# largest number.
_TINY = 2.0**-17
# Candidates for the integer value of the largest of 32 numbers; the scale with the smallest squared
# error is used. -8 is Q4_0's. With values nearer to zero, the steps are wider and nothing is
# clipped; with larger ones, the steps are finer and the largest number is clipped.
_LARGEST = (-8.0, -9.5, -9.0, -8.5, -7.5, -7.0)


@dataclass(frozen=True, eq=False)
class Weight:
    """A matrix (O, K), with one row for each of its O outputs.

    fp32, bf16: data (O, K) in that dtype. int8: data (O, K) int8 and scales (O, K / group) in
    float16 or float32, with group 32 or 16. int4: data (O, K / 2) uint8; in each group of 32, byte
    j holds element j in its low four bits and element j + 16 in its high ones, with the value (bits
    - 8) * scale; with mins (O, K / 32), bits * scale - min.
    """

    kind: WeightKind
    data: Tensor
    scales: Tensor | None = None
    mins: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        rows, columns = self.data.shape
        return torch.Size((rows, 2 * columns if self.kind == "int4" else columns))

    @property
    def group(self) -> int:
        """Numbers of a row that share a scale; 0 if there are no scales."""
        return 0 if self.scales is None else self.shape[1] // self.scales.shape[1]

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def is_quantized(self) -> bool:
        return self.scales is not None

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts())

    def parts(self) -> list[Tensor]:
        return [part for part in (self.data, self.scales, self.mins) if part is not None]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice | Tensor) -> "Weight":
        """Return some of the rows; those of a slice share memory with this weight."""
        return self.map(lambda part: part[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Weight":
        """Return the weight with a function applied to each of its tensors."""
        scales = None if self.scales is None else change(self.scales)
        mins = None if self.mins is None else change(self.mins)
        return replace(self, data=change(self.data), scales=scales, mins=mins)

    def dequantize(self) -> Tensor:
        """Return the represented numbers, (O, K) in fp32."""
        if self.scales is None:
            return self.data.float()
        grouped = self.data.view(len(self.data), self.scales.shape[1], -1)
        if self.kind == "int4":
            # (O, G, 16) bytes -> (O, G, 32)
            grouped = torch.cat([grouped & 15, grouped >> 4], dim=-1)
        numbers = grouped.float()
        if self.kind == "int4" and self.mins is None:
            numbers -= 8
        numbers *= self.scales.float()[:, :, None]
        if self.mins is not None:
            numbers -= self.mins.float()[:, :, None]
        return numbers.view(len(self.data), -1)  # (O, K)


@dataclass(frozen=True, eq=False)
class StackedWeight:
    """Weights in several formats, stacked by rows, e.g. if a file has queries and values in
    different ones.
    """

    stack: tuple[Weight, ...]

    @property
    def kind(self) -> str:
        return " and ".join(dict.fromkeys(weight.kind for weight in self.stack))

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.stack[0].shape[1]))

    @property
    def device(self) -> torch.device:
        return self.stack[0].device

    @property
    def nbytes(self) -> int:
        return sum(weight.nbytes for weight in self.stack)

    @property
    def is_quantized(self) -> bool:
        return any(weight.is_quantized for weight in self.stack)

    def __len__(self) -> int:
        return sum(len(weight) for weight in self.stack)

    def __getitem__(self, rows: slice | Tensor) -> "Weight | StackedWeight":
        """Return some of the rows, in the given order."""
        numbers = torch.arange(len(self))[rows]
        return stacked(_chosen(self.stack, numbers))

    def map(self, change: Callable[[Tensor], Tensor]) -> "StackedWeight":
        return StackedWeight(tuple(weight.map(change) for weight in self.stack))

    def dequantize(self) -> Tensor:
        return torch.cat([weight.dequantize() for weight in self.stack])


AnyWeight = Weight | StackedWeight


def check_weight_kind(kind: str) -> WeightKind:
    """Return the kind of weights; raise SettingsError if it does not exist."""
    if kind not in KINDS:
        raise SettingsError(
            f"weights = {kind!r} is not known", do=f"give {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        )
    return kind  # type: ignore[return-value]


def can_group(columns: int) -> bool:
    """Return whether rows of this length consist of whole groups."""
    return columns % GROUP == 0


def quantize(matrix: Tensor, kind: str) -> Weight:
    """Return a matrix (O, K) as a weight of a kind; fp32 of fp32 and bf16 of bf16 is the matrix
    itself, if its rows are contiguous (in GPT-2's files, columns are).

    Raises ModelError if a number is not finite or too large for the kind, or K is not a multiple of
    32 for int8 and int4.
    """
    checked = check_weight_kind(kind)
    if checked in _DTYPES:
        return Weight(checked, matrix.detach().to(_DTYPES[checked]).contiguous())
    rows, columns = matrix.shape
    if not can_group(columns):
        raise ModelError(f"a row of {columns} numbers is no whole number of groups of {GROUP}")
    groups = columns // GROUP
    stored = columns if checked == "int8" else columns // 2
    data_dtype = torch.int8 if checked == "int8" else torch.uint8
    data = torch.empty(rows, stored, dtype=data_dtype, device=matrix.device)
    scales = torch.empty(rows, groups, dtype=torch.float32, device=matrix.device)
    step = max(1, _PIECE // columns)
    for begin in range(0, rows, step):
        piece = slice(begin, begin + step)
        numbers = matrix[piece].detach().float().view(-1, groups, GROUP)  # (o, G, 32)
        _check_finite(numbers, checked)
        if checked == "int8":
            found, whole = _round8(numbers)
            data[piece] = whole.view(-1, columns)
        else:
            found, whole = _round4(numbers)
            packed = whole[..., :16] | whole[..., 16:] << 4  # (o, G, 16)
            data[piece] = packed.view(-1, columns // 2)
        scales[piece] = found
    # scales that were rounded to float16 fit; those of a matrix with groups of tiny numbers do not
    fits = torch.equal(scales.half().float(), scales)
    return Weight(checked, data, scales.half() if fits else scales)


def _check_finite(numbers: Tensor, kind: str) -> None:
    most = float(numbers.abs().max()) if numbers.numel() else 0.0
    limit = 65_504.0 * _MOST[kind]
    if not most <= limit:  # also true for NaN
        raise ModelError(
            f"a weight of {most:g} is not finite, or beyond what {kind} can hold ({limit:g})",
            do="use a checkpoint that is whole, or weights=bf16",
        )


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, 1 / scale)


def _round8(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales (o, G) and integers from -127 to 127 for numbers (o, G, 32): the largest
    becomes 127.
    """
    scale = numbers.abs().amax(-1, keepdim=True) / 127
    # a group of tiny numbers keeps its scale in float32, and so does the whole matrix
    scale = torch.where(scale < _TINY, scale, scale.half().float())
    whole = (numbers * _inverse(scale)).round_().clamp_(-127, 127)
    return scale.squeeze(-1), whole.to(torch.int8)


def _round4(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales (o, G) and integers from -8 to 7, plus 8, for numbers (o, G, 32).

    Of the scales that map the largest number to one of `_LARGEST`, takes the one with the smallest
    squared error; finally tries the optimal scale for its integers, w.q / q.q.
    """
    place = numbers.abs().argmax(-1, keepdim=True)
    largest = numbers.gather(-1, place)  # with its sign
    best, whole, least = _tried(numbers, largest / _LARGEST[0])
    for target in _LARGEST[1:]:
        best, whole, least = _better(numbers, largest / target, best, whole, least)
    dot = (numbers * whole).sum(-1, keepdim=True)
    suited = dot / whole.square().sum(-1, keepdim=True).clamp_min(1.0)
    best, whole, _ = _better(numbers, suited, best, whole, least)
    return best.squeeze(-1), (whole + 8).to(torch.uint8)


def _tried(numbers: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scale in float16, the integers that result from it, and their squared error."""
    scale = scale.half().float()
    whole = (numbers * _inverse(scale)).round_().clamp_(-8, 7)
    error = torch.addcmul(numbers, whole, scale, value=-1).square_().sum(-1, keepdim=True)
    return scale, whole, error


def _better(
    numbers: Tensor, scale: Tensor, best: Tensor, whole: Tensor, least: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each group, the results of a scale if its error is smaller, otherwise the
    previous ones.
    """
    scale, new, error = _tried(numbers, scale)
    wins = error < least
    chosen = torch.where(wins, scale, best), torch.where(wins, new, whole)
    return *chosen, torch.where(wins, error, least)


def _chosen(weights: Sequence[Weight], numbers: Tensor) -> list[Weight]:
    """Return rows of several weights by their numbers (R,), which count through all weights."""
    starts = torch.tensor([0, *(len(weight) for weight in weights)]).cumsum(0)
    sources = torch.searchsorted(starts, numbers, right=True) - 1
    ends = (sources.diff() != 0).nonzero().flatten() + 1
    parts = []
    for part in torch.tensor_split(numbers, ends):
        source = int(torch.searchsorted(starts, part[0], right=True)) - 1
        own = part - starts[source]
        begin = int(own[0])
        in_order = torch.equal(own, torch.arange(begin, begin + len(own)))
        parts.append(weights[source][slice(begin, begin + len(own)) if in_order else own])
    return parts


def take_rows(weights: Sequence[Weight], numbers: Tensor) -> AnyWeight:
    """Return rows by their numbers (R,), which count through all weights."""
    return stacked(_chosen(weights, numbers))


def stacked(weights: Sequence[Weight]) -> AnyWeight:
    """Stack weights by rows; adjacent ones in the same format become one Weight."""
    joined: list[Weight] = []
    for weight in weights:
        whole = join([joined[-1], weight]) if joined else None
        if whole is None:
            joined.append(weight)
        else:
            joined[-1] = whole
    return joined[0] if len(joined) == 1 else StackedWeight(tuple(joined))


def join(weights: Sequence[Weight]) -> Weight | None:
    """Stack weights by rows; None if their formats differ."""
    first = weights[0]
    if len(weights) == 1:
        return first
    forms = {(w.kind, w.shape[1], w.group, w.mins is None) for w in weights}
    if len(forms) > 1:
        return None
    scales = None if first.scales is None else _joined([w.scales for w in weights])
    mins = None if first.mins is None else _joined([w.mins for w in weights])
    return Weight(first.kind, torch.cat([w.data for w in weights]), scales, mins)


def _joined(parts: Sequence[Tensor | None]) -> Tensor:
    """Concatenate along the first axis, in the wider dtype."""
    return torch.cat([part for part in parts if part is not None])
