"""Floor 5. What arrives: a passage and its highlights, which may overlap. What leaves: the passage
in segments, each with all that covers it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from langue.tasks.judgement import Highlight, HighlightKind, Passage

BEFORE = 300  # characters kept before the first highlight of a passage that is cut

MEANING: dict[HighlightKind, str] = {
    "right": "predicted and true",
    "wrong": "predicted, not true",
    "missed": "true, not predicted",
    "plain": "found",
    "given": "given",
}
# that a kind is told from another without colours, too
SIGNS: dict[HighlightKind, str] = {"right": "✓", "wrong": "✗", "missed": "○"}


@dataclass(frozen=True)
class Segment:
    """A stretch of text that is covered by the same highlights throughout."""

    text: str
    kinds: tuple[HighlightKind, ...]  # without repeats, in the order of MEANING
    covered_by: tuple[Highlight, ...]
    ending: tuple[Highlight, ...]  # highlights that end with it, and have a label or a sign

    @property
    def hint(self) -> str:
        """What covers it, in words."""
        return "; ".join(
            f"{each.label}: {MEANING[each.kind]}" if each.label else MEANING[each.kind]
            for each in self.covered_by
        )


@dataclass(frozen=True)
class Excerpt:
    """What is shown of a passage, and how much is not."""

    segments: tuple[Segment, ...]
    before: int  # characters of the text that are left out before it
    after: int
    unseen: int  # highlights no part of which is shown


def excerpt(passage: Passage, limit: int) -> Excerpt:
    """At most `limit` characters of a passage, those about its first highlight if it has any."""
    first, last = _window(passage, limit)
    shown = [
        replace(each, start=max(each.start, first), end=min(each.end, last))
        for each in passage.highlights
        if each.start <= each.end and each.end >= first and each.start <= last
    ]
    ends = {place for each in shown for place in (each.start, each.end)}
    places = [first, *sorted({first, last} | ends)]  # what ends at once ends an empty segment
    segments = (_segment(passage.text, start, end, shown) for start, end in pairwise(places))
    return Excerpt(
        segments=tuple(each for each in segments if each.text or each.ending),
        before=first,
        after=len(passage.text) - last,
        unseen=len(passage.highlights) - len(shown),
    )


def kinds_of(passages: Iterable[Passage]) -> list[HighlightKind]:
    """The kinds of highlight that occur, in the order of MEANING."""
    found = {each.kind for passage in passages for each in passage.highlights}
    return [kind for kind in MEANING if kind in found]


def _window(passage: Passage, limit: int) -> tuple[int, int]:
    """Where what is shown begins and ends."""
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
