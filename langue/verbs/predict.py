"""What arrives: a run and texts, or a file of them. What leaves: what the task promises of each, in
order.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError, LangueError, RunError, SettingsError
from langue.files import refuse_existing
from langue.progress import bar, say
from langue.runs.model import Model, Top, load
from langue.runs.predictions import PREDICTION, Predictions, as_frame, check_format, line_of
from langue.runtime import computing
from langue.settings.recipe import display_name
from langue.text.read.source import Table
from langue.text.read.standard_input import NAME, StandardInput
from langue.text.read.table import KEPT, SPLITS
from langue.verbs.prompted_rows import check_one_given

STANDARD_INPUT = "-"
AT_ONCE = 256  # lines of standard input that are predicted together, where so many are there
# Texts encoded and predicted together, at first and at most: memory stays constant whatever the
# file's size, and what is not yet written is some seconds' work.
FIRST = 64
CHUNK = 4096
AT_WORK = 2.5  # seconds, below which more are taken next


def predict(
    run: str | Path,
    *,
    texts: Sequence[str] | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    keep: str | Sequence[str] | None = None,
    top: Top = "auto",
    batch_tokens: int | None = None,
    device: str | None = None,
    resume: bool = False,
    force: bool = False,
) -> Any:
    """Predictions as `Model.predict` gives them, one a text, in order: None for a text in which
    there is nothing. Of a data frame or an Arrow table they are one of its kind, with its index.

    texts, or data (a file, folder, Hub name, data frame or records with a `text` column; "-":
    standard input). out: write them there with the texts, or their token ids, and return an empty
    list, so that bulk work does not fill the memory: JSON lines, or CSV, TSV or Parquet where the
    name ends so. keep: other columns that are written too, or "all". resume: go on with what a
    stopped command has left of `out`. batch_tokens: of a batch; None: what suits the device.
    device: cpu, cuda or mps; None: as LANGUE_DEVICE says, or a GPU where there is one. How many
    texts have no prediction is told on stderr.
    """
    _check(texts, data, out, keep, resume, force)
    with computing(device, batch_tokens):
        if isinstance(data, str) and data == STANDARD_INPUT:
            lines = predict_lines(run, columns, top)
            if out is None:
                return [json.loads(line)[PREDICTION] for line in lines]
            with Predictions(out, {"run": str(run), "rows": None}).open() as written:
                for line in lines:
                    written.add([line])
            return []
        model = load(run, dtype="auto")
        if texts is not None:
            return _of_texts(model, list(texts), out, top)
        return _of_data(model, run, data, columns, _listed(keep), out, top, resume, force)


def _check(
    texts: Any, data: Any, out: str | Path | None, keep: Any, resume: bool, force: bool
) -> None:
    """LangueError at what cannot be, before anything is loaded."""
    check_one_given(texts, data, "text")
    if isinstance(texts, str):
        raise SettingsError("texts is one string", do="give a list: [text]")
    is_piped = isinstance(data, str) and data == STANDARD_INPUT
    if keep and (texts is not None or is_piped):
        raise SettingsError(
            "--keep names columns of --data FILE",
            do="leave it out: JSON lines of standard input keep all that they hold",
        )
    if resume and (out is None or texts is not None or is_piped):
        raise SettingsError("--resume goes on with the --out of --data FILE", do="leave it out")
    refuse_existing(out, force)
    if out is None:
        return
    check_format(out)
    if isinstance(data, (str, Path)) and Path(out).exists() and _within(Path(out), Path(data)):
        raise SettingsError(
            f"{out} is read, and --force would replace it", do="choose another --out"
        )


def _of_texts(model: Model, texts: list[Any], out: str | Path | None, top: Top) -> list[Any]:
    results = model.predict(texts, top=top)
    empty = [row for row, result in enumerate(results) if result is None]
    _tell_empty(len(empty), len(texts), f"text {empty[0] + 1}" if empty else "")
    if out is None:
        return results
    words = model.reads_words
    with Predictions(out, {"rows": len(texts)}).open() as written:
        written.add(
            [
                line_of(_as_row(text, words), result)
                for text, result in zip(texts, results, strict=True)
            ]
        )
    return []


def _of_data(
    model: Model,
    run: str | Path,
    data: Any,
    columns: Mapping[str, str] | None,
    keep: list[str],
    out: str | Path | None,
    top: Top,
    resume: bool,
    force: bool,
) -> Any:
    table = _table(model, data, columns, keep)
    if out is None:
        found = [each for part in _bulk(model, table, top) for each in part]
        kept = [_kept(row) for row, _ in found]
        return as_frame(data, kept, [prediction for _, prediction in found])
    of = {
        "run": str(run),
        "model": _stamps(model.checkpoint.folder),
        "data": display_name(data),
        "rows": len(table),
        "columns": table.rows.column_names,
        "top": top,
    }
    with Predictions(out, of).open(resume, force) as written:
        _check_rows(table, written)
        if written.done:
            say(f"going on after {written.done:,} of {len(table):,} rows")
        for part in _bulk(model, table, top, written.done):
            written.add([line_of(_named(row), prediction) for row, prediction in part])
    return []


def _table(model: Model, data: Any, columns: Mapping[str, str] | None, keep: list[str]) -> Table:
    """The rows that are predicted: of divided data, the test split."""
    source = model.read_inputs(data, columns, keep)
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
    names = [name.removeprefix(KEPT) for name in table.rows.column_names]
    written = [*names, PREDICTION]
    if twice := next((name for name in written if written.count(name) > 1), None):
        raise SettingsError(
            f"{twice!r} is kept, and what is read or predicted is written under that name",
            do="leave it out of --keep, or rename the column",
        )
    return table


def _listed(keep: str | Sequence[str] | None) -> list[str]:
    """`id,date` or a list, as a list."""
    if keep is None:
        return []
    return [part.strip() for part in keep.split(",")] if isinstance(keep, str) else list(keep)


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of a row, the columns that are kept besides what was predicted from."""
    return {name.removeprefix(KEPT): value for name, value in row.items() if name.startswith(KEPT)}


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(KEPT): value for name, value in row.items()}


