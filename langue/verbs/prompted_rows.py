"""Apply a model to texts or to the rows of a file, in order; return the answers, or write them to a
file with their rows.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from langue.errors import DataError, SettingsError
from langue.files import atomic_file, refuse_existing
from langue.progress import bar
from langue.text.read.parse import repair
from langue.text.read.rows import read_rows

CHUNK = 1024  # rows that are processed together, so that memory does not grow with the file
Rows = list[dict[str, Any]]


def check_one_given(texts: Any, data: Any, option: str) -> None:
    """Raise SettingsError unless exactly one of texts and data is given."""
    if texts is None and data is None:
        raise SettingsError(
            f"neither --{option} nor --data is given", do=f'give --{option} "..." or --data FILE'
        )
    if texts is not None and data is not None:
        raise SettingsError(f"--{option} and --data are given together", do="leave one of them out")


def each_row(
    work: Callable[[Rows], list[Any]],
    texts: Sequence[str] | None,
    data: Any,
    out: str | Path | None,
    *,
    column: str,
    columns: Mapping[str, str] | None = None,
    need_text: str | None = None,
    need_list: str | None = None,
    force: bool = False,
) -> list[Any]:
    """Return the answers of `work` to all rows, one for each.

    column: the name of the text in a row. columns: our names -> names in the data. need_text:
    another column that must be a text. need_list: one that must be a list. out: a file for the rows
    with their answers, one JSON object per line; the result is then an empty list.
    """
    check_one_given(texts, data, column)
    if isinstance(texts, str):
        raise SettingsError(f"{column}s is one string", do=f"give a list: [{column}]")
    refuse_existing(out, force)
    rows = [{column: text} for text in texts or ()]
    if data is not None:
        texts_of = [column] if need_text is None else [column, need_text]
        rows = _read(data, texts_of, columns or {}, need_list)
    answers: list[Any] = []
    with ExitStack() as stack:
        handle = None
        if out is not None:
            temporary = stack.enter_context(atomic_file(Path(out)))
            handle = stack.enter_context(temporary.open("w", encoding="utf-8"))
        advance = stack.enter_context(bar("rows", len(rows))) if data is not None else None
        for begin in range(0, len(rows), CHUNK):
            part = rows[begin : begin + CHUNK]
            found = work(part)
            if handle is None:
                answers += found
            else:
                lines = zip(part, found, strict=True)
                handle.writelines(_line(row, answer) for row, answer in lines)
            if advance is not None:
                advance(len(part))
    return answers


def _line(row: Mapping[str, Any], answer: Any) -> str:
    whole = repair({**row, "prediction": answer})
    return json.dumps(whole, ensure_ascii=False, default=str) + "\n"


def _read(
    data: Any, texts: Sequence[str], columns: Mapping[str, str], need_list: str | None
) -> Rows:
    """Return the rows of a file, or of the test split of several; each of these columns must have a
    text.
    """
    splits = read_rows(data)
    chosen = next((name for name in ("all", "test", "dev", "train") if name in splits), None)
    if chosen is None:
        raise DataError(
            f"there is no split test, dev or train, but {', '.join(splits)}",
            where=str(data),
            do="name one file",
        )
    found = splits[chosen]
    rows = []
    for values, where in zip(found.values, found.where, strict=True):
        renamed = {ours: values[theirs] for ours, theirs in columns.items() if theirs in values}
        row = {**values, **renamed}
        for column in texts:
            if not isinstance(row.get(column), str) or not row[column].strip():
                there = ", ".join(map(str, values))
                raise DataError(
                    f"there is no text in {column!r}; the row has {there}",
                    where=where,
                    do=f"fill it in, or say which column it is with --columns {column}=NAME",
                )
        if need_list is not None and not isinstance(row.get(need_list), list):
            raise DataError(
                f"there is no list in {need_list!r}",
                where=where,
                do=f"write a list, or give --{need_list.removesuffix('s')} for all rows",
            )
        rows.append(row)
    return rows
