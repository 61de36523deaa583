"""Rows of a task file: takes a task file, and optionally other data than it names; returns the rows
to evaluate, and those from which few-shot examples are drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.evaluation.task_file import TaskFile
from langue.evaluation.task_prompts import Row
from langue.text.read.open import ALIASES
from langue.text.read.rows import Rows, read_files, read_rows

FORMATS = ("json", "csv", "text", "parquet")  # values of dataset_path that only go with data_files
ALL = "all"


@dataclass(frozen=True)
class TaskRows:
    """The rows of an evaluation."""

    rows: list[Row]
    pool: list[Row]  # the rows from which examples are drawn
    same: bool  # the pool may contain the evaluated row itself
    split: str
    columns: list[str]
    notes: list[str] = field(default_factory=list)


def task_rows(
    task: TaskFile,
    data: Any,
    columns: Mapping[str, str],
    limit: int | None,
    few_shot: int,
) -> TaskRows:
    """Return the rows of a task file.

    columns: names in the task file -> names in the data. limit: only the first rows.
    """
    splits = _splits(task, data)
    named = task.test_split or task.validation_split
    split = _found(named, splits) or next(
        (name for name in ("test", "dev", ALL) if name in splits and not named), None
    )
    split = ALL if split is None and set(splits) == {ALL} else split
    if split is None:
        raise DataError(
            f"there is no split {named or 'test or dev'!r}; there are {', '.join(splits)}",
            where=task.file,
            do="write test_split: NAME, or name one file with --data",
        )
    asked = _renamed(splits[split], columns)
    notes: list[str] = []
    pool: list[Row] = []
    same = False
    if few_shot and task.fewshot.samples is not None:
        samples = [dict(each) for each in task.fewshot.samples]
        pool = [Row(each, f"{task.file}: sample {n}") for n, each in enumerate(samples, 1)]
        same = task.fewshot.split == task.test_split and len(pool) > few_shot
    elif few_shot:
        order = (task.fewshot.split, task.training_split, task.validation_split, task.test_split)
        first = next((name for name in order if name), None)
        chosen = _found(first, splits) or split
        pool = asked if chosen == split else _renamed(splits[chosen], columns)
        # the reference implementation draws one more if it cannot tell
        same = chosen == split or task.fewshot.split == task.test_split
        if chosen == split:
            notes.append(
                "examples are drawn from the rows that are asked, never the row itself; name a"
                " fewshot_split to draw from others"
            )
    there: dict[str, None] = {}
    for row in asked:
        there |= dict.fromkeys(row.values)
    shown = split
    if split == ALL:
        shown = str(task.dataset_path if data is None else data)
    return TaskRows(asked[:limit], pool, same, shown, list(there), notes)


def _found(name: str | None, splits: Mapping[str, Rows]) -> str | None:
    """Return the split with this name, in langue's spelling or the data's."""
    if name is None:
        return None
    return next((each for each in (name, ALIASES.get(name, name)) if each in splits), None)


def _splits(task: TaskFile, data: Any) -> dict[str, Rows]:
    if data is not None:
        if not isinstance(data, str | Path):
            values = [dict(each) for each in data]
            where = [f"row {number}" for number in range(1, len(values) + 1)]
            return {ALL: Rows(values, where)}
        return read_rows(data)
    files = task.dataset_kwargs.get("data_files")
    if task.dataset_path is None and files is None:
        raise DataError("the file names no data", where=task.file, do="name it with --data FILE")
    if files is not None:
        by_split = files if isinstance(files, dict) else {ALL: files}
        return {
            ALIASES.get(name, name): read_files(_files(task, each))
            for name, each in by_split.items()
        }
    assert task.dataset_path is not None
    if task.dataset_path in FORMATS:
        raise DataError(
            f"dataset_path is {task.dataset_path}, and dataset_kwargs names no data_files",
            where=task.file,
            do="write dataset_kwargs: {data_files: {test: FILE}}, or give --data FILE",
        )
    beside = Path(task.file).parent / task.dataset_path
    if beside.exists() and not Path(task.dataset_path).exists():
        return read_rows(beside)
    named = f":{task.dataset_name}" if task.dataset_name else ""
    return read_rows(f"{task.dataset_path}{named}")


def _files(task: TaskFile, named: Any) -> list[Path]:
    """Return named files, relative to the working directory or to the task file."""
    names = [named] if isinstance(named, str) else named
    if not (isinstance(names, list) and names and all(isinstance(each, str) for each in names)):
        raise DataError(
            f"data_files has {named!r}, no name of a file", where=task.file, do="name files"
        )
    found = []
    for name in names:
        here = Path(name).expanduser()
        beside = Path(task.file).parent / name
        found.append(beside if beside.exists() and not here.exists() else here)
    return found


def _renamed(rows: Rows, columns: Mapping[str, str]) -> list[Row]:
    """Return rows with the column names of the task file."""
    missing: Sequence[str] = [
        theirs for theirs in columns.values() if all(theirs not in row for row in rows.values)
    ]
    if missing:
        there = ", ".join(map(str, rows.values[0]))
        raise DataError(
            f"--columns names {missing[0]!r}, and the columns are {there}",
            where=rows.where[0],
            do="name one of these",
        )
    made = []
    for values, where in zip(rows.values, rows.where, strict=True):
        renamed = {ours: values[theirs] for ours, theirs in columns.items() if theirs in values}
        made.append(Row({**values, **renamed}, where))
    return made
