"""What arrives: how many pages a sequence may come to need, and the tokens of its beginning. What
leaves: numbers of pages, of which no two sequences write the same one.

A sequence is admitted when its worst case can be reserved, so that none is ever stopped for want of
memory, or computed again. Chunks of prompts stay known by their tokens after their sequence has
ended, until their pages are needed: a prompt with the same beginning uses them.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

# A prompt is read in pieces that end at multiples of this position, whatever else is in the step:
# products and attention then have the same operands, and give the same bits, in any company.
CHUNK = 64
Key = bytes  # of a chunk: a digest of all tokens up to its end


def chunk_keys(tokens: Sequence[int], salt: str = "") -> list[Key]:
    """Keys of the whole chunks of a prompt, but for one that would hold its last token: that is
    always computed, for what follows it. salt: what sets apart those who may not share.
    """
    keys = []
    digest = hashlib.blake2b(salt.encode("utf-8"), digest_size=16)
    for end in range(CHUNK, len(tokens), CHUNK):
        digest.update(np.asarray(tokens[end - CHUNK : end], np.int64).tobytes())
        keys.append(digest.digest())
    return keys


class PagePool:
    """Who holds which page. Every page is free, held by one or more sequences, or kept: known as
    part of a prompt and held by none.
    """

    def __init__(
        self, count: int, copy: Callable[[int, int], None] = lambda source, to: None
    ) -> None:
        """count: of pages; copy(source, to): writes what is in one page into another."""
        self.count = count
        self.copy = copy
        self.free = list(range(count - 1, -1, -1))
        self.holders = np.zeros(count, np.int32)
        self.reserved = 0  # promised to sequences and not taken yet
        # chunk -> its pages; the least recently used first
        self.chunks: OrderedDict[Key, tuple[int, ...]] = OrderedDict()
        self.chunk_of: dict[int, Key] = {}
        self.n_kept = 0

    @property
    def available(self) -> int:
        """Pages that may be reserved."""
        return len(self.free) + self.n_kept - self.reserved

    def reserve(self, pages: int) -> bool:
        """Whether so many are promised from now on."""
        if pages > self.available:
            return False
        self.reserved += pages
        return True

    def unreserve(self, pages: int) -> None:
        """What was promised will not be taken."""
        self.reserved -= pages

    def take(self) -> int:
        """A page of those reserved, of which the caller is the only holder."""
        assert self.reserved > 0, "a page is taken that was not reserved"
        self.reserved -= 1
        if not self.free:
            self._forget()
        page = self.free.pop()
        self.holders[page] = 1
        return page

    def hold(self, page: int) -> None:
        """One more sequence holds this page, which it does not write."""
        if not self.holders[page]:
            self.n_kept -= 1
        self.holders[page] += 1

    def release(self, page: int) -> None:
        """One sequence less holds this page."""
        assert self.holders[page] > 0, "a page is released that nobody holds"
        self.holders[page] -= 1
        if self.holders[page]:
            return
        if page in self.chunk_of:
            self.n_kept += 1
        else:
            self.free.append(page)

    def known(self, keys: Sequence[Key]) -> list[tuple[int, ...]]:
        """The pages of the first of these chunks, as far as they are known one after another."""
        found = []
        for key in keys:
            pages = self.chunks.get(key)
            if pages is None:
                break
            self.chunks.move_to_end(key)
            found.append(pages)
        return found

    def keep(self, key: Key, pages: Sequence[int]) -> None:
        """These pages, which their sequence writes no more, are those of a chunk."""
        if key in self.chunks or any(page in self.chunk_of for page in pages):
            return
        self.chunks[key] = tuple(pages)
        for page in pages:
            self.chunk_of[page] = key

    def _forget(self) -> None:
        """Free the pages of the chunk that was used least recently and that nobody holds."""
        unheld = (key for key, pages in self.chunks.items() if not self.holders[list(pages)].any())
        oldest = next(unheld, None)
        assert oldest is not None, "pages were promised that are not there"
        pages = self.chunks.pop(oldest)
        for page in pages:
            del self.chunk_of[page]
            self.free.append(page)
        self.n_kept -= len(pages)
