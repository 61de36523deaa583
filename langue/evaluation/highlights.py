"""Splits a passage with possibly overlapping highlights into segments, each with all highlights
that cover it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from langue.tasks.judgement import Highlight, HighlightKind, Passage

BEFORE = 300  # characters shown before the first highlight of a truncated passage

MEANING: dict[HighlightKind, str] = {
    "right": "predicted and true",
    "wrong": "predicted, not true",
    "missed": "true, not predicted",
    "plain": "found",
    "given": "given",
}
# make the kinds distinguishable without colours
SIGNS: dict[HighlightKind, str] = {"right": "✓", "wrong": "✗", "missed": "○"}


@dataclass(frozen=True)
class Segment:
    """A part of a text that is covered by the same highlights throughout."""

    text: str
    kinds: tuple[HighlightKind, ...]  # unique, in the order of MEANING
    covered_by: tuple[Highlight, ...]
    ending: tuple[Highlight, ...]  # highlights that end here and have a label or a sign

    @property
    def hint(self) -> str:
        """The covering highlights in words."""
        return "; ".join(
            f"{each.label}: {MEANING[each.kind]}" if each.label else MEANING[each.kind]
            for each in self.covered_by
        )


@dataclass(frozen=True)
class Excerpt:
    """The shown part of a passage, and the sizes of the parts that are not shown."""

    segments: tuple[Segment, ...]
    before: int  # number of omitted characters before the excerpt
    after: int
    unseen: int  # number of highlights entirely outside the excerpt


def excerpt(passage: Passage, limit: int) -> Excerpt:
    """Return at most `limit` characters of a passage, around its first highlight if it has any."""
    first, last = _window(passage, limit)
    shown = [
        replace(each, start=max(each.start, first), end=min(each.end, last))
        for each in passage.highlights
        if each.start <= each.end and each.end >= first and each.start <= last
    ]
    ends = {place for each in shown for place in (each.start, each.end)}
    # the duplicate of `first` gives an empty segment, for highlights that end there
    places = [first, *sorted({first, last} | ends)]
    segments = (_segment(passage.text, start, end, shown) for start, end in pairwise(places))
    return Excerpt(
        segments=tuple(each for each in segments if each.text or each.ending),
        before=first,
        after=len(passage.text) - last,
        unseen=len(passage.highlights) - len(shown),
    )


def kinds_of(passages: Iterable[Passage]) -> list[HighlightKind]:
    """Return the kinds of highlights that occur, in the order of MEANING."""
    found = {each.kind for passage in passages for each in passage.highlights}
    return [kind for kind in MEANING if kind in found]


def _window(passage: Passage, limit: int) -> tuple[int, int]:
    """Return the start and end of the shown part."""
    length = len(passage.text)
    starts = [each.start for each in passage.highlights if each.start <= length]
    first = 0
    if length > limit and starts and min(starts) > limit - BEFORE:
        first = min(min(starts) - BEFORE, length - limit)
    return max(0, first), min(length, max(0, first) + limit)


def _segment(text: str, start: int, end: int, shown: list[Highlight]) -> Segment:
    covering = tuple(each for each in shown if each.start <= start < end <= each.end)
    there = {each.kind for each in covering}
    return Segment(
        text=text[start:end],
        kinds=tuple(kind for kind in MEANING if kind in there),
        covered_by=covering,
        ending=tuple(each for each in shown if each.end == end and _is_tagged(each)),
    )


def _is_tagged(highlight: Highlight) -> bool:
    return bool(highlight.label) or highlight.kind in SIGNS
