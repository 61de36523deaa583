"""Floor 5. What arrives: the facts of what was prepared for training. What leaves: the sections
that show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langue.tasks.judgement import Cell, Section, Table

MOST = 50  # targets that are listed
NAMES = {
    "block": "tokens a piece, at most",
    "exact": "also in train, exactly",
    "flops": "operations (FLOP)",
    "near": "also in train, nearly",
    "longest": "longest, in tokens",
    "mean_tokens": "tokens a text, mean",
    "seconds_estimated": "seconds, as estimated before",
    "steps_per_epoch": "steps per epoch",
    "tokens_per_epoch": "tokens per epoch",
    "tokens_per_parameter": "tokens a parameter",
    "tokens_per_step": "tokens a step",
}
# what other parts of a report show
ELSEWHERE = {"origin", "data", "model", "task", "objective", "notes", "transformers", "positive"}
OF_CORPUS = ("documents", "tokens", "bytes")


def pairs(title: str, facts: Mapping[str, Any], note: str = "") -> Table:
    """Facts by name, lists in one line."""
    rows = [(NAMES.get(name, name.replace("_", " ")), _cell(fact)) for name, fact in facts.items()]
    return Table(title, ("", ""), rows, note=note)


def sections_of_facts(facts: Mapping[str, Any]) -> list[Section]:
    """The data of a run split by split, how its targets are spread, and what training takes."""
    splits: Mapping[str, Mapping[str, Any]] = facts.get("splits") or {}
    left = {
        name: fact
        for name, fact in facts.items()
        if name not in ELSEWHERE and not isinstance(fact, Mapping)
    }
    made: list[Section] = []
    if splits:
        made += [_splits(splits, facts.get("duplicates") or {}), _targets(splits)]
    if "documents" in facts:
        made.append(_corpus(facts))
        left = {
            name: fact for name, fact in left.items() if name.removeprefix("dev_") not in OF_CORPUS
        }
    return [*made, pairs("The run", left)]


def _cell(fact: Any) -> Cell:
    if fact is None or isinstance(fact, str | int | float):
        return fact
    return ", ".join(str(each) for each in fact) if isinstance(fact, list | tuple) else str(fact)


def _splits(
    splits: Mapping[str, Mapping[str, Any]], duplicates: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Sizes, what is cut, and what stands in the training data too, a column a split."""
    names = [
        name for name, size in next(iter(splits.values())).items() if not isinstance(size, Mapping)
    ]
    rows: list[list[Cell]] = [
        [NAMES.get(name, name.replace("_", " ")), *(sizes.get(name) for sizes in splits.values())]
        for name in names
    ]
    for name in ("exact", "near") if duplicates else ():
        counts = [duplicates[split][name] if split in duplicates else "" for split in splits]
        rows.append([NAMES[name], *counts])
    return Table("The data", ("", *splits), rows)


def _targets(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """How the targets of each split are spread: counts, the most frequent first, or numbers."""
    spread: dict[str, Mapping[str, float]] = {
        split: sizes["balance"] for split, sizes in splits.items() if "balance" in sizes
    }
    first = next(iter(spread.values()), {})
    names = list(dict.fromkeys(name for each in spread.values() for name in each))
    counted = all(isinstance(number, int) for each in spread.values() for number in each.values())
    if counted:
        names.sort(key=lambda name: -first.get(name, 0))
    more = len(names) - MOST
    return Table(
        title="Targets",
        columns=["", *spread],
        rows=[[name, *(each.get(name) for each in spread.values())] for name in names[:MOST]],
        bar=1 if counted else None,
        note=f"The most frequent; {more:,} more are not listed." if more > 0 else "",
    )


def _corpus(facts: Mapping[str, Any]) -> Table:
    """The documents that were trained on and those that were held out."""
    rows = [
        (name, facts[name], facts.get(f"dev_{name}", "")) for name in OF_CORPUS if name in facts
    ]
    return Table("The data", ("", "train", "held out"), rows)
