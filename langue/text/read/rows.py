"""Reads a file, a folder of train/dev/test files, or a Hub data set as rows by split, unchanged and
with all columns.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.progress import say
from langue.text.read.open import ALIASES, check_kind, exists, expanded, load_hub, split_of
from langue.text.read.parse import KINDS, Heard, batches, kind, parquet, records


@dataclass(frozen=True)
class Rows:
    """The rows of one split, and the location of each."""

    values: list[dict[str, Any]]
    where: list[str]

    def __len__(self) -> int:
        return len(self.values)


def read_rows(data: str | Path) -> dict[str, Rows]:
    """Return the rows of each split; those of a single file are under "all".

    Splits are called train, dev and test, whatever their names in files or on the Hub; other splits
    keep their names.
    """
    path = expanded(data)
    if not exists(path):
        splits: Mapping[Any, Any] = load_hub(str(data))
        return {
            ALIASES.get(str(name), str(name)): _of_hub(rows, f"{data}:{name}")
            for name, rows in splits.items()
        }
    if not path.is_dir():
        return {"all": read_files([path])}
    files = sorted(each for each in path.iterdir() if kind(each) in KINDS and each.is_file())
    by_split: dict[str, list[Path]] = {}
    for file in files:
        if split := split_of(file):
            by_split.setdefault(split, []).append(file)
    if not by_split:
        raise DataError(
            "no train, dev or test file in the folder",
            where=str(path),
            do="name one of its files, or call them train.jsonl, dev.jsonl, test.jsonl",
        )
    return {split: read_files(those) for split, those in by_split.items()}


def read_files(files: list[Path]) -> Rows:
    """Return the concatenated rows of files; raise DataError if there are none."""
    values = []
    where = []
    for file in files:
        for place, row in _of_file(file):
            values.append(row)
            where.append(place)
    if not values:
        raise DataError("there are no rows in it", where=str(files[0]), do="fill it")
    return Rows(values, where)


def _of_file(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    name = str(file)
    check_kind(file)
    if not file.is_file():
        raise DataError("there is no such file", where=name, do="name a file that is there")
    if kind(file) == ".parquet":
        opened = parquet(file, name)
        number = 0
        for batch in batches(opened, opened.schema_arrow.names, name):
            for row in batch.to_pylist():
                number += 1
                yield f"{name}, row {number}", row
        return
    unit = "row" if kind(file) == ".json" else "line"
    heard = Heard()
    for number, row in records(file, name, heard):
        yield f"{name}, {unit} {number}", row
    for note in heard.notes:
        say(note)


def _of_hub(rows: Any, name: str) -> Rows:
    values = list(rows)
    return Rows(values, [f"{name}, row {number}" for number in range(1, len(values) + 1)])
