"""Report sections that show the facts about a text corpus, and a page of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.evaluation import report
from langue.tasks.judgement import Cell, Example, Examples, Passage, Section, Table
from langue.wording import counted

LENGTHS = ("shortest", "median", "mean", "p90", "p99", "longest")


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a self-contained page about a text corpus."""
    page = report.Page(
        title=facts["name"],
        facts=sizes(facts),
        notes=facts["notes"],
        sections=[*tables(facts), *examples(facts)],
    )
    report.write(path, page)


def sizes(facts: Mapping[str, Any]) -> list[str]:
    """Return the size of the text and its language, in a few words each."""
    found = []
    for name in ("documents", "tokens", "characters"):
        if facts.get(name) is not None:
            found.append(counted(facts[name], name.removesuffix("s")))
    found.append(f"language: {facts['language']} (guessed by script and words)")
    return found


def tables(facts: Mapping[str, Any]) -> list[Section]:
    """Return the sections with numbers."""
    found: list[Section] = []
    if facts.get("splits"):
        found.append(_splits(facts["splits"]))
    for name in ("token_lengths", "lengths"):
        if facts.get(name):
            found.append(_lengths(facts[name]))
    found.append(_shares("Scripts", "script", "characters", facts["scripts"]))
    found.append(_shares("Languages", "language", "documents", facts["languages"]))
    found.append(_copies(facts["duplicates"]))
    return found


def examples(facts: Mapping[str, Any]) -> list[Examples]:
    """Return some of the documents, or their beginnings."""
    drawn = [{"text": text} for text in facts["samples"]]
    return [
        _examples("Documents drawn at random", drawn),
        _examples("The longest", facts["longest"]),
        _examples("The shortest", facts["shortest"]),
    ]


def _splits(splits: Mapping[str, Mapping[str, int]]) -> Table:
    first = next(iter(splits.values()))
    columns = list(first)
    rows: list[Sequence[Cell]] = []
    for name, counts in splits.items():
        cells = [counts.get(column) for column in columns]
        rows.append([name, *cells])
    return Table("Splits", ("split", *columns), rows)


def _lengths(lengths: Mapping[str, Any]) -> Table:
    rows = []
    for each in lengths["histogram"]:
        span = f"{each['from']:,} to {each['to']:,}"
        rows.append((span, each["documents"]))
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
    rows = []
    for each in found:
        passages = [Passage(each["text"])]
        cells = [each["characters"]] if counted else []
        rows.append(Example(passages, cells))
    columns = ("characters",) if counted else ()
    return Examples(title=title, columns=columns, rows=rows)
