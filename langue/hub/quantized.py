"""Read and write quantised matrices in the layout of `compressed-tensors`, which vLLM and
`transformers` read.

"pack-quantized": `X.weight_packed` (O, K bits / 32) int32 holds the integers of a row with an
offset that makes them non-negative, the first in the lowest bits; `X.weight_scale` (O, groups);
`X.weight_shape` is [O, K]. "int-quantized": `X.weight` (O, K) int8 and its scale. Scales of larger
groups, or of whole rows, are repeated for every 32 numbers, which changes no value.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.hub.family import Family
from langue.hub.weights import MXFP4
from langue.model.weight_kinds import GROUP, AnyWeight, StackedWeight, Weight, take_rows

METHOD = "compressed-tensors"
FORMATS = ("pack-quantized", "int-quantized")
BITS = {"int8": 8, "int4": 4}
_PACKED = ".weight_packed"
_SCALE = ".weight_scale"
_SHAPE = ".weight_shape"
# Suffixes of tensors of other methods, some of which config.json does not mention.
_OTHERS = {
    ".qweight": "GPTQ or AWQ",
    ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes",
    ".weight_zero_point": "compressed-tensors with zero points",
    ".weight_g_idx": "compressed-tensors with reordered groups",
}
_REMEDY = (
    "take the model that it was made from: langue.load(MODEL, weights=...), or langue compress"
    " quantize MODEL"
)


def check_quantization(published: Mapping[str, Any]) -> None:
    """Raise ModelError if config.json specifies an unsupported quantisation."""
    said = published.get("quantization_config")
    if said is None:
        return
    if not isinstance(said, dict):
        raise ModelError("config: quantization_config is not an object")
    method = said.get("quant_method", METHOD if "config_groups" in said else None)
    if method is None and {"load_in_8bit", "load_in_4bit"} & said.keys():
        method = "bitsandbytes"  # its older configs do not name the method
    if method == MXFP4:  # its tensors contain everything that is needed
        return
    if method != METHOD:
        raise ModelError(
            f"config: quantization_config is of the method {method!r}, which is not read here",
            do=_REMEDY,
        )
    groups = said.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(each, dict) for each in groups.values()):
        raise ModelError("config: quantization_config has no config_groups")
    for name, each in groups.items():
        form = each.get("format") or said.get("format")
        weights = each.get("weights")
        asked = weights if isinstance(weights, dict) else {}
        is_read = (
            form in FORMATS
            and asked.get("type", "int") == "int"
            and asked.get("num_bits") in BITS.values()
            and asked.get("symmetric", True) is True
            and asked.get("strategy") in ("group", "channel", "tensor")
            and asked.get("actorder") is None
            and each.get("input_activations") is None
        )
        if not is_read:
            what = {key: asked.get(key) for key in ("type", "num_bits", "symmetric", "strategy")}
            more = " and activations" if each.get("input_activations") else ""
            raise ModelError(
                f"config: quantization_config, {name}: weights of {form} {what}{more} are not read"
                " here (known: symmetric int weights of 4 or 8 bits)",
                do=_REMEDY,
            )


def refuse_others(names: Iterable[str]) -> None:
    """Raise ModelError if tensors belong to an unsupported method."""
    for name in names:
        for ending, method in _OTHERS.items():
            if name.endswith(ending):
                raise ModelError(
                    f"{name} is of weights quantised by {method}, which are not read here",
                    do=_REMEDY,
                )


def unpacked(theirs: dict[str, Tensor]) -> dict[str, Tensor | Weight]:
    """Return a folder's tensors, with the quantised ones as Weights under the matrices' names."""
    refuse_others(theirs)
    found: dict[str, Tensor | Weight] = {}
    for name, tensor in theirs.items():
        stem, _, _ = name.rpartition(".")
        if name.endswith(_PACKED):
            found[f"{stem}.weight"] = _unpack(stem, theirs)
        elif name.endswith(".weight") and tensor.dtype == torch.int8:
            found[name] = _plain(stem, tensor, theirs)
        # an empty tensor, which `pack` writes so that other libraries refuse a matrix that they
        # cannot read
        elif not name.endswith((_SCALE, _SHAPE)) and not (
            f"{stem}{_PACKED}" in theirs and tensor.numel() == 0
        ):
            found[name] = tensor
    return found


def _unpack(stem: str, theirs: Mapping[str, Tensor]) -> Weight:
    packed = theirs[stem + _PACKED]
    shape = theirs.get(stem + _SHAPE)
    if shape is None or shape.numel() != 2 or packed.ndim != 2 or packed.dtype != torch.int32:
        raise ModelError(f"{stem}: weight_packed or weight_shape is not as the format has it")
    rows, columns = (int(size) for size in shape)
    bits = next((b for b in BITS.values() if packed.shape == (rows, columns * b // 32)), None)
    if bits is None or columns % GROUP or rows < 1 or columns < 1:
        raise ModelError(
            f"{stem}: weight_packed {[*packed.shape]} is not of 4 or 8 bits for {rows} x {columns}"
        )
    raw = packed.contiguous().view(torch.uint8)  # (O, K bits / 8)
    scales = _scales(stem, theirs, rows, columns)
    if bits == 8:
        return Weight("int8", (raw ^ 128).view(torch.int8), scales)
    # each byte holds two adjacent numbers
    numbers = torch.stack([raw & 15, raw >> 4], dim=-1)
    numbers = numbers.view(rows, -1, 2, 16)  # (O, G, halves, 16)
    data = numbers[:, :, 0] | numbers[:, :, 1] << 4
    return Weight("int4", data.reshape(rows, -1), scales)


def _plain(stem: str, matrix: Tensor, theirs: Mapping[str, Tensor]) -> Weight:
    if matrix.ndim != 2 or matrix.shape[1] % GROUP:
        raise ModelError(f"{stem}: int8 weights of shape {[*matrix.shape]} are not read")
    return Weight("int8", matrix, _scales(stem, theirs, *matrix.shape))


def _scales(stem: str, theirs: Mapping[str, Tensor], rows: int, columns: int) -> Tensor:
    """Return one scale for each group of 32 numbers, (O, K / 32)."""
    given = theirs.get(stem + _SCALE)
    if given is None or not given.is_floating_point():
        raise ModelError(f"{stem}: weight_scale is missing")
    given = given.float()
    if given.numel() == 1:
        given = given.reshape(1, 1).expand(rows, 1)
    groups = columns // GROUP
    if given.ndim != 2 or len(given) != rows or not given.shape[1] or groups % given.shape[1]:
        raise ModelError(
            f"{stem}: weight_scale {[*given.shape]} is of groups that are no multiple of {GROUP}"
        )
    if not bool(given.isfinite().all()):
        raise ModelError(f"{stem}: weight_scale has a number that is not finite")
    whole = given.repeat_interleave(groups // given.shape[1], dim=1)
    narrow = whole.half()
    return narrow if torch.equal(narrow.float(), whole) else whole


def packed(stem: str, weight: Weight) -> dict[str, Tensor]:
    """Return the tensors of a matrix in the "pack-quantized" format."""
    assert weight.scales is not None
    rows, columns = weight.shape
    if weight.kind == "int8":
        raw = weight.data.view(torch.uint8) ^ 128
    else:
        grouped = weight.data.view(rows, -1, 16)
        numbers = torch.cat([grouped & 15, grouped >> 4], dim=-1)  # (O, G, 32)
        pairs = numbers.view(rows, -1, 2)
        raw = pairs[..., 0] | pairs[..., 1] << 4
    return {
        stem + _PACKED: raw.contiguous().view(torch.int32),
        stem + _SCALE: weight.scales.contiguous(),
        stem + _SHAPE: torch.tensor([rows, columns], dtype=torch.int64),
    }


def quantization_config(kind: str, ignore: Iterable[str]) -> dict[str, Any]:
    """Return the config.json entry for weights of a kind; ignore: the modules that are not
    quantised.
    """
    weights = {
        "num_bits": BITS[kind],
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP,
        "dynamic": False,
    }
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
    }
    return {
        "quant_method": METHOD,
        "format": FORMATS[0],
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": sorted(ignore),
    }


class StoredRows:
    """Stands in for quantised Weights by the numbers of their rows.

    The rules between weight names only move rows and never change their contents. So a Weight is
    replaced by a column (O, 1) of row numbers, and the column that the rules return says which rows
    the renamed Weight consists of.
    """

    def __init__(self) -> None:
        self.weights: list[Weight] = []
        self.count = 0

    def numbered(self, weight: AnyWeight) -> Tensor:
        """Return a column (O, 1) of row numbers in float64, a dtype that the rules accept and no
        file uses.
        """
        self.weights += weight.stack if isinstance(weight, StackedWeight) else [weight]
        begin = self.count
        self.count += len(weight)
        return torch.arange(begin, self.count, dtype=torch.float64)[:, None]

    @staticmethod
    def is_numbered(tensor: Tensor) -> bool:
        return tensor.dtype == torch.float64 and tensor.ndim == 2 and 1 in tensor.shape

    def taken(self, numbers: Tensor) -> AnyWeight:
        """Return the Weight that consists of the rows with these numbers."""
        return take_rows(self.weights, numbers.reshape(-1).long())


def pack(theirs: dict[str, Tensor], rows: StoredRows, family: Family) -> dict[str, Any]:
    """Replace row numbers by the tensors of a quantised layout, and return the config.json entries
    for it.

    Raises ModelError if the matrices are of different kinds.
    """
    kinds: set[str] = set()
    plain = {family.output.removesuffix(".weight")} - {""}
    for name in list(theirs):
        stem = name.removesuffix(".weight")
        if rows.is_numbered(theirs[name]):
            weight = rows.taken(theirs.pop(name))
            if not isinstance(weight, Weight) or weight.group != GROUP or weight.mins is not None:
                raise ModelError(
                    f"{name} is of {weight.kind} in a form that a folder of ours cannot hold",
                    do="load the model with weights=fp32, or quantise the one it was made from",
                )
            kinds.add(weight.kind)
            theirs |= packed(stem, weight)
            # No class of `transformers` reads a quantised (in, out) matrix; it would create a
            # random one. The wrong size of this empty tensor prevents that.
            if family.is_turned(name):
                theirs[name] = torch.zeros(0)
        elif theirs[name].ndim == 3 and theirs[name].dtype == torch.float64:  # fused row numbers
            raise ModelError(
                f"{name} is of all experts of a layer, which no folder of {METHOD} holds",
                do="save the model with weights=bf16, or quantise it where it is used:"
                " langue.load(MODEL, weights=...)",
            )
        elif stem != name and theirs[name].ndim == 2:
            plain.add(stem)
    if len(kinds) > 1:
        raise ModelError(
            f"the matrices are of {' and '.join(sorted(kinds))}, and a folder holds one kind",
            do="load the model with weights=fp32, or quantise the one it was made from",
        )
    ignore = plain - {name.removesuffix(".weight_packed") for name in theirs}
    return {"quantization_config": quantization_config(kinds.pop(), ignore)}
