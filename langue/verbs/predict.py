"""What arrives: a run and texts, or a file of them. What leaves: what the task promises of each, in
order.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError, LangueError, RunError, SettingsError
from langue.files import atomic_file, refuse_existing
from langue.progress import bar, say
from langue.runs.model import Model, Top, load
from langue.settings.recipe import display_name
from langue.text.read.parse import is_missing, replace_lone_surrogates
from langue.text.read.source import Table
from langue.text.read.standard_input import NAME, StandardInput
from langue.text.read.table import SPLITS

STANDARD_INPUT = "-"
AT_ONCE = 256  # lines of standard input that are predicted together, where so many are there
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

    texts, or data (a file, folder or Hub name with a `text` column; "-": standard input). out:
    write JSON lines there, each with the text, or its token ids, and its prediction, and return
    nothing but an empty list: bulk work does not fill the memory. How many texts have no prediction
    is told on stderr.
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
    if isinstance(data, str) and data == STANDARD_INPUT:
        predicted = predict_lines(run, columns, top)
        if out is None:
            return [json.loads(line)["prediction"] for line in predicted]
        with atomic_file(Path(out)) as temporary, temporary.open("w", encoding="utf-8") as handle:
            handle.writelines(f"{line}\n" for line in predicted)
        return []
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


def predict_lines(
    run: str | Path, columns: Mapping[str, str] | None = None, top: Top = "auto"
) -> Iterator[str]:
    """A filter: each line of standard input as a JSON object with its prediction, in order, as soon
    as it is known. Lines are texts, or JSON objects where the first one is. DataError with the line
    that cannot be predicted, after those before it.
    """
    model = load(run, dtype="auto")
    source = StandardInput()
    has_objects: bool | None = None
    empty: list[int] = []
    total = 0
    with model.inputs.counting_truncation():
        while lines := _lines_there(source):
            if has_objects is None:
                has_objects = _is_object(lines[0][1])
            for number, row, prediction in _predicted(model, lines, has_objects, columns, top):
                if prediction is None:
                    empty.append(number)
                yield _line(row, prediction).removesuffix("\n")
            total += len(lines)
    _tell_empty(len(empty), total, f"line {empty[0]}" if empty else "")


def _lines_there(source: StandardInput) -> list[tuple[int, str]]:
    """The next line, and those that are there already, (number, text) each; none at the end."""
    found: list[tuple[int, str]] = []
    while len(found) < AT_ONCE and not (found and source.would_wait()):
        try:
            line = next(source, None)
        except DataError:  # for the next call, after these
            if not found:
                raise
            break
        if line is None:
            break
        found.append(line)
    return found


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _row_of(number: int, text: str, has_objects: bool) -> dict[str, Any]:
    if not has_objects:
        return {"text": text}
    if not _is_object(text):
        raise DataError(
            "not a JSON object, and the first line is one",
            where=f"{NAME}, line {number}",
            do="write JSON objects on all lines, or on none",
        )
    found: dict[str, Any] = json.loads(text)
    return found


def _predicted(
    model: Model,
    lines: Sequence[tuple[int, str]],
    has_objects: bool,
    columns: Mapping[str, str] | None,
    top: Top,
) -> Iterator[tuple[int, dict[str, Any], Any]]:
    """(number, row, prediction); where one of them cannot be predicted, those before it, and then
    the DataError.
    """
    try:
        rows = [_row_of(number, text, has_objects) for number, text in lines]
        predictions = _predicted_together(model, rows, has_objects, columns, top)
    except LangueError as error:
        if len(lines) == 1:
            where = f"{NAME}, line {lines[0][0]}"
            raise DataError(error.what, where=where, do=error.do) from error
        predictions = None
    if predictions is None:
        for line in lines:
            yield from _predicted(model, [line], has_objects, columns, top)
        return
    for (number, _), row, prediction in zip(lines, rows, predictions, strict=True):
        yield number, row, prediction


def _predicted_together(
    model: Model,
    rows: Sequence[dict[str, Any]],
    has_objects: bool,
    columns: Mapping[str, str] | None,
    top: Top,
) -> list[Any] | None:
    """None: they have different keys, and in a table what one lacks would be there and empty."""
    if len({frozenset(row) for row in rows}) > 1:
        return None
    if not has_objects:
        return model.predict([row["text"] for row in rows], top=top)
    table = model.read_inputs(rows, columns).test
    return model.predict([] if table is None else model.items(table), top=top)


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
