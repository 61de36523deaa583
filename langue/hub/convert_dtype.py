"""What arrives: published tensors, of a mapped file above all, and the precision that is wanted.
What leaves: the same stacked into one, converted as they are read, so that nothing is held twice
nor written twice.
"""

from collections import Counter
from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

from langue.runtime import release_pages

# of a mapped file, converted at a time, and so held in both precisions
CHUNK_BYTES = 2**24


class DtypeConverter:
    """Holds matrices in one precision (None: the file's), and gives back what it has read and
    nobody else will.
    """

    def __init__(self, weights_dtype: torch.dtype | None, published: Iterable[Tensor]) -> None:
        self.weights_dtype = weights_dtype
        # of each tensor that was published; tied ones have several
        self.names = Counter(map(_storage, published))

    def stack(self, parts: list[Tensor]) -> Tensor:
        """The parts along the first axis; a single one of the wanted precision is itself. What has
        one axis is left in the precision that it has.
        """
        kind = reduce(torch.promote_types, (part.dtype for part in parts))
        if self.weights_dtype is not None and parts[0].ndim > 1 and kind.is_floating_point:
            kind = self.weights_dtype
        if len(parts) == 1 and parts[0].dtype == kind:
            return parts[0]
        rows = [len(part) for part in parts]
        whole = torch.empty(sum(rows), *parts[0].shape[1:], dtype=kind)
        for place, part in zip(torch.split(whole, rows), parts, strict=True):
            if not part.is_contiguous() and _is_whole(part):  # columns are read as they lie, too
                place = place.t()
                part = part.t()
            step = max(1, CHUNK_BYTES * len(part) // max(1, part.nbytes))
            for held, read in zip(torch.split(place, step), torch.split(part, step), strict=True):
                held.copy_(read)
                if part.is_contiguous():
                    self._done(read)
        return whole

    def done(self, parts: list[Tensor], made: list[Tensor]) -> None:
        """Nobody will read the parts again but as what was made of them."""
        for part in parts:
            if _is_whole(part) and _storage(part) not in map(_storage, made):
                self._done(part)

    def _done(self, read: Tensor) -> None:
        if self.names[_storage(read)] == 1:
            release_pages(read)


def pairs_apart(tensor: Tensor, heads: int, weights_dtype: torch.dtype | None) -> Tensor:
    """Of each head, the rows that turn together: neighbours come half a head apart, as the Hub has
    them. Nobody else reads the tensor.
    """
    holder = DtypeConverter(weights_dtype, [tensor])
    made = holder.stack([rows[odd::2] for rows in tensor.chunk(heads) for odd in (0, 1)])
    holder.done([tensor], [made])
    return made


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_whole(part: Tensor) -> bool:
    """Whether its numbers lie side by side, by rows or by columns."""
    return part.is_contiguous() or (part.ndim == 2 and part.t().is_contiguous())
