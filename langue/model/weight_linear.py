"""Linear maps with quantized weights: take x (T, K) and a weight in few bits; return x W^T + b, (T,
O) in fp32.

A model whose matrices are converted is a new tree of modules: `with_weights` builds it, and shares
everything that does not change with the old one.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.errors import LangueWarning, ModelError
from langue.model.native import native
from langue.model.weight_kinds import (
    GROUP,
    AnyWeight,
    StackedWeight,
    Weight,
    WeightKind,
    can_group,
    check_weight_kind,
    quantize,
)

M = TypeVar("M", bound=nn.Module)
# weight elements that the PyTorch product dequantizes at a time
_WIDENED = 2**20
_WIDENED_IN_TRAINING = 2**24  # for large products
# Modules that are not converted: routers of experts, and BERT's classifier of sentence pairs.
_KEPT = ("router", "shared_gate", "pooler", "pairs")
# The kind of token embeddings, which are also the output matrix if it is tied; its errors directly
# affect the logits.
TABLE_KINDS: Mapping[str, WeightKind] = {
    "fp32": "fp32",
    "bf16": "bf16",
    "int8": "int8",
    "int4": "int8",
}


def product(x: Tensor, weight: AnyWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b: x (..., K), bias (O,) -> (..., O) in fp32. For inference only: it has no
    gradient.
    """
    if isinstance(weight, StackedWeight):
        biases = [None] * len(weight.stack) if bias is None else _divided(bias, weight)
        parts = [product(x, part, own) for part, own in zip(weight.stack, biases, strict=True)]
        return torch.cat(parts, dim=-1)
    if torch.is_grad_enabled() and x.requires_grad:
        raise ModelError(
            f"{weight.kind} weights are for use and give no gradients",
            do="train the model loaded without weights=",
        )
    # few steps of Python, as in `Native.linear`
    rows = x if x.dtype is torch.float32 else x.float()
    if rows.ndim != 2:
        rows = rows.reshape(-1, x.shape[-1])
    rows = rows.contiguous()  # (T, K)
    kernels = native() if x.is_cpu else None
    if kernels is not None and kernels.reads(weight):
        out: Tensor = kernels.linear(rows, weight, bias)
    else:
        out = widened_product(rows.detach(), weight, None if bias is None else bias.detach())
    return out if x.ndim == 2 else out.view(*x.shape[:-1], len(weight))


def _divided(bias: Tensor, weight: StackedWeight) -> Sequence[Tensor]:
    """Return the bias of each part."""
    return torch.split(bias, [len(part) for part in weight.stack])


def widened_product(x: Tensor, weight: Weight, bias: Tensor | None) -> Tensor:
    """Compute `product` for x (T, K) with PyTorch only: some rows of the weight at a time,
    converted to fp32.

    The result for each row of x does not depend on the other rows.
    """
    step = len(weight) if weight.kind == "fp32" else max(1, _WIDENED // weight.shape[1])
    parts = []
    for begin in range(0, len(weight), step):
        chosen = slice(begin, begin + step)
        own = None if bias is None else bias[chosen]
        parts.append(_linear(x, weight[chosen].dequantize(), own))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear in fp32; on CPUs by oneDNN, whose results for a row do not depend on the number of
    rows, except for a single row, which is therefore computed twice (MKL's sums differ below 8
    rows).
    """
    onednn = x.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    with torch.autocast(x.device.type, enabled=False):
        if not onednn or not len(x):
            return F.linear(x, weight, bias)
        rows = x.repeat(2, 1) if len(x) == 1 else x
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return out[: len(x)]


class _Held(nn.Module):
    """A module with a Weight, which moves between devices with it."""

    def __init__(self, weight: AnyWeight) -> None:
        super().__init__()
        self.weight = weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # changes the device, but never the format
        self.weight = self.weight.map(lambda part: part.to(fn(part[:0]).device))
        return self

    def extra_repr(self) -> str:
        rows, columns = self.weight.shape
        return f"{self.weight.kind}, {rows} x {columns}"


class WeightLinear(_Held):
    """x W^T + b with a Weight: (..., K) -> (..., O) in fp32."""

    def __init__(self, weight: AnyWeight, bias: nn.Parameter | None = None) -> None:
        super().__init__(weight)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


class _FrozenProduct(torch.autograd.Function):
    """x W^T + b with a dequantized weight, in autocast's precision if it is enabled, and its
    gradient by x. The backward pass dequantizes the weight again, some rows at a time; the weight
    has no gradient (Dettmers et al. 2023, arXiv:2305.14314).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: AnyWeight, bias: Tensor | None) -> Tensor:
        device = x.device.type
        narrow = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if narrow else torch.float32
        ctx.weight = weight
        ctx.kinds = x.dtype, dtype
        own_bias = None if bias is None else bias.detach().to(dtype)
        rows = x.detach().reshape(-1, x.shape[-1]).to(dtype)  # (T, K)
        parts = []
        with torch.autocast(device, enabled=False):
            for chosen in _rows_at_a_time(weight):
                wide = weight[chosen].dequantize().to(dtype)
                parts.append(F.linear(rows, wide, None if own_bias is None else own_bias[chosen]))
        out = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return out.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        weight: AnyWeight = ctx.weight
        kind, dtype = ctx.kinds
        given = gradients[0].reshape(-1, len(weight)).to(dtype)  # (T, O)
        out = torch.zeros(len(given), weight.shape[1], device=given.device)  # (T, K)
        with torch.autocast(given.device.type, enabled=False):
            for chosen in _rows_at_a_time(weight):
                out += given[:, chosen] @ weight[chosen].dequantize().to(dtype)
        return out.view(*gradients[0].shape[:-1], -1).to(kind), None, None


