"""Adapters: takes a model whose matrices are frozen; returns the same model with a few trained
parameters on some of its linear maps.

For a map y = x W^T + b with W (O, I), restricted to the rows that an adapter covers:

LoRA (Hu et al. 2021, arXiv:2106.09685): y + s (x A^T) B^T with A (R, I), B (O, R) and s = alpha /
R; rank-stabilised (Kalajdzievski 2023, arXiv:2312.03732): s = alpha / sqrt(R).

DoRA (Liu et al. 2024, arXiv:2402.09353, eq. 5): x V^T m / |V| + b with V = W + s B A, the norms |V|
of its rows (O,), which are detached from the gradient (section 4.3), and magnitudes m (O,),
initially |W|.

IA3 (Liu et al. 2022, arXiv:2205.05638): l * y with l (O,), or, for the input of a feed-forward map,
(l * x) W^T + b with l (I,).

A model with adapters is a new tree of modules, which `with_adapters` builds and which shares all
tensors with the old one. If one of langue's matrices consists of several published ones, stacked by
rows, each of these has an adapter of its own for its rows (`Patch`).
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.errors import ModelError
from langue.model.kernels import Dropout, rows_of
from langue.model.weight_kinds import StackedWeight, Weight
from langue.model.weight_linear import FrozenWeightLinear, WeightLinear, rebuilt

M = TypeVar("M", bound=nn.Module)
Method = Literal["lora", "dora", "ia3", "ia3_input"]
# The names of the parameters that each method trains.
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "lora": ("a", "b"),
    "dora": ("a", "b", "magnitude"),
    "ia3": ("scales",),
    "ia3_input": ("scales",),
}
# Parameters that belong to the input of a map and not to its rows: if one published matrix is two
# of langue's, both share this tensor.
OF_INPUTS = ("a",)


@dataclass(frozen=True)
class Patch:
    """An adapter of some rows of one of langue's linear maps.

    layer: name of its module. begin, end: the rows. published: name of the published matrix with
    these rows. rank and scale apply to LoRA and DoRA.
    """

    layer: str
    begin: int
    end: int
    published: str
    method: Method
    rank: int = 0
    scale: float = 1.0
    dropout: float = 0.0


Values = Mapping[str, Tensor]  # the parameters of an adapter, by name


def _parameter(value: Tensor) -> nn.Parameter:
    """Return a tensor as a parameter; a parameter stays the same object."""
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value)


class Part(nn.Module):
    """An adapter of the rows `begin` to `end` of a map."""

    def __init__(self, patch: Patch, values: Values) -> None:
        super().__init__()
        self.begin = patch.begin
        self.end = patch.end

    @abstractmethod
    def forward(self, x: Tensor, out: Tensor, base: nn.Module, rows: slice) -> Tensor:
        """Return the adapted output of some of its rows: x (..., I) -> (..., O).

        out (..., O): output of the map itself. base: the map.
        """

    @abstractmethod
    def merged(self, weight: Tensor) -> Tensor:
        """Return the merged matrix, (O, I) in fp32."""


class LowRank(Part):
    """LoRA."""

    def __init__(self, patch: Patch, values: Values) -> None:
        super().__init__(patch, values)
        self.scale = patch.scale
        self.dropout = Dropout(patch.dropout)
        self.a = _parameter(values["a"])  # (R, I)
        self.b = _parameter(values["b"])  # (O, R)

    def delta(self, x: Tensor, rows: slice) -> Tensor:
        """Return s (x A^T) B^T for some of its rows: x (..., I) -> (..., O)."""
        return F.linear(F.linear(self.dropout(x), self.a), self.b[rows]) * self.scale

    def product(self) -> Tensor:
        """Return s B A: (O, I)."""
        return self.b @ self.a * self.scale

    def forward(self, x: Tensor, out: Tensor, base: nn.Module, rows: slice) -> Tensor:
        return out + self.delta(x, rows)

    def merged(self, weight: Tensor) -> Tensor:
        return weight + self.product()


class Decomposed(LowRank):
    """DoRA."""

    def __init__(self, patch: Patch, values: Values) -> None:
        super().__init__(patch, values)
        self.magnitude = _parameter(values["magnitude"])  # (O,)

    def _ratio(self, weight: Tensor, rows: slice) -> Tensor:
        """Return m / |V| of these rows, (O,)."""
        with torch.no_grad():
            whole = weight.to(self.b.dtype) + self.b[rows] @ self.a * self.scale
            norms = torch.linalg.vector_norm(whole, dim=1)
        ratio: Tensor = self.magnitude[rows] / norms
        return ratio

    def forward(self, x: Tensor, out: Tensor, base: nn.Module, rows: slice) -> Tensor:
        inside = slice(self.begin + rows.start, self.begin + rows.stop)
        ratio = self._ratio(matrix_of(base, inside), rows)
        bias = None if base.bias is None else base.bias[inside]  # type: ignore[index]
        alone = out if bias is None else out - bias
        dropping = self.training and self.dropout.probability > 0
        if dropping:  # both products must see the same dropout of x
            x = self.dropout(x)
            alone = rows_of(base, x, inside.start, inside.stop)
            alone = alone if bias is None else alone - bias
        delta = F.linear(F.linear(x, self.a), self.b[rows]) * self.scale
        return out + (ratio - 1) * alone + ratio * delta

    def merged(self, weight: Tensor) -> Tensor:
        ratio = self._ratio(weight, slice(0, self.end - self.begin))
        return (weight + self.product()) * ratio[:, None]


class Scaled(Part):
    """IA3 on outputs: l * y."""

    def __init__(self, patch: Patch, values: Values) -> None:
        super().__init__(patch, values)
        self.scales = _parameter(values["scales"])  # (O,)

    def forward(self, x: Tensor, out: Tensor, base: nn.Module, rows: slice) -> Tensor:
        return out * self.scales[rows]

    def merged(self, weight: Tensor) -> Tensor:
        return weight * self.scales[:, None]


class ScaledInput(Part):
    """IA3 on inputs: (l * x) W^T + b."""

    def __init__(self, patch: Patch, values: Values) -> None:
        super().__init__(patch, values)
        self.scales = _parameter(values["scales"])  # (I,)

    def forward(self, x: Tensor, out: Tensor, base: nn.Module, rows: slice) -> Tensor:
        return rows_of(base, x * self.scales, self.begin + rows.start, self.begin + rows.stop)

    def merged(self, weight: Tensor) -> Tensor:
        return weight * self.scales


class AdaptedLinear(nn.Module):
    """A frozen linear map with adapters of some of its rows: (..., I) -> (..., O)."""

    def __init__(self, base: nn.Module, parts: Sequence[Part]) -> None:
        super().__init__()
        self.base = base
        self.parts = nn.ModuleList(parts)  # sorted by rows, which do not overlap
        self.size = len(self.weight)

    @property
    def weight(self) -> Tensor | Weight | StackedWeight:
        """The map's own matrix, without the adapters."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x, 0, self.size)

    def rows(self, x: Tensor, begin: int, end: int) -> Tensor:
        """Return the output of some of its rows: (..., end - begin)."""
        all_parts: Iterable[Part] = self.parts  # type: ignore[assignment]
        parts = [part for part in all_parts if part.begin < end and part.end > begin]
        if len(parts) == 1 and isinstance(parts[0], ScaledInput) and len(self.parts) == 1:
            return rows_of(self.base, x * parts[0].scales, begin, end)  # covers all rows
        out = rows_of(self.base, x, begin, end)
        pieces = []
        at = begin
        for part in parts:
            first = max(begin, part.begin)
            last = min(end, part.end)
            if at < first:
                pieces.append(out[..., at - begin : first - begin])
            own = slice(first - part.begin, last - part.begin)
            pieces.append(part(x, out[..., first - begin : last - begin], self.base, own))
            at = last
        if at < end:
            pieces.append(out[..., at - begin :])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)

    def extra_repr(self) -> str:
        return ", ".join(f"rows {part.begin} to {part.end}" for part in self.parts)


