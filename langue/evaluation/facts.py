"""Floor 5. What arrives: the facts of what was prepared for training. What leaves: the sections
that show them.
"""

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
    rows = [(_shown(name), _cell(fact)) for name, fact in facts.items()]
    return Table(title, ("", ""), rows, note=note)


def sections_of_facts(facts: Mapping[str, Any]) -> list[Section]:
    """The data of a run split by split, how its targets are spread, and what training takes."""
    splits: Mapping[str, Mapping[str, Any]] = facts.get("splits") or {}
    shown_already = set(ELSEWHERE)
    made: list[Section] = []
    if splits:
        made.append(_splits(splits, facts.get("duplicates") or {}))
        made.append(_targets(splits))
    if "documents" in facts:
        made.append(_corpus(facts))
        shown_already |= {*OF_CORPUS, *(f"dev_{name}" for name in OF_CORPUS)}
    left = {}
    for name, fact in facts.items():
        if name not in shown_already and not isinstance(fact, Mapping):
            left[name] = fact
    made.append(pairs("The run", left))
    return made


def _shown(name: str) -> str:
    """A fact's name as people read it."""
    return NAMES.get(name, name.replace("_", " "))


def _cell(fact: Any) -> Cell:
    if fact is None or isinstance(fact, str | int | float):
        return fact
    if isinstance(fact, list | tuple):
        return ", ".join(str(each) for each in fact)
    return str(fact)


def _splits(
    splits: Mapping[str, Mapping[str, Any]], duplicates: Mapping[str, Mapping[str, Any]]
) -> Table:
    """Sizes, what is cut, and what stands in the training data too, a column a split."""
    first = next(iter(splits.values()))
    rows: list[list[Cell]] = []
    for name, size in first.items():
        if isinstance(size, Mapping):
            continue
        cells = [sizes.get(name) for sizes in splits.values()]
        rows.append([_shown(name), *cells])
    for name in ("exact", "near") if duplicates else ():
        counts = [duplicates[split][name] if split in duplicates else "" for split in splits]
        rows.append([NAMES[name], *counts])
    return Table("The data", ("", *splits), rows)


def _targets(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """How the targets of each split are spread: counts, the most frequent first, or numbers."""
    spread: dict[str, Mapping[str, float]] = {}
    for split, sizes in splits.items():
        if "balance" in sizes:
            spread[split] = sizes["balance"]
    first = next(iter(spread.values()), {})
    seen: dict[str, None] = {}  # in the order of the splits
    counted = True
    for balance in spread.values():
        seen |= dict.fromkeys(balance)
        counted = counted and all(isinstance(number, int) for number in balance.values())
    names = list(seen)
    if counted:
        names.sort(key=lambda name: -first.get(name, 0))
    rows: list[list[Cell]] = []
    for name in names[:MOST]:
        cells = [balance.get(name) for balance in spread.values()]
        rows.append([name, *cells])
    more = len(names) - MOST
    return Table(
        title="Targets",
        columns=["", *spread],
        rows=rows,
        bar=1 if counted else None,
        note=f"The most frequent; {more:,} more are not listed." if more > 0 else "",
    )


def _corpus(facts: Mapping[str, Any]) -> Table:
    """The documents that were trained on and those that were held out."""
    rows = [
        (name, facts[name], facts.get(f"dev_{name}", "")) for name in OF_CORPUS if name in facts
    ]
    return Table("The data", ("", "train", "held out"), rows)
