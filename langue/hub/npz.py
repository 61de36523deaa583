"""What arrives: an .npz file (a zip of NumPy's .npy arrays), which may be hostile. What leaves: its arrays of numbers.

NEP 1's format, read here so that nothing in it can be unpickled: members are stored as they are and their declared
sizes fit the file, headers are of one fixed form, and an array has exactly the bytes that its shape asks for.
"""

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langue.errors import ModelError

MAGIC = b"\x93NUMPY"
MOST_HEADER = 4096  # bytes; the headers of plain arrays have about 100
_HEADER = re.compile(rb"\{'descr': '([^']{1,20})', 'fortran_order': (False|True), 'shape': \(([\d, ]*)\),? *\} *\n?")
_TYPES = {kind: np.dtype(kind) for kind in ("<f2", "<f4", "<f8", "<i1", "|i1", "|u1", "<i4", "<i8")}


class _Head(NamedTuple):
    dtype: "np.dtype[Any]"
    columns_first: bool  # Fortran's order
    shape: tuple[int, ...]
    size: int  # of the header, in bytes


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The arrays' names and shapes; only their headers are read."""
    return {name: head.shape for name, head, _ in _scan(file, lambda name: False)}


def read(file: Path, *names: str) -> dict[str, NDArray[Any]]:
    """The arrays of these names that are there; all of them where no name is given."""
    found = {}
    for name, head, data in _scan(file, lambda name: not names or name in names):
        if data is not None:
            flat = np.frombuffer(data, head.dtype, offset=head.size)
            found[name] = flat.reshape(head.shape, order="F" if head.columns_first else "C")
    return found


def _scan(file: Path, wanted: Callable[[str], bool]) -> list[tuple[str, _Head, bytes | None]]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check(members, file.stat().st_size)
            return [_member(archive, member, wanted(member.filename.removesuffix(".npy"))) for member in members]
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
        raise ModelError(f"not an .npz of plain numbers: {error}", where=str(file), do="download it again") from error


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    """ValueError where what the members say of themselves cannot be so."""
    if len({member.filename for member in members}) != len(members):
        raise ValueError("it names something twice")
    for member in members:
        if not member.filename.endswith(".npy"):
            raise ValueError(f"{member.filename!r} is no array")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(f"{member.filename!r} is compressed or encrypted")
    declared = sum(member.file_size for member in members)
    if declared > size or any(member.file_size != member.compress_size for member in members):
        raise ValueError(f"its arrays claim {declared:,} bytes and it has {size:,}")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, whole: bool) -> tuple[str, _Head, bytes | None]:
    with archive.open(member) as handle:
        data = handle.read() if whole else handle.read(MOST_HEADER)  # `read()` to the end checks the sum as well
    head = _head(data, member.filename)
    claimed = math.prod(head.shape) * head.dtype.itemsize
    if claimed != member.file_size - head.size:
        held = member.file_size - head.size
        raise ValueError(f"{member.filename!r} has {held:,} bytes for shape {list(head.shape)} of {head.dtype}")
    return member.filename.removesuffix(".npy"), head, data if whole else None


def _head(data: bytes, name: str) -> _Head:
    if data[:6] != MAGIC or len(data) < 12:
        raise ValueError(f"{name!r} is no array")
    begin, form = {1: (10, "<H"), 2: (12, "<I")}.get(data[6], (0, ""))
    if not form:
        raise ValueError(f"{name!r} is of version {data[6]} of the format")
    size = begin + struct.unpack_from(form, data, 8)[0]
    found = _HEADER.fullmatch(data[begin:size]) if size <= min(MOST_HEADER, len(data)) else None
    if found is None:
        raise ValueError(f"the header of {name!r} is not one of an array")
    kind = found[1].decode("ascii", "replace")
    if kind not in _TYPES:
        raise ValueError(f"{name!r} holds {kind!r}, which are no numbers")
    counts = [count for count in found[3].decode().replace(" ", "").split(",") if count]
    if len(counts) > 8 or math.prod(max(1, int(count[:16])) for count in counts) > 10**15:  # of none of them too
        raise ValueError(f"{name!r} claims a shape that no file holds")
    return _Head(_TYPES[kind], found[2] == b"True", tuple(map(int, counts)), size)
