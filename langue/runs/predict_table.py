"""Prediction for the rows of a table, in chunks of bounded size."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from langue.errors import RunError, SettingsError
from langue.progress import bar, say
from langue.runs.model import Model, Top
from langue.runs.predictions import PREDICTION, Predictions, line_of
from langue.settings.recipe import display_name
from langue.text.read.source import Table
from langue.text.read.table import KEPT, SPLITS

# Rows predicted together, at first and at most. Memory thus does not grow with the file, and an
# interruption loses a few seconds of work.
FIRST = 64
CHUNK = 4096
SECONDS = 2.5  # chunks that take less are doubled in size, others halved

Row = dict[str, Any]


def read_table(
    model: Model, data: Any, columns: Mapping[str, str] | None, keep: list[str]
) -> Table:
    """Return the rows to predict; of data with splits, the test split.

    keep: other columns to write.
    """
    source = model.read_inputs(data, columns, keep)
    table = source.test or source.train or source.dev
    if table is None:
        raise RunError(
            "there is nothing to predict",
            where=display_name(data),
            do="give a file with a text column",
        )
    ignored = [name for name in SPLITS if getattr(source, name) not in (None, table)]
    if ignored:
        others = " and ".join(ignored)
        say(f"predicting the {len(table):,} rows of {table.origin}, not those of {others}")
    names = [name.removeprefix(KEPT) for name in table.rows.column_names]
    written = [*names, PREDICTION]
    repeated = [name for name in written if written.count(name) > 1]
    if repeated:
        raise SettingsError(
            f"{repeated[0]!r} is kept, and what is read or predicted is written under that name",
            do="leave it out of --keep, or rename the column",
        )
    return table


def predict_chunks(
    model: Model, table: Table, top: Top, done: int = 0
) -> Iterator[list[tuple[Row, Any]]]:
    """Yield lists of (row, prediction) in the table's order, from row `done` on, with a progress
    bar. Names of kept columns still start with KEPT.
    """
    empty = 0
    first_empty = ""
    size = min(FIRST, CHUNK)
    with bar("predicting", len(table)) as advance, model.inputs.counting_truncation():
        advance(done)
        while done < len(table):
            began = time.monotonic()
            end = min(done + size, len(table))
            chunk = table.select(range(done, end))
            predictions = model.predict(model.items(chunk), top=top)
            for row, prediction in enumerate(predictions):
                if prediction is None:
                    first_empty = first_empty or chunk.where(row)
                    empty += 1
            yield list(zip(_rows(chunk), predictions, strict=True))
            advance(len(chunk))
            done = end
            seconds = time.monotonic() - began
            size = min(CHUNK, 2 * size) if seconds < SECONDS else max(1, size // 2)
    warn_of_empty(empty, len(table), first_empty)


def check_unchanged(table: Table, written: Predictions) -> None:
    """Raise RunError if the data has changed in a row that was already predicted."""
    for begin in range(0, written.done, CHUNK):
        end = min(begin + CHUNK, written.done)
        chunk = table.select(range(begin, end))
        # `kept` continues beyond this chunk
        pairs = zip(_rows(chunk), written.kept(begin), strict=False)
        for number, (row, kept) in enumerate(pairs):
            now = json.loads(line_of(written_row(row), kept[PREDICTION]))
            if now != kept:
                raise RunError(
                    "the data is not what it was when the command was stopped",
                    where=chunk.where(number),
                    do="put it back, or begin anew with --force",
                )


def kept_columns(row: Mapping[str, Any]) -> Row:
    """Return the kept columns of a row, which the prediction does not use."""
    return {name.removeprefix(KEPT): value for name, value in row.items() if name.startswith(KEPT)}


def written_row(row: Mapping[str, Any]) -> Row:
    """Return all columns of a row, under the names that are written."""
    return {name.removeprefix(KEPT): value for name, value in row.items()}


def fingerprint(folder: Path) -> list[list[Any]]:
    """Return name, size and modification time of each weights file, to detect a changed model."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder]
    found = []
    for file in files:
        facts = file.stat()
        found.append([file.name, facts.st_size, facts.st_mtime_ns])
    return found


def warn_of_empty(count: int, total: int, first: str) -> None:
    """Report how many texts have no prediction; first: location of the first of them."""
    if not count:
        return
    hint = ""
    if count == total > 1:
        hint = "; is it the right column? --columns text=NAME says which it is"
    say(
        f"{count:,} of {total:,} texts have nothing in them and no prediction, the first:"
        f" {first}{hint}"
    )


def _rows(table: Table) -> list[Row]:
    columns = {name: table.column(name) for name in table.rows.column_names}
    values = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
