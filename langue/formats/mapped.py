"""What arrives: a file of weights, mapped, and where a tensor lies in it. What leaves: the tensor:
the file's own pages; or, where it must be decoded, numbers in the precision that is wanted from the
first.
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

# bytes that are decoded at a time: what becomes of them on the way stays in the processor's cache
DECODED = 2**18


def map_file(path: Path) -> mmap.mmap:
    """A file's pages. They are copied where they are written to: the file itself is never changed.
    ModelError where it may not be read.
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
    """The numbers that lie at a place of a mapped file, as its own pages. Where that is no place of
    whole numbers, as torch asks for, they are copied: a matrix in the precision that
    `weights_dtype` says.
    """
    count = math.prod(shape)
    if not count:  # numpy has an error of its own for sizes that none has
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
    """Bytes of a mapped file, whole units at a time, which are given back when the next are asked
    for.
    """
    for piece in torch.split(raw, DECODED // unit * unit):
        yield piece
        release_pages(piece)
    release_pages(raw)  # the pages that two pieces share


def fill(
    shape: Sequence[int],
    dtype: torch.dtype,
    weights_dtype: torch.dtype | None,
    decoded: Iterable[Tensor],
) -> Tensor:
    """A tensor of numbers that come in their order, a piece at a time: a matrix in the precision
    that `weights_dtype` says, other things, and a single row, which may be a vector under another
    name, in their own.
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