def _rows_at_a_time(weight: AnyWeight) -> Iterator[slice]:
    """Yield the row ranges of a matrix that are dequantized one after another in training."""
    step = max(1, _WIDENED_IN_TRAINING // weight.shape[1])
    for begin in range(0, len(weight), step):
        yield slice(begin, min(begin + step, len(weight)))


class FrozenWeightLinear(WeightLinear):
    """A frozen WeightLinear inside of a model in training: gradients pass through to its input, but
    it is not trained itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x, 0, len(self.weight))

    def rows(self, x: Tensor, begin: int, end: int) -> Tensor:
        """Return some rows of its output: (..., end - begin)."""
        whole = begin == 0 and end == len(self.weight)
        weight = self.weight if whole else self.weight[begin:end]
        bias = self.bias if whole or self.bias is None else self.bias[begin:end]
        if not torch.is_grad_enabled():
            return product(x, weight, bias)
        out: Tensor = _FrozenProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return out


class WeightEmbedding(_Held):
    """An embedding as a Weight: tokens (T,) -> their rows (T, E), in fp32."""

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens].dequantize()


def planned_kinds(model: nn.Module, kind: str, table: str | None = None) -> dict[str, WeightKind]:
    """Return the matrices that `with_weights` converts, by the names of their modules, with the
    kind of each.

    These are the body's linear maps and token embeddings, and those of a language-model head.
    table: the kind of embeddings and output matrix; None: `TABLE_KINDS`. Matrices whose rows are
    not whole groups of 32 become bf16.
    """
    wanted = _wanted_kinds(model, kind, table)
    parts = dict(_changed(model))
    return {name: "bf16" if _ungrouped(parts[name], own) else own for name, own in wanted.items()}


def _wanted_kinds(model: nn.Module, kind: str, table: str | None) -> dict[str, WeightKind]:
    """Return the kind of each matrix, as if all could be grouped."""
    own = check_weight_kind(kind)
    of_table = TABLE_KINDS[own] if table is None else check_weight_kind(table)
    return {name: of_table if _is_table(name) else own for name, _ in _changed(model)}


def _is_table(name: str) -> bool:
    return name.split(".")[-1] == "token" or name == "head.out"


def _changed(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield linear maps and token embeddings, of a body alone or with its language-model head."""
    for name, part in model.named_modules():
        last = name.split(".")[-1]
        head = name.startswith("head.") and name not in ("head.out", "head.dense")
        table = isinstance(part, nn.Embedding) and last == "token"
        if (isinstance(part, nn.Linear) or table) and last not in _KEPT and not head:
            yield name, part


def _routers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the routers of experts."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and name.split(".")[-1] in ("router", "shared_gate"):
            yield name, part


def with_weights(
    model: M, kind: str, table: str | None = None, given: Mapping[str, AnyWeight] | None = None
) -> M:
    """Return the model for inference with its matrices in another kind: a new tree of modules that
    shares every tensor that does not change (all of them with fp32).

    model: a LanguageModel, or the body of any model. Norms, biases, positions and routers stay as
    they are. table: as in `planned_kinds`. given: weights that are already converted, by module
    name. Raises ModelError if the model is already quantized.
    """
    check_weight_kind(kind)
    if is_quantized(model):
        raise ModelError(
            "the model is quantised already, and to quantise twice adds one error to the other",
            do="load the model that it was made from",
        )
    given = given or {}
    changed = dict(_changed(model))
    made: dict[str, nn.Module] = {}
    for name, wanted in planned_kinds(model, kind, table).items():
        part = changed[name]
        assert isinstance(part.weight, Tensor)
        weight = given[name] if name in given else _quantized(name, part.weight, wanted)
        linear = isinstance(part, nn.Linear)
        made[name] = WeightLinear(weight, part.bias) if linear else WeightEmbedding(weight)  # type: ignore[arg-type]
    for name, part in _routers(model):
        # unchanged, but multiplied like all others, so that results for a row do not depend on the
        # number of rows
        made[name] = WeightLinear(quantize(part.weight, "fp32"), part.bias)
    _tell_ungrouped(_wanted_kinds(model, kind, table), changed)
    return rebuilt(model, "", made).eval()  # type: ignore[return-value]


def for_generation(model: M, dtype: torch.dtype) -> M:
    """Return the model for generation: if its products are in fp32 on a CPU, with products whose
    results for a row do not depend on the number of rows, as the engine promises. dtype: of the
    products.
    """
    plain = device_of(model).type == "cpu" and dtype == torch.float32
    is_held = bool(held_weights(model))
    return with_weights(model, "fp32") if plain and not is_held else model


def _quantized(name: str, matrix: Tensor, kind: str) -> Weight:
    try:
        return quantize(matrix, kind)
    except ModelError as error:
        raise ModelError(f"{name}: {error.what}", do=error.do) from error


def _ungrouped(part: nn.Module, wanted: str) -> bool:
    assert isinstance(part.weight, Tensor)
    return wanted in ("int8", "int4") and not can_group(part.weight.shape[1])


def _tell_ungrouped(wanted: Mapping[str, str], parts: Mapping[str, nn.Module]) -> None:
    """Warn about matrices that could not be grouped."""
    wide = [name for name, kind in wanted.items() if _ungrouped(parts[name], kind)]
    if wide:
        more = f" and {len(wide) - 3} more" if len(wide) > 3 else ""
        warnings.warn(
            f"{len(wide)} of {len(wanted)} matrices have rows that are no multiple of {GROUP}"
            f" numbers, and are held in bf16: {', '.join(wide[:3])}{more}",
            LangueWarning,
            stacklevel=3,
        )


def rebuilt(module: nn.Module, name: str, made: Mapping[str, nn.Module]) -> nn.Module:
    """Return the tree with some modules replaced; the others are copies around the old tensors."""
    if name in made:
        return made[name]
    new = copy.copy(module)
    for kind in ("_modules", "_parameters", "_buffers"):
        setattr(new, kind, dict(getattr(module, kind)))
    for last, part in module._modules.items():
        if part is not None:
            new._modules[last] = rebuilt(part, f"{name}.{last}".lstrip("."), made)
    return new


def tensors_and_weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, AnyWeight]]:
    """Return what is saved of a model, by parameter names: its tensors, and its quantized matrices.
    Token embeddings and output matrices are always tensors, in fp32.
    """
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    stored: dict[str, AnyWeight] = {}
    for name, weight in held_weights(model).items():
        if weight.is_quantized and not _is_table(name):
            stored[f"{name}.weight"] = weight
        elif isinstance(weight, Weight) and not weight.is_quantized:
            tensors[f"{name}.weight"] = weight.data
        else:
            tensors[f"{name}.weight"] = weight.dequantize()
    return tensors, stored


def held_weights(model: nn.Module) -> dict[str, AnyWeight]:
    """Return the Weights of a model, by the names of their modules."""
    return {name: part.weight for name, part in model.named_modules() if isinstance(part, _Held)}


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model, which may consist of Weights only."""
    found = next(model.parameters(), None)
    if found is not None:
        return found.device
    return next(iter(held_weights(model).values())).device


def is_quantized(model: nn.Module) -> bool:
    """Return whether some of its matrices are quantized."""
    return any(weight.is_quantized for weight in held_weights(model).values())
