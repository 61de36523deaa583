"""Read the arrays of a Flax checkpoint (`flax_model.msgpack`), which may be malicious, by name.

This implements the part of MessagePack (github.com/msgpack/msgpack, spec.md) that
`flax.serialization` uses: nested maps, whose leaves are extension type 1 with (shape, dtype,
bytes).
"""

import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.formats.mapped import map_file, numbers

MOST_DEPTH = 64
MOST_DIMENSIONS = 16
# values of one byte each would take a hundred times the file size in memory
MOST_VALUES = 1_000_000
ARRAY = 1  # flax's extension type of an array
TYPES = {
    name: getattr(torch, name)
    for name in ("float32", "float16", "float64", "bfloat16", "int32", "int64")
}
_SIZES = {
    0xC4: "B",
    0xC5: ">H",
    0xC6: ">I",
    0xD9: "B",
    0xDA: ">H",
    0xDB: ">I",
    0xC7: "B",
    0xC8: ">H",
    0xC9: ">I",
}
_COUNTS = {0xDC: ">H", 0xDD: ">I", 0xDE: ">H", 0xDF: ">I"}
_NUMBERS = {
    0xCC: "B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: "b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_NUMBERS |= {0xCA: ">f", 0xCB: ">d"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


class _Array(NamedTuple):
    shape: list[int]
    dtype: torch.dtype
    raw: memoryview


def read(file: Path, weights_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return every array under its path, such as `params/bert/...`.

    weights_dtype: as in `numbers`, since most arrays in such a file are not aligned. Raises
    ModelError if the file violates its format.
    """
    flat: dict[str, Tensor] = {}

    def walk(branch: Any, path: str) -> None:
        if isinstance(branch, dict):
            for name, part in branch.items():
                walk(part, f"{path}/{name}" if path else str(name))
        elif isinstance(branch, _Array):
            flat[path] = numbers(branch.raw, 0, branch.dtype, branch.shape, weights_dtype)
        else:
            raise ValueError(f"{path!r} is no array")

    try:
        data = memoryview(map_file(file))
        whole, end = _value(data, 0, 0, iter(range(MOST_VALUES)))
        if end != len(data):
            raise ValueError(f"{len(data) - end:,} bytes follow its end")
        walk(whole, "")
    except (ValueError, IndexError, struct.error, OSError, UnicodeDecodeError, TypeError) as error:
        raise ModelError(f"not a whole Flax checkpoint: {error}", where=str(file)) from error
    return flat


def _value(data: memoryview, at: int, depth: int, left: Iterator[int]) -> tuple[Any, int]:
    """Return the value at `at`, and its end. left: an iterator with as many items as values are
    still allowed.
    """
    if depth > MOST_DEPTH or next(left, None) is None:
        raise ValueError("it is nested too deeply, or has too many values")
    kind = data[at]
    at += 1
    if kind < 0x80 or kind >= 0xE0:
        return (kind if kind < 0x80 else kind - 256), at
    if kind < 0xA0:
        return _many(data, at, kind & 0x0F, kind < 0x90, depth, left)
    if kind < 0xC0:
        return _bytes(data, at, kind & 0x1F, _text)
    if kind in _CONSTANTS:
        return _CONSTANTS[kind], at
    if kind in _NUMBERS:
        (number,) = struct.unpack_from(_NUMBERS[kind], data, at)
        return number, at + struct.calcsize(_NUMBERS[kind])
    if kind in _COUNTS:
        (count,) = struct.unpack_from(_COUNTS[kind], data, at)
        return _many(data, at + struct.calcsize(_COUNTS[kind]), count, kind >= 0xDE, depth, left)
    if 0xD4 <= kind <= 0xD8:
        return _extension(data, at, 1 << (kind - 0xD4), depth, left)
    if kind not in _SIZES:
        raise ValueError(f"a value of type {kind:#x}")
    (size,) = struct.unpack_from(_SIZES[kind], data, at)
    at += struct.calcsize(_SIZES[kind])
    if 0xC7 <= kind <= 0xC9:
        return _extension(data, at, size, depth, left)
    return _bytes(data, at, size, _text if kind >= 0xD9 else _as_they_lie)


def _text(part: memoryview) -> str:
    return str(part, "utf-8")


def _as_they_lie(part: memoryview) -> memoryview:
    return part


def _bytes(
    data: memoryview, at: int, size: int, make: Callable[[memoryview], Any]
) -> tuple[Any, int]:
    if at + size > len(data):
        raise ValueError("a value ends beyond the file")
    return make(data[at : at + size]), at + size


def _many(
    data: memoryview, at: int, count: int, named: bool, depth: int, left: Iterator[int]
) -> tuple[Any, int]:
    """Return a map or a list.

    Every element takes at least one byte, so a count cannot exceed the remaining file.
    """
    if count > len(data) - at:
        raise ValueError("a count is larger than the file")
    items: list[Any] = []
    for _ in range(2 * count if named else count):
        value, at = _value(data, at, depth + 1, left)
        items.append(value)
    if not named:
        return items, at
    if len(set(items[::2])) != count:
        raise ValueError("a map names something twice")
    return dict(zip(items[::2], items[1::2], strict=True)), at


def _extension(
    data: memoryview, at: int, size: int, depth: int, left: Iterator[int]
) -> tuple[Any, int]:
    kind = data[at]
    inside, end = _bytes(data, at + 1, size, _as_they_lie)
    if kind != ARRAY:
        raise ValueError(f"an extension of type {kind}")
    parts, _ = _value(inside, 0, depth + 1, left)
    if not isinstance(parts, list) or len(parts) != 3:
        raise ValueError("an array that is not (shape, dtype, bytes)")
    shape, dtype, raw = parts
    dtype = str(dtype, "ascii") if isinstance(dtype, memoryview) else dtype
    sizes = (
        isinstance(shape, list)
        and len(shape) <= MOST_DIMENSIONS
        and all(type(n) is int and n >= 0 for n in shape)
    )
    if dtype not in TYPES or not sizes or not isinstance(raw, memoryview):
        raise ValueError("an array without a shape, or without a type that is known")
    if math.prod(shape) * TYPES[dtype].itemsize != len(raw):
        raise ValueError(f"an array of {len(raw):,} bytes for shape {shape}")
    return _Array(shape, TYPES[dtype], raw), end
