"""Read the numeric arrays of an .npz file (a zip of NumPy's .npy arrays), which may be malicious.

The format (NEP 1) is read here without unpickling: members must be uncompressed, and their declared
sizes must fit the file; headers must have one fixed form; and an array must have exactly the bytes
that its shape requires.
"""

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.errors import ModelError
from langue.formats.mapped import DECODED, fill

MAGIC = b"\x93NUMPY"
MOST_HEADER = 4096  # bytes; headers of plain arrays have about 100
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,20})', 'fortran_order': (False|True), 'shape': \(([\d, ]*)\),? *\} *\n?"
)
_TYPES = {kind: np.dtype(kind) for kind in ("<f2", "<f4", "<f8", "<i1", "|i1", "|u1", "<i4", "<i8")}

T = TypeVar("T")


class _Head(NamedTuple):
    dtype: "np.dtype[Any]"
    columns_first: bool  # Fortran's order
    shape: tuple[int, ...]
    size: int  # bytes of the header


def shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the arrays; only their headers are read."""
    return _scan(file, lambda name: True, lambda name, head, handle: head.shape)


def read(file: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Return the arrays with these names that exist; all arrays if no name is given."""

    def take(name: str, head: _Head, handle: IO[bytes]) -> NDArray[Any]:
        flat = np.frombuffer(handle.read(), head.dtype, offset=head.size)
        return flat.reshape(head.shape, order="F" if head.columns_first else "C")

    return _scan(file, lambda name: not names or name in names, take)


def weights(
    file: Path, is_selected: Callable[[str], bool], weights_dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Return the arrays with selected names, which must be floating-point.

    They are converted to fp32, and matrices to `weights_dtype` as in `fill`.
    """

    def take(name: str, head: _Head, handle: IO[bytes]) -> Tensor:
        if head.dtype.kind != "f":
            raise ModelError(
                f"{name} holds {head.dtype}, and weights are floating", where=str(file)
            )
        handle.read(head.size)
        pieces = (
            np.frombuffer(piece, head.dtype) for piece in iter(lambda: handle.read(DECODED), b"")
        )
        lying = head.shape[::-1] if head.columns_first else head.shape
        whole = fill(
            lying,
            torch.float32,
            weights_dtype,
            (torch.from_numpy(piece.astype("float32")) for piece in pieces),
        )
        return whole.permute(*range(whole.ndim)[::-1]) if head.columns_first else whole

    return _scan(file, is_selected, take)


def _scan(
    file: Path, is_selected: Callable[[str], bool], take: Callable[[str, _Head, IO[bytes]], T]
) -> dict[str, T]:
    """Return the result of `take` on each selected array's name, header and data.

    If `take` reads to the end, the checksum is verified.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check(members, file.stat().st_size)
            found = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                head = _described(archive, member)
                if is_selected(name):
                    with archive.open(member) as handle:
                        found[name] = take(name, head, handle)
            return found
    except (
        OSError,
        ValueError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
    ) as error:
        raise ModelError(
            f"not an .npz of plain numbers: {error}", where=str(file), do="download it again"
        ) from error


def _check(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError if the declared properties of the members are impossible."""
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


def _described(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Head:
    with archive.open(member) as handle:
        head = _head(handle.read(MOST_HEADER), member.filename)
    claimed = math.prod(head.shape) * head.dtype.itemsize
    if claimed != member.file_size - head.size:
        held = member.file_size - head.size
        raise ValueError(
            f"{member.filename!r} has {held:,} bytes for shape {list(head.shape)} of {head.dtype}"
        )
    return head


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
        raise ValueError(f"{name!r} holds {kind!r}, which is not numeric")
    counts = [count for count in found[3].decode().replace(" ", "").split(",") if count]
    # sizes of 0 must not hide absurd other sizes
    if len(counts) > 8 or math.prod(max(1, int(count[:16])) for count in counts) > 10**15:
        raise ValueError(f"{name!r} claims a shape that no file holds")
    return _Head(_TYPES[kind], found[2] == b"True", tuple(map(int, counts)), size)
