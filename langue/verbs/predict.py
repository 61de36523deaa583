"""What arrives: a run and texts, or a file of them. What leaves: what the task promises of each, in
order.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import RunError, SettingsError
from langue.files import atomic_file, refuse_existing
from langue.progress import bar, say
from langue.runs.model import Model, Top, load
from langue.settings.recipe import display_name
from langue.text.read.parse import is_missing, replace_lone_surrogates
from langue.text.read.source import Table
from langue.text.read.table import SPLITS

CHUNK = 4096  # texts encoded and predicted together: memory stays constant whatever the file's size


def predict(
    run: str | Path,
    *,
    texts: Sequence[str] | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    top: Top = "auto",
    force: bool = False,
) -> list[Any]:
    """Predictions as `Model.predict` gives them, one a text, in order: None for a text in which
    there is nothing.

    texts, or data (a file, folder or Hub name with a `text` column). out: write JSON lines there,
    each with the text, or its token ids, and its prediction, and return nothing but an empty list:
    bulk work does not fill the memory. How many texts have no prediction is told on stderr.
    """
    if (texts is None) == (data is None):
        raise SettingsError(
            "predict needs either texts or data", do='give --text "..." or --data FILE'
        )
    if isinstance(texts, str):
        raise SettingsError("texts is one string", do="give a list: [text]")
    refuse_existing(out, force)
    if (
        out is not None
        and isinstance(data, (str, Path))
        and Path(out).exists()
        and _within(Path(out), Path(data))
    ):
        raise SettingsError(
            f"{out} is read, and --force would replace it", do="choose another --out"
        )
    model = load(run, dtype="auto")
    if texts is not None:
        texts = list(texts)
        results = model.predict(texts, top=top)
        words = model.reads_words
        empty = [row for row, result in enumerate(results) if result is None]
        _tell_empty(len(empty), len(texts), f"text {empty[0] + 1}" if empty else "")
        if out is not None:
            with atomic_file(Path(out)) as temporary:
                lines = [
                    _line(_as_row(text, words), result)
                    for text, result in zip(texts, results, strict=True)
                ]
                temporary.write_text("".join(lines), "utf-8")
        return [] if out is not None else results
    source = model.read_inputs(data, columns)
    table = source.test or source.train or source.dev
    if table is None:
        raise RunError(
            "there is nothing to predict",
            where=display_name(data),
            do="give a file with a text column",
        )
    if left := [name for name in SPLITS if getattr(source, name) not in (None, table)]:
        say(
            f"predicting the {len(table):,} rows of {table.origin}, not those of"
            f" {' and '.join(left)}"
        )
    if out is None:
        return [result for part in _bulk(model, table, top) for _, result in part]
    with atomic_file(Path(out)) as temporary, temporary.open("w", encoding="utf-8") as handle:
        for part in _bulk(model, table, top):
            handle.writelines(_line(row, result) for row, result in part)
    return []


def _within(file: Path, data: Path) -> bool:
    """Whether it is the data, or lies in the folder that is."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(data))


def _tell_empty(count: int, of: int, first: str) -> None:
    """Say how many texts have no prediction, and where the first of them stands."""
    if count:
        hint = (
            "; is it the right column? --columns text=NAME says which it is"
            if count == of > 1
            else ""
        )
        say(
            f"{count:,} of {of:,} texts have nothing in them and no prediction, the first:"
            f" {first}{hint}"
        )


def _bulk(model: Model, table: Table, top: Top) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """(row, prediction) of a table's rows in order, a chunk at a time, with a progress bar."""
    empty = 0
    first = ""
    with bar("predicting", len(table)) as advance, model.inputs.counting_truncation():
        for begin in range(0, len(table), CHUNK):
            part = table.select(range(begin, min(begin + CHUNK, len(table))))
            items = model.items(part)
            predictions = model.predict(items, top=top)
            for row, prediction in enumerate(predictions):
                if prediction is None:
                    first = first or part.where(row)
                    empty += 1
            columns = {name: part.column(name) for name in part.rows.column_names}
            values = zip(*columns.values(), strict=True)
            rows = [dict(zip(columns, row, strict=True)) for row in values]
            yield list(zip(rows, predictions, strict=True))
            advance(len(part))
    _tell_empty(empty, len(table), first)


def _as_row(item: Any, words: bool) -> dict[str, Any]:
    """What a user has given to predict from, by the names of columns. words: a list is one of
    words, or else a pair of texts or token ids.
    """
    if isinstance(item, Mapping):
        return dict(item)
    if item is None or isinstance(item, (str, float)):
        return {"text": item}
    if words:
        return {"tokens": list(item)}
    if len(item) == 2 and any(each is None or isinstance(each, (str, float)) for each in item):
        return {"text": item[0], "pair": item[1]}
    return {"tokens": [int(each) for each in item]}


def _sound(value: Any) -> Any:
    """A value as JSON has it: null for a text that there is not."""
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    return None if isinstance(value, float) and is_missing(value) else value


def _line(row: Mapping[str, Any], prediction: Any) -> str:
    written = {name: _sound(value) for name, value in row.items()}
    return json.dumps({**written, "prediction": prediction}, ensure_ascii=False) + "\n"
