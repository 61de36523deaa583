"""Allocation of KV cache pages: takes the number of pages that a sequence may need, and its prompt;
returns page numbers, of which no two sequences write the same one.

A sequence is admitted once its worst case is reserved, so that none is ever preempted or recomputed
for lack of memory. Prompt chunks stay in the prefix cache after their sequence has ended, until
their pages are needed; a prompt with the same prefix reuses them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

# Prefill chunks end at multiples of this position, whatever else is in the step. Matrix products
# and attention then have the same operands, and the same bits as results, in any batch.
CHUNK = 64
Key = bytes  # of a chunk: a digest of all tokens up to its end


def chunk_keys(tokens: Sequence[int], salt: str = "") -> list[Key]:
    """Return the keys of a prompt's complete chunks, except one that contains its last token, which
    is always computed for its logits.

    salt: separates owners that may not share their prompts.
    """
    keys = []
    digest = hashlib.blake2b(salt.encode("utf-8"), digest_size=16)
    for end in range(CHUNK, len(tokens), CHUNK):
        digest.update(np.asarray(tokens[end - CHUNK : end], np.int64).tobytes())
        keys.append(digest.digest())
    return keys


class PagePool:
    """Bookkeeping of the pages. Every page is free, held by one or more sequences, or cached: part
    of a known prompt chunk and held by none.
    """

    def __init__(
        self, count: int, copy: Callable[[int, int], None] = lambda source, to: None
    ) -> None:
        """count: number of pages. copy(source, to): copies the content of a page to another."""
        self.count = count
        self.copy = copy
        self.free = list(range(count - 1, -1, -1))
        self.holders = np.zeros(count, np.int32)
        self.reserved = 0  # reserved for sequences and not yet taken
        # chunk -> its pages; least recently used first
        self.chunks: OrderedDict[Key, tuple[int, ...]] = OrderedDict()
        self.chunk_of: dict[int, Key] = {}
        self.n_kept = 0

    @property
    def available(self) -> int:
        """Number of pages that may be reserved."""
        return len(self.free) + self.n_kept - self.reserved

    def reserve(self, pages: int) -> bool:
        """Reserve pages, and return whether there are enough."""
        if pages > self.available:
            return False
        self.reserved += pages
        return True

    def unreserve(self, pages: int) -> None:
        """Cancel a reservation."""
        self.reserved -= pages

    def take(self) -> int:
        """Take a reserved page, of which the caller is the only holder."""
        assert self.reserved > 0, "a page is taken that was not reserved"
        self.reserved -= 1
        if not self.free:
            self._evict()
        page = self.free.pop()
        self.holders[page] = 1
        return page

    def hold(self, page: int) -> None:
        """Add a holder to a page, which it does not write."""
        if not self.holders[page]:
            self.n_kept -= 1
        self.holders[page] += 1

    def release(self, page: int) -> None:
        """Remove a holder of a page."""
        assert self.holders[page] > 0, "a page is released that nobody holds"
        self.holders[page] -= 1
        if self.holders[page]:
            return
        if page in self.chunk_of:
            self.n_kept += 1
        else:
            self.free.append(page)

    def known(self, keys: Sequence[Key]) -> list[tuple[int, ...]]:
        """Return the pages of the longest prefix of these chunks that is in the cache."""
        found = []
        for key in keys:
            pages = self.chunks.get(key)
            if pages is None:
                break
            self.chunks.move_to_end(key)
            found.append(pages)
        return found

    def keep(self, key: Key, pages: Sequence[int]) -> None:
        """Register pages, which their sequence no longer writes, as those of a chunk."""
        if key in self.chunks or any(page in self.chunk_of for page in pages):
            return
        self.chunks[key] = tuple(pages)
        for page in pages:
            self.chunk_of[page] = key

    def _evict(self) -> None:
        """Free the pages of the least recently used chunk that nobody holds."""
        unheld = (key for key, pages in self.chunks.items() if not self.holders[list(pages)].any())
        oldest = next(unheld, None)
        assert oldest is not None, "pages were promised that are not there"
        pages = self.chunks.pop(oldest)
        for page in pages:
            del self.chunk_of[page]
            self.free.append(page)
        self.n_kept -= len(pages)
