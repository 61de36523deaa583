"""Assigns the documents of a source, piece by piece, to the splits train and dev.

The split of a document depends only on its text, so that no copy of it can be in the other split.
If a source has a single document, the end of it becomes the dev document.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from langue.errors import DataError
from langue.text.quality.hash_set import Uint64Set
from langue.text.read.documents import Piece, Reading, Tally, Texts

# documents, or bytes of them, that are looked at before any is given out
PEEK = 1000
PEEK_BYTES = 16 << 20
NEAR = 2000  # characters in which the end of a line is looked for
Assigned = tuple[str, Piece]


@dataclass(frozen=True)
class SplitAssignment:
    fraction: float = 0.01  # share of the documents that go to dev, at least one; 0: none does
    tail: float = 0.1  # share of a single document that does
    seed: int = 0
    dedup: bool = False  # leave out documents that are there already

    @classmethod
    def of(cls, share: float | None, seed: int, dedup: bool = False) -> "SplitAssignment":
        """share: of the documents, or of the only one; None: the usual ones."""
        return cls(seed=seed, dedup=dedup) if share is None else cls(share, share, seed, dedup)


@dataclass
class HashSplitter:
    """Divides source after source, and counts the copies among all their documents."""

    reading: Reading
    division: SplitAssignment
    tally: Tally
    seen: Uint64Set
    duplicates: int = 0
    # marks of documents that are dev whatever their number is
    chosen: set[int] = field(default_factory=set)
    # of those that sources begin with, what was there before them
    old: set[int] = field(default_factory=set)

    def divided(self, texts: Texts) -> Iterator[Assigned]:
        train = self._marked(texts.pieces(self.reading, self.tally))
        if "dev" in texts.files:
            yield from (("train", piece) for _, piece in train)
            yield from (
                ("dev", piece)
                for _, piece in self._marked(texts.pieces(self.reading, self.tally, "dev"))
            )
            return
        if not self.division.fraction:
            yield from (("train", piece) for _, piece in train)
            return
        head, rest, whole = _peek(train)
        begun = {mark for mark, piece in head if piece.first}
        if sum(piece.first for _, piece in head) == 1:
            characters = self._single(texts, head, whole)
            if characters:
                pieces = (piece for part in (head, rest) for _, piece in part)
                yield from _ended(pieces, characters, self.division.tail, texts.name)
                return
        limit = int(self.division.fraction * 2.0**64)
        # is dev too, so that there is one
        extra = _smaller(head, self.old) if len(begun) > 1 else None
        if len(begun) > 1 and max(begun) < limit:
            limit = max(begun)  # and one of train
        # a first document that is as long as the head is for train
        kept = begun if len(begun) == 1 else set()
        for part in (head, rest):
            for mark, piece in part:
                if extra is None and mark not in begun and mark not in self.old:
                    extra = mark  # the second, then
                if mark == extra:
                    self.chosen.add(mark)
                held = (mark < limit or mark in self.chosen) and mark not in kept
                yield ("dev" if held else "train"), piece

    def _marked(self, pieces: Iterator[Piece]) -> Iterator[tuple[int, Piece]]:
        """Each with the number that its document's first piece hashes to; copies are counted or
        left out.
        """
        mark = whole = 0
        # marks that the source brought, as far as it is looked at before any is given out
        here: set[int] = set()
        salt = self.division.seed.to_bytes(8, "little")
        for piece in pieces:
            own = (
                piece.text.encode("utf-8")
                if piece.first
                else whole.to_bytes(8, "little") + piece.text.encode("utf-8")
            )
            whole = int.from_bytes(
                hashlib.blake2b(own, digest_size=8, salt=salt).digest(), "little"
            )
            mark = whole if piece.first else mark
            if piece.last and self.seen.add(whole):
                if len(here) < PEEK:
                    here.add(mark)
            elif piece.last:
                self.duplicates += 1
                if len(here) < PEEK and mark not in here:
                    self.old.add(mark)
                # what is longer than a piece is already given out
                if self.division.dedup and piece.first:
                    continue
            yield mark, piece

    def _single(self, texts: Texts, head: list[tuple[int, Piece]], whole: bool) -> int:
        """Characters of the source's only document; 0 where it has more of them. whole: whether
        head is all of it.
        """
        if whole:
            return sum(len(piece.text) for _, piece in head)
        characters = 0
        for piece in texts.pieces(self.reading, Tally()):
            if piece.first and characters:
                return 0
            characters += len(piece.text)
        return characters


def _smaller(head: list[tuple[int, Piece]], old: set[int]) -> int | None:
    """The mark of a document, drawn by its text, that is not the longest, nor in train already."""
    sizes: Counter[int] = Counter()
    for mark, piece in head:
        sizes[mark] += piece.size
    (longest, _), *_ = sizes.most_common(1)
    return min((mark for mark in sizes if mark != longest and mark not in old), default=None)


def _peek(
    pieces: Iterator[tuple[int, Piece]],
) -> tuple[list[tuple[int, Piece]], Iterator[tuple[int, Piece]], bool]:
    """The first of them as a list, the others, and whether there are none."""
    head: list[tuple[int, Piece]] = []
    documents = size = 0
    for each in pieces:
        head.append(each)
        documents = documents + each[1].last
        size = size + each[1].size
        if documents >= PEEK or size >= PEEK_BYTES:
            return head, pieces, False
    return head, pieces, True


def _ended(pieces: Iterator[Piece], characters: int, tail: float, name: str) -> Iterator[Assigned]:
    """One document as two: cut at the line end, or white space, before its last `tail`."""
    if characters < 2:
        raise DataError("its only document is one character", where=name, do="give more text")
    target = min(max(1, round(characters * (1 - tail))), characters - 1)
    at = 0
    first = True  # first: of the dev document
    for piece in pieces:
        if at + len(piece.text) < target:
            yield "train", piece
        elif at < target:
            local = target - at
            before = piece.text[:local]
            near = before[-NEAR:]
            back = near.rfind("\n") + 1 or max(near.rfind(" "), 0)
            cut = local - len(near) + back if back else local
            yield (
                "train",
                replace(piece, text=piece.text[:cut], size=_bytes(piece.text[:cut]), last=True),
            )
            if cut < len(piece.text):
                dev = piece.text[cut:]
                yield "dev", replace(piece, text=dev, size=_bytes(dev), first=True)
                first = False
        else:
            yield "dev", replace(piece, first=first)
            first = False
        at += len(piece.text)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8"))
