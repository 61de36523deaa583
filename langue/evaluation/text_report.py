"""Floor 5. What arrives: the facts of a text. What leaves: the sections that show them, and a page
of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.evaluation import report
from langue.tasks.judgement import Cell, Example, Examples, Passage, Section, Table

LENGTHS = ("shortest", "median", "mean", "p90", "p99", "longest")


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a page about a text, whole without a network."""
    page = report.Page(
        title=facts["name"],
        facts=sizes(facts),
        notes=facts["notes"],
        sections=[*tables(facts), *examples(facts)],
    )
    report.write(path, page)


def sizes(facts: Mapping[str, Any]) -> list[str]:
    """How large the text is, and in what language, in a few words each."""
    counts = [
        _counted(facts[name], name)
        for name in ("documents", "tokens", "characters")
        if facts.get(name) is not None
    ]
    return [*counts, f"language: {facts['language']} (guessed by script and words)"]


def tables(facts: Mapping[str, Any]) -> list[Section]:
    """What there is in numbers."""
    lengths = [facts[name] for name in ("token_lengths", "lengths") if facts.get(name)]
    splits: Mapping[str, Mapping[str, int]] = facts.get("splits") or {}
    return [
        *([_splits(splits)] if splits else []),
        *(_lengths(each) for each in lengths),
        _shares("Scripts", "script", "characters", facts["scripts"]),
        _shares("Languages", "language", "documents", facts["languages"]),
        _copies(facts["duplicates"]),
    ]


def examples(facts: Mapping[str, Any]) -> list[Examples]:
    """Some of its documents, or their beginnings."""
    drawn = [{"text": text} for text in facts["samples"]]
    return [
        _examples("Documents drawn at random", drawn),
        _examples("The longest", facts["longest"]),
        _examples("The shortest", facts["shortest"]),
    ]


def _counted(count: int, plural: str) -> str:
    return f"{count:,} {plural.removesuffix('s') if count == 1 else plural}"


def _splits(splits: Mapping[str, Mapping[str, int]]) -> Table:
    columns = list(next(iter(splits.values())))
    rows = [[name, *(counts.get(each) for each in columns)] for name, counts in splits.items()]
    return Table("Splits", ("split", *columns), rows)


def _lengths(lengths: Mapping[str, Any]) -> Table:
    rows = [
        (f"{each['from']:,} to {each['to']:,}", each["documents"]) for each in lengths["histogram"]
    ]
    note = ", ".join(f"{name} {lengths[name]:,}" for name in LENGTHS)
    unit = lengths["unit"]
    return Table(f"How long they are, in {unit}", (unit, "documents"), rows, bar=1, note=note)


def _shares(title: str, first: str, counted: str, counts: Mapping[str, int]) -> Table:
    total = sum(counts.values())
    rows = [(name, count, count / total) for name, count in counts.items() if total]
    guessed = "As script and common words suggest." if first == "language" else ""
    return Table(title, (first, counted, "share"), rows, shares=(2,), bar=2, note=guessed)


def _copies(found: Mapping[str, int]) -> Table:
    rows: list[Sequence[Cell]] = [
        ("exact copies of another document", found["exact"]),
        (f"near copies, among the first {found['near_among']:,}", found["near"]),
    ]
    return Table("Copies", ("", ""), rows)


def _examples(title: str, found: Sequence[Mapping[str, Any]]) -> Examples:
    counted = all("characters" in each for each in found)
    return Examples(
        title=title,
        columns=("characters",) if counted else (),
        rows=[
            Example([Passage(each["text"])], [each["characters"]] if counted else [])
            for each in found
        ],
    )