def matrix_of(base: nn.Module, rows: slice) -> Tensor:
    """Return rows of a map's matrix as numbers, whatever its format."""
    return _rows(base.weight, rows)  # type: ignore[arg-type]


def _rows(weight: Tensor | Weight | StackedWeight, rows: slice) -> Tensor:
    part = weight[rows]
    return part.detach() if isinstance(part, Tensor) else part.dequantize()


KINDS: Mapping[str, Callable[[Patch, Values], Part]] = {
    "lora": LowRank,
    "dora": Decomposed,
    "ia3": Scaled,
    "ia3_input": ScaledInput,
}


def with_adapters(model: M, patches: Sequence[Patch], values: Sequence[Values]) -> M:
    """Return the model with adapters with these values: a new tree of modules around the same
    tensors.

    Raises ModelError if the model has no such map, or one of another size.
    """
    modules = dict(model.named_modules())
    parts: dict[str, list[Part]] = {}
    for patch, own in zip(patches, values, strict=True):
        base = modules.get(patch.layer)
        if base is None or not hasattr(base, "weight"):
            raise ModelError(f"the model has no {patch.layer}, which {patch.published} is here")
        _check_sizes(patch, own, base.weight)
        place = base.weight.device
        part = KINDS[patch.method](patch, own).to(place)
        parts.setdefault(patch.layer, []).append(part)
    made: dict[str, nn.Module] = {}
    for layer, own_parts in parts.items():
        ordered = sorted(own_parts, key=lambda part: part.begin)
        made[layer] = AdaptedLinear(modules[layer], ordered)
    return rebuilt(model, "", made)  # type: ignore[return-value]