def _stamps(folder: Path) -> list[list[Any]]:
    """What tells that a model's weights are those of before: each file's name, size and time."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else [folder]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _check_rows(table: Table, written: Predictions) -> None:
    """RunError where a row that was predicted is not what it is in the data now."""
    for begin in range(0, written.done, CHUNK):
        part = table.select(range(begin, min(begin + CHUNK, written.done)))
        rows = _rows(part)
        for number, (row, kept) in enumerate(zip(rows, written.kept(begin), strict=False)):
            now = json.loads(line_of(_named(row), kept[PREDICTION]))
            if now != kept:
                raise RunError(
                    "the data is not what it was when the command was stopped",
                    where=part.where(number),
                    do="put it back, or begin anew with --force",
                )


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
                yield line_of(row, prediction)
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


def _bulk(
    model: Model, table: Table, top: Top, done: int = 0
) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """(row, prediction) of a table's rows in order, from row `done` on, some seconds' work at a
    time, with a progress bar.
    """
    empty = 0
    first = ""
    size = min(FIRST, CHUNK)
    with bar("predicting", len(table)) as advance, model.inputs.counting_truncation():
        advance(done)
        while done < len(table):
            began = time.monotonic()
            part = table.select(range(done, min(done + size, len(table))))
            predictions = model.predict(model.items(part), top=top)
            for row, prediction in enumerate(predictions):
                if prediction is None:
                    first = first or part.where(row)
                    empty += 1
            yield list(zip(_rows(part), predictions, strict=True))
            advance(len(part))
            done = done + len(part)
            seconds = time.monotonic() - began
            size = min(CHUNK, 2 * size) if seconds < AT_WORK else max(1, size // 2)
    _tell_empty(empty, len(table), first)


def _rows(table: Table) -> list[dict[str, Any]]:
    columns = {name: table.column(name) for name in table.rows.column_names}
    values = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


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
