"""Read the numeric arrays of an HDF5 file, which may be malicious, by their paths.

This implements the part of the HDF Group's "HDF5 File Format Specification" that h5py and Keras
use: superblocks 0 to 3, object headers 1 and 2, groups as symbol tables or as link messages,
contiguous arrays. The file is memory-mapped; every address and size is checked before it is used,
no object is visited twice, and there are at most OBJECTS objects.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.formats.mapped import map_file, numbers

MAGIC = b"\x89HDF\r\n\x1a\n"
OBJECTS = 100_000
MOST_NAME = 1024
# types of messages
DATASPACE = 1
LINKS = 2
DATATYPE = 3
LINK = 6
OUTSIDE = 7
LAYOUT = 8
FILTERS = 11
CONTINUED = 16
TABLE = 17
# Little-endian types: integers by (bytes, signed), floats by (bytes, exponent bits).
_INTS = {
    **{
        (1, True): torch.int8,
        (2, True): torch.int16,
        (4, True): torch.int32,
        (8, True): torch.int64,
    },
    **{
        (1, False): torch.uint8,
        (2, False): torch.uint16,
        (4, False): torch.uint32,
        (8, False): torch.uint64,
    },
}
_FLOATS = {
    (2, 5): torch.float16,
    (2, 8): torch.bfloat16,
    (4, 8): torch.float32,
    (8, 11): torch.float64,
}

Message = tuple[int, int, int]  # type, begin of its data, length of its data


def read(file: Path, weights_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return every array under its path, such as `layers/dense/kernel`, as mapped pages of the
    file.

    weights_dtype: as in `numbers`. Raises ModelError if the file is damaged or has unsupported
    content: chunked or compressed arrays, and types that are not numeric.
    """
    try:
        return dict(_File(map_file(file), weights_dtype).arrays())
    except (ValueError, struct.error, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise ModelError(
            f"not an HDF5 file as Keras writes it: {error}", where=str(file)
        ) from error


class _File:
    def __init__(self, data: mmap.mmap, weights_dtype: torch.dtype | None) -> None:
        self.data = data
        self.weights_dtype = weights_dtype
        self.seen = set[int]()
        if self.cut(0, 8) != MAGIC:
            raise ValueError("it does not begin as one")
        version = self.number(8, 1)
        sizes, base = (13, 24) if version < 2 else (9, 12)
        if version > 3 or self.number(sizes, 1) != 8 or self.number(sizes + 1, 1) != 8:
            raise ValueError(f"superblock {version} with other sizes than 8 bytes")
        base += 4 if version == 1 else 0
        if self.number(base, 8):
            raise ValueError("it begins elsewhere than at its first byte")
        self.root = self.number(base + 40 if version < 2 else base + 24, 8)

    def cut(self, begin: int, size: int) -> bytes:
        if begin < 0 or size < 0 or begin + size > len(self.data):
            raise ValueError(f"bytes {begin} to {begin + size} are beyond its end")
        return self.data[begin : begin + size]

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.cut(at, size), "little")

    def arrays(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (path, array), depth first, without recursion."""
        waiting = [("", self.root)]
        total = 0
        while waiting:
            path, address = waiting.pop()
            if address in self.seen or len(self.seen) >= OBJECTS:
                raise ValueError(f"{path or 'an object'} is named twice, or there are too many")
            self.seen.add(address)
            messages = list(self.messages(address))
            kinds = {kind for kind, _, _ in messages}
            if LAYOUT in kinds:
                array = self.array(path, messages)
                total += array.nbytes
                # otherwise a small file whose parts are read repeatedly could fill the memory
                if total > len(self.data):
                    raise ValueError("its arrays overlap")
                yield path, array
                continue
            for name, child in self.children(messages):
                waiting.append((f"{path}/{name}" if path else name, child))
                if len(path) + len(name) > MOST_NAME or len(waiting) > OBJECTS:
                    raise ValueError(
                        "a path is longer than any that Keras writes, or there are too many"
                    )

    def messages(self, address: int) -> Iterator[Message]:
        """Yield the messages of an object's header and of its continuation blocks."""
        new = self.cut(address, 4) == b"OHDR"
        if not new and self.number(address, 1) != 1:
            raise ValueError(f"no object at {address}")
        flags = self.number(address + 5, 1) if new else 0
        if new:
            at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width = 1 << (flags & 3)
            blocks = [(at + width, self.number(at, width))]
        else:
            blocks = [(address + 16, self.number(address + 8, 4))]
        head = (6 if flags & 4 else 4) if new else 8
        count = 0
        while blocks:
            at, size = blocks.pop(0)
            self.cut(at, size)
            end = at + size
            while at + head <= end:
                kind = self.number(at, 1 if new else 2)
                length = self.number(at + (1 if new else 2), 2)
                at += head
                if at + length > end or (count := count + 1) > OBJECTS:
                    raise ValueError(
                        "a header's message is longer than its block, or there are too many"
                    )
                if kind == CONTINUED:
                    block = self.number(at, 8)
                    much = self.number(at + 8, 8)
                    # A version 2 block has a signature before its messages, and a checksum after
                    # them.
                    blocks.append((block + 4, much - 8) if new else (block, much))
                yield kind, at, length
                at += length

    def children(self, messages: list[Message]) -> Iterator[tuple[str, int]]:
        for kind, at, length in messages:
            if kind == TABLE:
                yield from self.symbols(self.number(at, 8), self.number(at + 8, 8))
            elif kind == LINK:
                yield self.link(at, length)
            elif kind == LINKS:
                flags = self.number(at + 1, 1)
                if self.number(at + 2 + (8 if flags & 1 else 0), 8) != 2**64 - 1:
                    raise ValueError("a group keeps its names in a heap, which is not read")

    def link(self, at: int, length: int) -> tuple[str, int]:
        """Return the name and address of a hard link within its group."""
        flags = self.number(at + 1, 1)
        place = at + 2
        if flags & 8:
            if self.number(place, 1):
                raise ValueError("a link leads out of the file")
            place += 1
        place += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        size = self.number(place, width)
        if size > MOST_NAME or place + width + size + 8 > at + length:
            raise ValueError("a link's name is longer than the link")
        return self.cut(place + width, size).decode("utf-8"), self.number(place + width + size, 8)

    def symbols(self, tree: int, heap: int) -> Iterator[tuple[str, int]]:
        """Yield the names and addresses in a group of the older kind: a B-tree of symbol tables,
        with the characters of the names in a heap.
        """
        if self.cut(heap, 4) != b"HEAP":
            raise ValueError("a group without names")
        letters = self.number(heap + 24, 8)
        much = self.number(heap + 8, 8)
        self.cut(letters, much)
        waiting = [tree]
        visited = set[int]()
        while waiting:
            node = waiting.pop()
            if node in visited or len(visited) >= OBJECTS:
                raise ValueError("a group's tree runs in a circle")
            visited.add(node)
            if self.cut(node, 4) == b"TREE":
                used = self.number(node + 6, 2)
                waiting += [self.number(node + 32 + 16 * n, 8) for n in range(used)]
            elif self.cut(node, 4) == b"SNOD":
                for n in range(self.number(node + 6, 2)):
                    name = self.number(node + 8 + 40 * n, 8)
                    if name >= much:
                        raise ValueError("a name lies beyond its heap")
                    text = self.cut(letters + name, min(MOST_NAME, much - name)).split(b"\0")[0]
                    yield text.decode("utf-8"), self.number(node + 16 + 40 * n, 8)
            else:
                raise ValueError("a group's tree is damaged")

    def array(self, path: str, messages: list[Message]) -> Tensor:
        of = {kind: (at, length) for kind, at, length in messages}
        if OUTSIDE in of:
            raise ValueError(f"{path} lies in another file")
        if FILTERS in of or DATASPACE not in of or DATATYPE not in of:
            raise ValueError(f"{path} is compressed, or lacks its shape or type")
        shape = self.shape(of[DATASPACE][0])
        dtype = self.dtype(path, of[DATATYPE][0])
        size = math.prod(shape) * dtype.itemsize
        at = of[LAYOUT][0]
        version = self.number(at, 1)
        kind = self.number(at + 1, 1)
        if version not in (3, 4) or kind > 1:
            raise ValueError(
                f"{path} is stored in chunks, or by an older layout, which is not read"
            )
        begin, much = (
            (at + 4, self.number(at + 2, 2))
            if kind == 0
            else (self.number(at + 2, 8), self.number(at + 10, 8))
        )
        if much < size or (size and begin + size > len(self.data)):
            raise ValueError(f"{path} has {much:,} bytes, and its shape asks for {size:,}")
        return numbers(self.data, begin, dtype, shape, self.weights_dtype)

    def shape(self, at: int) -> list[int]:
        version = self.number(at, 1)
        rank = self.number(at + 1, 1)
        if version not in (1, 2) or rank > 8:
            raise ValueError("a shape of an unknown kind")
        first = at + (8 if version == 1 else 4)
        return [self.number(first + 8 * n, 8) for n in range(rank)]

    def dtype(self, path: str, at: int) -> torch.dtype:
        kind = self.number(at, 1) & 15
        bits = self.number(at + 1, 1)
        size = self.number(at + 4, 4)
        found = None
        if kind == 0 and not bits & 1:
            found = _INTS.get((size, bool(bits & 8)))
        elif kind == 1 and not bits & 1:
            found = _FLOATS.get((size, self.number(at + 13, 1)))
        if found is None:
            raise ValueError(f"{path} holds no little-endian numbers")
        return found
