"""Prediction as a filter: takes lines of standard input; writes one JSON object per line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError, LangueError
from langue.runs.model import Model, Top, load
from langue.runs.predict_table import warn_of_empty
from langue.runs.predictions import line_of
from langue.text.read.standard_input import NAME, StandardInput

AT_ONCE = 256  # maximum number of waiting lines that are predicted together

NumberedLine = tuple[int, str]
Row = dict[str, Any]


def predict_lines(
    run: str | Path, columns: Mapping[str, str] | None = None, top: Top = "auto"
) -> Iterator[str]:
    """Yield each line of standard input as a JSON object with its prediction, in order, as soon as
    it is known.

    Lines are texts, or JSON objects if the first line is one. A line that cannot be predicted
    raises DataError after the earlier lines have been yielded.
    """
    model = load(run, dtype="auto")
    source = StandardInput()
    has_objects: bool | None = None
    empty: list[int] = []
    total = 0
    with model.inputs.counting_truncation():
        while lines := _waiting_lines(source):
            if has_objects is None:
                first_text = lines[0][1]
                has_objects = _is_object(first_text)
            for number, row, prediction in _predict(model, lines, has_objects, columns, top):
                if prediction is None:
                    empty.append(number)
                yield line_of(row, prediction)
            total += len(lines)
    first_empty = f"line {empty[0]}" if empty else ""
    warn_of_empty(len(empty), total, first_empty)


def _waiting_lines(source: StandardInput) -> list[NumberedLine]:
    """Return the next line and all lines that can be read without waiting; empty at the end."""
    found: list[NumberedLine] = []
    while len(found) < AT_ONCE and not (found and source.would_wait()):
        try:
            line = next(source, None)
        except DataError:
            if not found:
                raise
            break  # the next call raises it, after these lines
        if line is None:
            break
        found.append(line)
    return found


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _row_of(number: int, text: str, has_objects: bool) -> Row:
    if not has_objects:
        return {"text": text}
    if not _is_object(text):
        raise DataError(
            "not a JSON object, and the first line is one",
            where=f"{NAME}, line {number}",
            do="write JSON objects on all lines, or on none",
        )
    row: Row = json.loads(text)
    return row


def _predict(
    model: Model,
    lines: Sequence[NumberedLine],
    has_objects: bool,
    columns: Mapping[str, str] | None,
    top: Top,
) -> Iterator[tuple[int, Row, Any]]:
    """Yield (number, row, prediction); if a line cannot be predicted, yield the earlier ones and
    then raise DataError.
    """
    try:
        rows = [_row_of(number, text, has_objects) for number, text in lines]
        predictions = _predict_together(model, rows, has_objects, columns, top)
    except LangueError as error:
        if len(lines) == 1:
            where = f"{NAME}, line {lines[0][0]}"
            raise DataError(error.what, where=where, do=error.do) from error
        predictions = None
    if predictions is None:
        for line in lines:
            yield from _predict(model, [line], has_objects, columns, top)
        return
    for (number, _), row, prediction in zip(lines, rows, predictions, strict=True):
        yield number, row, prediction


def _predict_together(
    model: Model,
    rows: Sequence[Row],
    has_objects: bool,
    columns: Mapping[str, str] | None,
    top: Top,
) -> list[Any] | None:
    """Return the predictions; None if the rows have different keys, since in one table a key that a
    row lacks would become an empty cell.
    """
    if len({frozenset(row) for row in rows}) > 1:
        return None
    if not has_objects:
        return model.predict([row["text"] for row in rows], top=top)
    table = model.read_inputs(rows, columns).test
    return model.predict([] if table is None else model.items(table), top=top)
