"""What arrives: a file, a folder of train/dev/test files, or a data set of the Hub. What leaves:
its rows as they are, with all their columns, split by split.
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
    """Rows of one split, and where each stands."""

    values: list[dict[str, Any]]
    where: list[str]

    def __len__(self) -> int:
        return len(self.values)


def read_rows(data: str | Path) -> dict[str, Rows]:
    """The rows of each split; those of a file that is not of one alone under "all".

    Splits are called train, dev and test, whatever their files or the Hub call them; others keep
    their names.
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
    """The rows of files, one after the other; DataError where there are none."""
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
