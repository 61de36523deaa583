"""Report sections that show the facts about the prepared training data and the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langue.tasks.judgement import Cell, Section, Table
from langue.wording import estimate

MOST = 50  # maximum number of listed targets
Splits = Mapping[str, Mapping[str, Any]]
Balances = Mapping[str, Mapping[str, float]]

# Facts about a split, in the order of the report.
OF_SPLITS = {
    "examples": "examples",
    "tokens": "tokens",
    "longest": "longest, in tokens",
    "cut_examples": "examples that are cut",
    "cut_tokens": "tokens that are cut off",
}
OF_COPIES = {"exact": "also in train, exactly", "near": "also in train, nearly"}
OF_CORPUS = ("documents", "tokens", "bytes")
# Facts that other parts of a report show, and those that only programs read.
ELSEWHERE = {
    *("title", "command", "origin", "data", "model", "task", "objective", "notes", "positive"),
    *("transformers", "verb", "reads_texts", "reads_two_texts"),
    *OF_CORPUS,
    *(f"dev_{name}" for name in OF_CORPUS),
}
# Facts about a run, in the order of the report.
OF_RUNS = {
    "family": "family of the model",
    "layers": "layers",
    "width": "width",
    "heads": "heads",
    "parameters": "parameters",
    "vocabulary": "vocabulary, in tokens",
    "new_weights": "weights that are new",
    "trained": "trained",
    "pooling": "pooling",
    "normalize": "vectors of length one",
    "loss": "loss",
    "steps": "steps",
    "steps_per_epoch": "steps an epoch",
    "passes": "epochs",
    "tokens_per_step": "tokens a step",
    "tokens_per_epoch": "tokens an epoch",
    "tokens_per_parameter": "tokens a parameter",
    "block": "tokens a piece, at most",
    "mean_tokens": "tokens an example, mean",
    "flops": "operations (FLOP)",
    "seconds_estimated": "time, as estimated before",
    "precision": "precision",
}


def sections_of_facts(facts: Mapping[str, Any]) -> list[Section]:
    """Return sections for the data of each split, the distribution of its targets, and the
    training.
    """
    made: list[Section] = []
    splits: Splits = facts.get("splits") or {}
    if splits:
        made.append(_splits(splits, facts.get("duplicates") or {}))
        made.append(_targets(splits))
    if "documents" in facts:
        made.append(_corpus(facts))
    made.append(_run(facts))
    return made


def _cell(fact: Any) -> Cell:
    if fact is None or isinstance(fact, str | int | float):
        return fact
    if isinstance(fact, list | tuple):
        return ", ".join(str(each) for each in fact)
    return str(fact)


def _run(facts: Mapping[str, Any]) -> Table:
    """Return the table of the model and its training, followed by facts that the task itself
    reported.
    """
    shown = {name: facts[name] for name in OF_RUNS if name in facts}
    for name, fact in facts.items():
        if name not in ELSEWHERE and not isinstance(fact, Mapping):
            shown[name] = fact
    if "seconds_estimated" in shown:
        shown["seconds_estimated"] = estimate(shown["seconds_estimated"])
    rows = []
    for name, fact in shown.items():
        rows.append((OF_RUNS.get(name, name.replace("_", " ")), _cell(fact)))
    return Table("The run", ("", ""), rows)


def _splits(splits: Splits, duplicates: Splits) -> Table:
    """Return a table with one column for each split: sizes, truncation, overlap with the training
    data, and measurements of the targets.
    """
    rows: list[Sequence[Cell]] = []
    for name, words in OF_SPLITS.items():
        cells = [sizes.get(name) for sizes in splits.values()]
        if any(cell is not None for cell in cells):
            rows.append([words, *cells])
    for name, words in OF_COPIES.items() if duplicates else ():
        counts = [duplicates[split][name] if split in duplicates else "" for split in splits]
        rows.append([words, *counts])
    balances = _balances(splits)
    if not _are_counts(balances):
        rows += _by_name(balances)
    return Table("The data", ("", *splits), rows)


def _targets(splits: Splits) -> Table:
    """Return the counts of the targets in each split, most frequent first; empty if targets are
    measured rather than counted.
    """
    balances = _balances(splits)
    rows = _by_name(balances) if _are_counts(balances) else []
    rows.sort(key=lambda row: -(row[1] or 0))  # type: ignore[operator]
    more = len(rows) - MOST
    return Table(
        title="Targets",
        columns=["", *balances],
        rows=rows[:MOST],
        bar=1,
        note=f"The most frequent; {more:,} more are not listed." if more > 0 else "",
    )


def _balances(splits: Splits) -> Balances:
    """Return the result of `Task.balance` for each split."""
    return {split: sizes["balance"] for split, sizes in splits.items() if "balance" in sizes}


def _are_counts(balances: Balances) -> bool:
    """Return whether all values are counts of targets, which are comparable, rather than
    measurements of different kinds.
    """
    for balance in balances.values():
        if not all(isinstance(number, int) for number in balance.values()):
            return False
    return True


def _by_name(balances: Balances) -> list[Sequence[Cell]]:
    """Return one row for each name, in the order of the splits, with the number of each split."""
    names: dict[str, None] = {}
    for balance in balances.values():
        names |= dict.fromkeys(balance)
    rows: list[Sequence[Cell]] = []
    for name in names:
        cells = [balance.get(name) for balance in balances.values()]
        rows.append([name, *cells])
    return rows


def _corpus(facts: Mapping[str, Any]) -> Table:
    """Return the table of training and held-out documents."""
    rows: list[Sequence[Cell]] = []
    for name in OF_CORPUS:
        rows.append([name, facts.get(name), facts.get(f"dev_{name}", "")])
    return Table("The data", ("", "train", "held out"), rows)