def _check_sizes(patch: Patch, values: Values, weight: Tensor | Weight | StackedWeight) -> None:
    rows, columns = weight.shape
    covered = patch.end - patch.begin
    scales = columns if patch.method == "ia3_input" else covered
    wanted = {
        "a": (patch.rank, columns),
        "b": (covered, patch.rank),
        "magnitude": (covered,),
        "scales": (scales,),
    }
    odd = [name for name, value in values.items() if tuple(value.shape) != wanted[name]]
    if odd or patch.end > rows:
        name = odd[0] if odd else "rows"
        raise ModelError(
            f"{name} of {patch.published} does not fit its map, which is {rows} x {columns}",
            do="take the model that the adapter was trained on",
        )


def new_values(
    patches: Sequence[Patch], matrices: Mapping[str, Tensor | Weight | StackedWeight], seed: int
) -> list[Values]:
    """Return initial values of adapters, which change nothing: A uniform within 1 / sqrt(I), as in
    nn.Linear; B zero; magnitudes those of the matrix; scales one.

    matrices: by layer. Two patches of one published matrix share the parameters of its input.
    """
    generator = torch.Generator().manual_seed(seed)
    of_inputs: dict[str, nn.Parameter] = {}  # by the published matrix
    made: list[Values] = []
    for patch in patches:
        matrix = matrices[patch.layer]
        inputs = int(matrix.shape[1])
        rows = patch.end - patch.begin
        if patch.method == "ia3":
            made.append({"scales": torch.ones(rows)})
            continue
        if patch.published not in of_inputs:
            bound = 1 / math.sqrt(inputs)
            first = torch.ones(inputs)
            if patch.method != "ia3_input":
                first = torch.empty(patch.rank, inputs).uniform_(-bound, bound, generator=generator)
            of_inputs[patch.published] = nn.Parameter(first)
        shared = of_inputs[patch.published]
        if patch.method == "ia3_input":
            made.append({"scales": shared})
            continue
        values: dict[str, Tensor] = {"a": shared, "b": torch.zeros(rows, patch.rank)}
        if patch.method == "dora":
            own = _rows(matrix, slice(patch.begin, patch.end)).float()
            values["magnitude"] = torch.linalg.vector_norm(own, dim=1)
        made.append(values)
    return made


@torch.no_grad()
def merge_into(
    weights: dict[str, Tensor], patches: Sequence[Patch], values: Sequence[Values]
) -> None:
    """Merge adapters into the matrices (and, for IA3, the biases) of a model's named weights."""
    for patch, own in zip(patches, values, strict=True):
        key = f"{patch.layer}.weight"
        if key not in weights:
            raise ModelError(f"the model has no {key}, which {patch.published} is here")
        _check_sizes(patch, own, weights[key])
        part = KINDS[patch.method](patch, own)
        rows = slice(patch.begin, patch.end)
        whole = weights[key].float().clone()  # (O, I)
        whole[rows] = part.merged(whole[rows])
        weights[key] = whole.to(weights[key].dtype)
        bias = f"{patch.layer}.bias"
        if patch.method == "ia3" and bias in weights:
            shifted = weights[bias].clone()
            shifted[rows] *= own["scales"].to(shifted.dtype)
            weights[bias] = shifted


def with_parameters(model: M, weights: Mapping[str, Tensor]) -> M:
    """Return the model with these weights in place of its own, under the names of a model without
    adapters: a new tree of modules, unless there are none.
    """
    if not weights:
        return model
    made: dict[str, nn.Module] = {}
    named = dict(model.named_modules())
    for name, weight in weights.items():
        module, _, last = name.rpartition(".")
        module = f"{module}.base" if f"{module}.base" in named else module
        old = named[module]._parameters.get(last) if module in named else None
        if old is None or old.shape != weight.shape:
            raise ModelError(
                f"{name} of shape {[*weight.shape]} is no weight of the model as it is held here",
                do="load it without weights=",
            )
        new = made.setdefault(module, copy.copy(named[module]))
        new._parameters = dict(new._parameters)
        new._parameters[last] = nn.Parameter(weight.to(old.device, old.dtype), old.requires_grad)
    return rebuilt(model, "", made)  # type: ignore[return-value]


def freeze(model: nn.Module) -> None:
    """Exclude a model's weights from training."""
    for weight in model.parameters():
        weight.requires_grad_(False)


def with_gradients(model: M) -> M:
    """Return the model with quantized matrices that pass gradients on to their inputs: a new tree
    of modules.
    """
    made: dict[str, nn.Module] = {
        name: FrozenWeightLinear(part.weight, part.bias)
        for name, part in model.named_modules()
        if isinstance(part, WeightLinear)
    }
    return rebuilt(model, "", made)  # type: ignore[return-value]
