"""Read GGUF files (version 2 and 3, the format of llama.cpp), which may be malicious, and write
them.

A file consists of "GGUF", a version, the numbers of tensors and of values; the values, each as a
key, a type and the value; the name, sizes (innermost first), type and offset of each tensor; and
the tensors' data, aligned. Every length is checked against the file size before it is used, and a
tensor is only read when it is requested.

Q8_0 stores 32 numbers as integers from -127 to 127 and one float16 scale; Q4_0 as integers of four
bits minus 8. Q4_K and Q6_K store 256 numbers in groups of 32 and 16, whose scales (and, in Q4_K,
minima, which are subtracted) are integers themselves, with a common float16 scale.
"""

import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.errors import ModelError
from langue.files import atomic_file
from langue.formats import mapped

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
BLOCK = 32
MOST_HEADER = 128 * 1024**2  # bytes; the largest published vocabularies take some 10 million
# published files have tens of values and thousands of tensors
MOST_VALUES = 2**16
MOST_TENSORS = 2**17
MOST_TEXTS = 2**22  # in lists; the largest published vocabularies have about half a million merges
MOST_NAME = 65_535  # bytes of a key or a tensor's name
_Q8_BYTES = 2 + BLOCK
TINY = np.finfo(np.float32).tiny  # a smaller scale has no finite inverse, and is 0 as a float16
_STRING = 8
_ARRAY = 9
_BOOL = 7
_LENGTH = struct.Struct("<Q").unpack_from
_NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
# Supported types -> (numbers per block, bytes per block). `_OTHERS` has the names of unsupported
# types.
_STORED = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (BLOCK, _Q8_BYTES)}
_STORED |= {"Q4_0": (BLOCK, 18), "Q4_K": (256, 144), "Q6_K": (256, 210)}
BLOCK_KINDS = ("Q8_0", "Q4_0", "Q4_K", "Q6_K")
_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0", 12: "Q4_K", 14: "Q6_K", 30: "BF16"}
_OTHERS = {
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    13: "Q5_K",
}
_OTHERS |= {
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
}
_OTHERS |= {
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
}
_OTHERS |= {34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"}
WRITTEN = ("F32", "F16", "BF16", "Q8_0")
CODES = {name: code for code, name in _TYPES.items() if name in WRITTEN}


@dataclass(frozen=True)
class Stored:
    """The type, shape and position of a tensor in a file."""

    kind: str
    shape: tuple[int, ...]
    offset: int  # from the beginning of the file

    @property
    def size(self) -> int:
        """Return the size in bytes, or 0 for an unsupported type."""
        numbers, taken = _STORED.get(self.kind, (1, 0))
        return count(self.shape) // numbers * taken


@dataclass(frozen=True)
class Gguf:
    """The header of a file."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Stored]

    @cached_property
    def _data(self) -> mmap.mmap:
        return mapped.map_file(self.path)

    def tensor(self, name: str, weights_dtype: torch.dtype | None = None) -> Tensor:
        """Return a tensor.

        F32, F16 and BF16 are returned as mapped pages of the file. Other types are dequantised:
        matrices to `weights_dtype` if it is given, everything else to fp32.
        """
        stored = self.tensors[name]
        if stored.kind not in _STORED:
            raise ModelError(
                f"{name} is stored as {stored.kind}, which is not read",
                where=str(self.path),
                do=f"give a file of {', '.join(_STORED)}",
            )
        if stored.kind in BLOCK_KINDS:
            decoded = map(partial(_dequantised, stored.kind), self._pieces(stored))
            return mapped.fill(stored.shape, torch.float32, weights_dtype, decoded)
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[stored.kind]
        return mapped.numbers(self._data, stored.offset, dtype, stored.shape, weights_dtype)

    def blocks(self, name: str) -> "Blocks":
        """Return a matrix (O, K) of one of `BLOCK_KINDS` as integers, scales and minima."""
        stored = self.tensors[name]
        parts = [unpack(stored.kind, piece) for piece in self._pieces(stored)]
        rows = stored.shape[0]
        scales = torch.cat([part.scales for part in parts]).view(rows, -1)  # (O, K / group)
        mins = [part.mins for part in parts if part.mins is not None]
        numbers = torch.cat([part.numbers for part in parts]).view(rows, -1)  # (O, K or K / 2)
        return Blocks(numbers, scales, torch.cat(mins).view(rows, -1) if mins else None)

    def _pieces(self, stored: Stored) -> Iterator[Tensor]:
        raw = torch.frombuffer(
            self._data, dtype=torch.uint8, count=stored.size, offset=stored.offset
        )
        return mapped.in_pieces(raw, _STORED[stored.kind][1])


@dataclass(frozen=True)
class Blocks:
    """Numbers in groups with a common scale.

    numbers: int8 (..., group); or uint8 (..., 16), in which byte j holds element j in its low bits
    and element j + 16 in its high bits, minus 8 if there are no minima.
    """

    numbers: Tensor
    scales: Tensor
    mins: Tensor | None = None

    def dequantised(self) -> Tensor:
        """Return all numbers in order, in fp32.

        This uses NumPy: torch aligns its temporary memory, and when lasting weights are allocated
        in between, fragmentation of the heap took up to half of the model's size.
        """
        found = self.numbers.numpy()
        scales = self.scales.float().numpy()[..., None]
        is_packed = found.dtype == np.uint8
        if is_packed:
            found = np.concatenate([found & 15, found >> 4], axis=-1)
        values = found.astype(np.float32)
        if is_packed and self.mins is None:
            values -= 8
        values *= scales
        if self.mins is not None:
            values -= self.mins.numpy()[..., None]
        return torch.from_numpy(values.reshape(-1))


def _dequantised(kind: str, raw: Tensor) -> Tensor:
    return unpack(kind, raw).dequantised()


def unpack(kind: str, raw: Tensor) -> Blocks:
    """Convert whole blocks of bytes to groups, in order.

    The scales of Q4_K and Q6_K are products of two numbers, and are exact in fp32.
    """
    blocks = raw.view(-1, _STORED[kind][1])
    if kind in ("Q8_0", "Q4_0"):
        scales = blocks[:, :2].clone().view(torch.float16)[:, 0]
        numbers = blocks[:, 2:]  # not copied, since all results are copies anyway
        return Blocks(numbers.view(torch.int8) if kind == "Q8_0" else numbers, scales)
    return _unpack_q4_k(blocks) if kind == "Q4_K" else _unpack_q6_k(blocks)


def _unpack_q4_k(blocks: Tensor) -> Blocks:
    """Unpack blocks of 256 numbers.

    A block has two float16, the common factors of scales and minima; eight scales and eight minima
    of 6 bits in 12 bytes; and bytes with numbers of two groups of 32, the first group in the low
    bits.
    """
    of_all = blocks[:, :4].clone().view(torch.float16).float()  # (B, 2)
    first, second, third = blocks[:, 4:16].view(-1, 3, 4).unbind(1)  # (B, 4) each
    scales = torch.cat([first & 63, third & 15 | first >> 6 << 4], dim=1)  # (B, 8)
    mins = torch.cat([second & 63, third >> 4 | second >> 6 << 4], dim=1)
    pairs = blocks[:, 16:].view(-1, 4, 32)
    groups = torch.stack([pairs & 15, pairs >> 4], dim=2).view(-1, 32)  # (8 B, 32)
    numbers = groups[:, :16] | groups[:, 16:] << 4
    return Blocks(
        numbers,
        (of_all[:, :1] * scales).view(-1),
        (of_all[:, 1:] * mins).view(-1),
    )


def _unpack_q6_k(blocks: Tensor) -> Blocks:
    """Unpack blocks of 256 numbers.

    A block has the low four bits, for each half of 128 numbers as two times 32 bytes, each with two
    numbers that are 64 apart; the upper two bits, one byte for four numbers that are 32 apart; 16
    scales of 8 bits; and one float16.
    """
    low = blocks[:, :128].view(-1, 2, 2, 32)  # (B, halves, 2, 32)
    four = torch.cat([low & 15, low >> 4], dim=2)  # (B, halves, 4, 32)
    high = blocks[:, 128:192].view(-1, 2, 1, 32)
    two = torch.cat([high >> shift & 3 for shift in (0, 2, 4, 6)], dim=2)
    numbers = (four | two << 4).view(torch.int8) - 32
    scales = blocks[:, 192:208].clone().view(torch.int8).float()  # (B, 16)
    of_all = blocks[:, 208:].clone().view(torch.float16).float()  # (B, 1)
    return Blocks(numbers.view(-1, 16), (of_all * scales).view(-1))


def count(shape: Iterable[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


class _Reader:
    """Reads sequentially from a file, never beyond its end."""

    def __init__(self, data: mmap.mmap, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0
        self.texts = MOST_TEXTS  # number of texts in lists that are still allowed

    def fail(self, what: str) -> ModelError:
        return ModelError(
            f"not a whole GGUF file: {what}", where=self.where, do="download or write it again"
        )

    def take(self, size: int) -> bytes:
        if size > min(len(self.data), MOST_HEADER) - self.at:
            raise self.fail(
                f"its header claims {size:,} bytes at {self.at:,} and does not have them"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> int:
        (value,) = struct.unpack("<" + form, self.take(struct.calcsize(form)))
        return int(value)

    def counted(self, least: int, what: str, most: int = MOST_HEADER) -> int:
        """Read a number of items, each of which takes at least `least` bytes."""
        number = self.number("Q")
        if number > most or number * least > len(self.data) - self.at:
            raise self.fail(f"it claims {number:,} {what}")
        return number

    def string(self, most: int | None = None) -> str:
        size = self.number("Q")
        if most is not None and size > most:
            raise self.fail(f"a name of {size:,} bytes at {self.at:,}")
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"a text at {self.at - size:,} is not UTF-8") from error

    def list_of_texts(self) -> list[str]:
        """Read a list of texts without a call to `string` for each, since there may be hundreds of
        thousands.
        """
        number = self.counted(8, "texts", self.texts)
        self.texts -= number
        data = self.data
        at = self.at
        end = min(len(self.data), MOST_HEADER)
        raw: list[bytes] = []
        for _ in range(number):
            size = _LENGTH(data, at)[0] if at + 8 <= end else end
            if size > end - at - 8:
                raise self.fail(
                    f"its header claims a text of {size:,} bytes at {at:,} and does not have them"
                )
            raw.append(data[at + 8 : at + 8 + size])
            at += 8 + size
        self.at = at
        try:
            return [text.decode("utf-8") for text in raw]
        except UnicodeDecodeError as error:
            raise self.fail(f"a text before {at:,} is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return np.frombuffer(self.take(np.dtype(_NUMBERS[kind]).itemsize), _NUMBERS[kind])[
                0
            ].item()
        if kind == _BOOL:
            return self.take(1) != b"\0"
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise self.fail(f"a value of type {kind} at {self.at:,}")
        inner = self.number("I")
        if inner == _STRING:
            return self.list_of_texts()
        if inner != _BOOL and inner not in _NUMBERS:
            raise self.fail(f"a list of values of type {inner} at {self.at:,}")
        dtype = np.dtype("?" if inner == _BOOL else _NUMBERS[inner])
        return np.frombuffer(
            self.take(self.counted(dtype.itemsize, "numbers") * dtype.itemsize), dtype
        )


def read(path: Path) -> Gguf:
    """Return the header of a file; tensor data is not read.

    Raises ModelError if the file violates a rule of the format.
    """
    with path.open("rb") as handle:
        if handle.read(4) != MAGIC:
            raise ModelError("not a GGUF file", where=str(path))
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Reader(data, str(path)), path)


def _header(reader: _Reader, path: Path) -> Gguf:
    reader.take(4)
    version = reader.number("I")
    if version not in (2, VERSION):
        raise ModelError(
            f"GGUF version {version} is not read",
            where=str(path),
            do="known: 2 and 3, little-endian",
        )
    tensors = reader.counted(24, "tensors", MOST_TENSORS)
    values = reader.counted(13, "values", MOST_VALUES)
    metadata: dict[str, Any] = {}
    for _ in range(values):
        key = reader.string(MOST_NAME)
        if key in metadata:
            raise reader.fail(f"it gives {key!r} twice")
        metadata[key] = reader.value(reader.number("I"))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 2**16 or alignment & (alignment - 1):
        raise reader.fail(f"general.alignment = {alignment!r}")
    found: dict[str, Stored] = {}
    for _ in range(tensors):
        name = reader.string(MOST_NAME)
        if name in found:
            raise reader.fail(f"it names the tensor {name!r} twice")
        found[name] = _stored(reader, name, alignment)
    begin = -(-reader.at // alignment) * alignment
    placed = {
        name: Stored(each.kind, each.shape, begin + each.offset) for name, each in found.items()
    }
    _check_places(reader, placed)
    return Gguf(path, metadata, placed)


def _stored(reader: _Reader, name: str, alignment: int) -> Stored:
    sizes = reader.number("I")
    if not 1 <= sizes <= 4:
        raise reader.fail(f"{name!r} has {sizes:,} dimensions")
    inner_first = struct.unpack(f"<{sizes}Q", reader.take(8 * sizes))
    code = reader.number("I")
    offset = reader.number("Q")
    kind = _TYPES.get(code) or _OTHERS.get(code)
    if kind is None:
        raise reader.fail(f"{name!r} is of type {code}, which is not known")
    if 0 in inner_first or inner_first[0] % _STORED.get(kind, (1, 0))[0]:
        raise reader.fail(f"{name!r} has sizes {list(inner_first)} of {kind}")
    if offset % alignment:
        raise reader.fail(f"{name!r} lies at {offset:,}, which is not aligned")
    return Stored(kind, inner_first[::-1], offset)


def _check_places(reader: _Reader, tensors: Mapping[str, Stored]) -> None:
    """Raise ModelError unless every tensor lies within the file and none overlap."""
    for name, each in tensors.items():
        # The size of unsupported types is unknown; assume the minimum of one bit per number.
        if each.offset + (each.size or count(each.shape) // 8) > len(reader.data):
            raise reader.fail(f"{name!r} ends beyond the file")
    spans = sorted(
        (each.offset, each.offset + max(each.size, 1), name) for name, each in tensors.items()
    )
    for (_, end, first), (begin, _, second) in pairwise(spans):
        if begin < end:
            raise reader.fail(f"{first!r} and {second!r} overlap")


@dataclass(frozen=True)
class Given:
    """A tensor to write. `make` returns its numbers on demand, so that only one tensor is in
    memory.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def write(path: Path, metadata: Mapping[str, Any], tensors: Iterable[Given]) -> None:
    """Write a file.

    Values may be bool, int (uint32), float (float32), str, lists of str, and arrays of numbers.
    """
    given = list(tensors)
    with atomic_file(path) as temporary, temporary.open("wb") as handle:
        handle.write(MAGIC + struct.pack("<IQQ", VERSION, len(given), len(metadata)))
        for key, value in metadata.items():
            handle.write(_text(key) + _packed(value))
        offset = 0
        for each in given:
            sizes = each.shape[::-1]
            handle.write(_text(each.name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes))
            handle.write(struct.pack("<IQ", CODES[each.kind], offset))
            offset += _padded(Stored(each.kind, each.shape, 0).size)
        handle.write(b"\0" * (_padded(handle.tell()) - handle.tell()))
        for each in given:
            raw = _encoded(each)
            handle.write(raw)
            handle.write(b"\0" * (_padded(len(raw)) - len(raw)))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _packed(value: Any) -> bytes:
    """Return a value preceded by its type."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, np.ndarray):
        code = next(code for code, name in _NUMBERS.items() if np.dtype(name) == value.dtype)
        return struct.pack("<IIQ", _ARRAY, code, len(value)) + value.tobytes()
    return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(
        _text(text) for text in value
    )


def _encoded(given: Given) -> bytes:
    tensor = given.make().detach().cpu()
    if tuple(tensor.shape) != given.shape:
        raise ValueError(f"{given.name}: {tuple(tensor.shape)} is not {given.shape}")
    numbers: NDArray[np.float32] = tensor.float().contiguous().numpy()
    if given.kind == "F32":
        return numbers.astype("<f4", copy=False).tobytes()
    most = float(np.abs(numbers).max())
    if not most <= 65_504 * (127 if given.kind == "Q8_0" else 1):  # also true for NaN
        raise ModelError(
            f"{given.name} has a value that {given.kind} cannot hold ({most:g})",
            do="use --dtype f32",
        )
    return numbers.astype("<f2").tobytes() if given.kind == "F16" else quantise(numbers)


def quantise(numbers: NDArray[np.float32]) -> bytes:
    """Return numbers as Q8_0: in each block of 32, the largest magnitude becomes 127, and the
    others are rounded to integers on the same scale, halves away from zero.
    """
    blocks = numbers.reshape(-1, BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        scaled = blocks * np.where(scale < TINY, np.float32(0), np.float32(1) / scale)
    whole = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).clip(-127, 127)
    packed = np.empty((len(blocks), _Q8_BYTES), np.uint8)
    packed[:, :2] = scale.astype("<f2").view(np.uint8)
    packed[:, 2:] = whole.astype(np.int8).view(np.uint8)
    return packed.tobytes()
