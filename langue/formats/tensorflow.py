"""Read the tensors of a TensorFlow checkpoint (`x.index`, `x.data-00000-of-00001`), which may be
malicious, without TensorFlow.

The index is a LevelDB table: blocks of entries with shared key prefixes, a block with the positions
of these, and a footer with a magic number. An entry is a protocol buffer (`BundleEntryProto` in
tensor_bundle.proto): type, shape, shard, offset, size. The CRC-32C of every block is checked, and
the position of every tensor against the size of its file. The checksums of the tensors themselves
are not checked, since that would take minutes in Python, and disk and network have checks of their
own.
"""

import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.files import unreadable
from langue.formats.mapped import map_file, numbers

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
# names share prefixes, so a small file could contain long ones
MOST_ENTRIES = 100_000
MOST_NAME = 1024
MOST_INDEX = 2**24  # bytes; an entry takes about a hundred
MOST_DIMENSIONS = 16
# DataType of TensorFlow -> ours
TYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    9: torch.int64,
    14: torch.bfloat16,
    19: torch.float16,
}


def find(folder: Path) -> Path | None:
    """Return the index of the only checkpoint in a folder, or of the one with the highest
    number.
    """
    found = (
        sorted(folder.glob("*.index"), key=lambda path: (len(path.name), path.name))
        if folder.is_dir()
        else []
    )
    return found[-1] if found else None


def read(index: Path, weights_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return all numeric tensors as mapped pages of the file.

    weights_dtype: as in `numbers`. Raises ModelError if the file violates its format.
    """
    try:
        return _read(index, weights_dtype)
    except PermissionError as error:
        raise unreadable(error, index, ModelError) from None
    except (ValueError, IndexError, struct.error, OSError, UnicodeDecodeError) as error:
        raise ModelError(f"not a whole TensorFlow checkpoint: {error}", where=str(index)) from error


def _read(index: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]:
    if index.stat().st_size > MOST_INDEX:
        raise ValueError(f"its index has {index.stat().st_size:,} bytes")
    data = index.read_bytes()
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ValueError("its index has no table's footer")
    _, at = _handle(data, len(data) - FOOTER)
    place, _ = _handle(data, at)
    entries: dict[bytes, bytes] = {}
    end = 0
    for _, value in _entries(_block(data, place)):
        begin, size = _handle(value, 0)[0]
        if begin < end:  # otherwise reading one block repeatedly could take hours
            raise ValueError("the blocks of its index overlap")
        end = begin + size + 5
        for key, entry in _entries(_block(data, (begin, size))):
            if key in entries or len(entries) >= MOST_ENTRIES:
                raise ValueError(f"{key!r} stands twice, or there are too many names")
            entries[key] = entry
    header = dict(_fields(entries.pop(b"", b"")))
    shards = int(header.get(1, 0))
    if header.get(2, 0) != 0:
        raise ValueError("it is of a big-endian machine")
    files = {
        n: index.with_suffix(f".data-{n:05d}-of-{shards:05d}")
        for n in range(min(shards, len(entries) + 1))
    }
    maps = {
        n: map_file(path) for n, path in files.items() if path.is_file() and path.stat().st_size
    }
    tensors: dict[str, Tensor] = {}
    left = sum(map(len, maps.values()))
    for key, entry in entries.items():
        if _numeric(entry):
            tensors[key.decode("utf-8")] = tensor = _tensor(key, entry, maps, weights_dtype)
            left -= tensor.nbytes
        if left < 0:  # otherwise a small file could fill the memory
            raise ValueError("its tensors overlap")
    return tensors


def _numeric(entry: bytes) -> bool:
    """Return whether an entry is numeric; strings, such as the object graph in newer checkpoints,
    are not weights.
    """
    return dict(_fields(entry)).get(1) in TYPES


def _tensor(
    key: bytes, entry: bytes, maps: Mapping[int, mmap.mmap], weights_dtype: torch.dtype | None
) -> Tensor:
    said: dict[int, Any] = {}
    for number, value in _fields(entry):
        if number == 7:
            raise ValueError(f"{key!r} is stored in slices")
        said[number] = value
    dtype = TYPES[said[1]]
    shape = _shape(said.get(2, b""))
    size, offset, shard = (int(said.get(number, 0)) for number in (5, 4, 3))
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{key!r} has {size:,} bytes for shape {list(shape)}")
    if shard not in maps or offset + size > len(maps[shard]):
        raise ValueError(f"{key!r} lies outside of the data")
    return numbers(maps[shard], offset, dtype, shape, weights_dtype)


def _shape(proto: bytes) -> tuple[int, ...]:
    dims = [int(dict(_fields(value)).get(1, 0)) for number, value in _fields(proto) if number == 2]
    if len(dims) > MOST_DIMENSIONS:
        raise ValueError(f"a tensor has {len(dims)} dimensions")
    return tuple(dims)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, encoded with seven bits per byte, and its end."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than 64 bits")


def _fields(proto: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of the fields of a protocol buffer."""
    at = 0
    while at < len(proto):
        tag, at = _varint(proto, at)
        kind = tag & 7
        value: Any = None
        if kind == 0:
            value, at = _varint(proto, at)
        elif kind == 2:
            length, at = _varint(proto, at)
            value = proto[at : at + length]
            at = at + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at > len(proto):
            raise ValueError("a field ends beyond its message")
        yield tag >> 3, value


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(data: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    if offset + size + 5 > len(data):
        raise ValueError("a block lies outside of the index")
    kind, crc = struct.unpack_from("<BI", data, offset + size)
    if kind:
        raise ValueError("its index is compressed, which TensorFlow's own never is")
    if _masked(_crc32c(data[offset : offset + size + 1])) != crc:
        raise ValueError("a block's checksum is wrong")
    return data[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; each key is stored as the length of the prefix that it
    shares with the previous one, and the rest.
    """
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (restarts + 1)
    at = 0
    key = b""
    while at < end:
        shared, at = _varint(block, at)
        added, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + added + length > end or shared + added > MOST_NAME:
            raise ValueError("an entry ends beyond its block, or has a name that no tensor has")
        key = key[:shared] + block[at : at + added]
        yield key, block[at + added : at + added + length]
        at += added + length


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """Return a checksum as LevelDB stores it, masked so that checksums of data that contains
    checksums stay useful.
    """
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
