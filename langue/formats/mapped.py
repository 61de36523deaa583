"""Return tensors of a memory-mapped weight file, as its own pages or, if they must be decoded,
directly in the target dtype.
"""

import math
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from langue.errors import ModelError
from langue.files import unreadable
from langue.runtime import release_pages

# number of bytes that are decoded at a time, so that intermediate results stay in the CPU cache
DECODED = 2**18


def map_file(path: Path) -> mmap.mmap:
    """Map a file into memory, copy-on-write, so that the file itself never changes.

    Raises ModelError if it may not be read.
    """
    try:
        with path.open("rb") as handle:
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
    except PermissionError as error:
        raise unreadable(error, path, ModelError) from None


def numbers(
    data: mmap.mmap | memoryview,
    begin: int,
    dtype: torch.dtype,
    shape: Sequence[int],
    weights_dtype: torch.dtype | None,
) -> Tensor:
    """Return the numbers at an offset of a mapped file as its own pages.

    If the offset is not aligned as torch requires, they are copied, a matrix to `weights_dtype`.
    """
    count = math.prod(shape)
    if not count:  # NumPy raises an error of its own for impossible sizes
        return torch.from_numpy(np.zeros(tuple(shape), np.uint8)).to(dtype)
    raw = torch.frombuffer(data, dtype=torch.uint8, count=count * dtype.itemsize, offset=begin)
    if raw.data_ptr() % dtype.itemsize == 0:
        return raw.view(dtype).view(tuple(shape))
    return fill(
        shape,
        dtype,
        weights_dtype,
        (piece.clone().view(dtype) for piece in in_pieces(raw, dtype.itemsize)),
    )


def in_pieces(raw: Tensor, unit: int) -> Iterator[Tensor]:
    """Yield the bytes of a mapped file in pieces of whole units; the pages of each piece are
    released when the next is requested.
    """
    for piece in torch.split(raw, DECODED // unit * unit):
        yield piece
        release_pages(piece)
    release_pages(raw)  # also the pages that two pieces share


def fill(
    shape: Sequence[int],
    dtype: torch.dtype,
    weights_dtype: torch.dtype | None,
    decoded: Iterable[Tensor],
) -> Tensor:
    """Return a tensor filled from pieces that arrive in order.

    A matrix has the dtype `weights_dtype`; other tensors keep their own dtype, as does a single
    row, which may be a vector under another name.
    """
    narrow = (
        weights_dtype is not None and dtype.is_floating_point and len(shape) > 1 and 1 not in shape
    )
    whole = torch.empty(tuple(shape), dtype=weights_dtype if narrow else dtype)
    at = 0
    for piece in decoded:
        whole.view(-1)[at : at + len(piece)] = piece
        at += len(piece)
    return whole
