"""Stack published tensors and convert their dtype while they are read.

The tensors usually are pages of a mapped file. They are converted in chunks, so that nothing is
held in memory or written twice.
"""

from collections import Counter
from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

from langue.runtime import release_pages

# the amount of a mapped file that is converted at a time, and so exists in both dtypes
CHUNK_BYTES = 2**24


class DtypeConverter:
    """Converts matrices to one dtype (None: that of the file), and releases the file pages that
    nothing else will read.
    """

    def __init__(self, weights_dtype: torch.dtype | None, published: Iterable[Tensor]) -> None:
        self.weights_dtype = weights_dtype
        # the number of names of each published tensor; tied tensors have several
        self.names = Counter(map(_storage, published))

    def stack(self, parts: list[Tensor]) -> Tensor:
        """Concatenate the parts along the first axis; a single part that already has the dtype is
        returned as it is. Vectors keep their dtype.
        """
        kind = reduce(torch.promote_types, (part.dtype for part in parts))
        if self.weights_dtype is not None and parts[0].ndim > 1 and kind.is_floating_point:
            kind = self.weights_dtype
        if len(parts) == 1 and parts[0].dtype == kind:
            return parts[0]
        rows = [len(part) for part in parts]
        whole = torch.empty(sum(rows), *parts[0].shape[1:], dtype=kind)
        for place, part in zip(torch.split(whole, rows), parts, strict=True):
            # a transposed matrix is read in its storage order, too
            if not part.is_contiguous() and _is_whole(part):
                place = place.t()
                part = part.t()
            step = max(1, CHUNK_BYTES * len(part) // max(1, part.nbytes))
            for held, read in zip(torch.split(place, step), torch.split(part, step), strict=True):
                held.copy_(read)
                if part.is_contiguous():
                    self._done(read)
        return whole

    def done(self, parts: list[Tensor], made: list[Tensor]) -> None:
        """Release the pages of parts that are not used directly in the result."""
        for part in parts:
            if _is_whole(part) and _storage(part) not in map(_storage, made):
                self._done(part)

    def _done(self, read: Tensor) -> None:
        if self.names[_storage(read)] == 1:
            release_pages(read)


def pairs_apart(tensor: Tensor, heads: int, weights_dtype: torch.dtype | None) -> Tensor:
    """Reorder the rows of each head so that rotary pairs, adjacent in the file, are half a head
    apart, as on the Hub. The tensor must have no other reader.
    """
    holder = DtypeConverter(weights_dtype, [tensor])
    made = holder.stack([rows[odd::2] for rows in tensor.chunk(heads) for odd in (0, 1)])
    holder.done([tensor], [made])
    return made


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_whole(part: Tensor) -> bool:
    """Return whether the elements are contiguous in memory, by rows or by columns."""
    return part.is_contiguous() or (part.ndim == 2 and part.t().is_contiguous())
