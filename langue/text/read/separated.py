"""Parses fields separated by commas, semicolons, tabs or vertical bars, or the cells of a sheet,
into records `(line, {column: value})`.

The first line is the header, unless columns are requested by number: then every line is a row, and
the columns are called "1", "2" and so on.
"""

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.text.read.form import Form, Heard, Record
from langue.text.read.lines import lines

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_EXCEL = re.compile(r"sep=(.)\r?", re.IGNORECASE)  # the first line of files written for Excel


def of_csv(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    told = None
    header = ""
    for number, line in lines(path, where, encoding=form.encoding):
        told = _EXCEL.fullmatch(line) if number == 1 else told
        if line.strip() and not (told and number == 1):
            header = line
            break
    # quoted text does not contain separators
    header = re.sub(r'"(?:[^"]|"")*"', "", header)
    separator = told[1] if told else max(SEPARATORS, key=header.count)
    if separator != ",":
        heard(f"{where}: its columns are separated by {SEPARATORS.get(separator, repr(separator))}")
    heard.decimal_comma = separator == ";"
    blanks = not form.numbers and f"{separator} " in header
    if blanks:
        heard(f"{where}: blanks after a separator are no part of a field, as in its header")
    quoting = csv.QUOTE_MINIMAL
    return _separated(path, where, heard, form, separator, quoting, blanks, bool(told))


def of_tsv(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    quoting = csv.QUOTE_MINIMAL
    if _plain_quotes(path, where, form):
        quoting = csv.QUOTE_NONE
        heard(f"{where}: its quotation marks are read as ordinary characters")
    return _separated(path, where, heard, form, "\t", quoting)


def _plain_quotes(path: Path, where: str, form: Form) -> bool:
    """Return whether a TSV file uses quotation marks as ordinary characters.

    That is so if some field begins with a quotation mark that does not close it, and no field needs
    quoting, since every line has as many fields as the first. Read as quoted, rows would be merged;
    where the bytes are ambiguous, merging rows is the worse mistake.
    """
    width = 0
    stray = False
    for _, line in lines(path, where, encoding=form.encoding):
        fields = line.rstrip("\r").split("\t")
        width = width or len(fields)
        if len(fields) != width and line.strip():
            return False
        stray = stray or any(
            f.startswith('"') and not re.fullmatch(r'"(?:[^"]|"")*"', f) for f in fields if f
        )
    return stray


def _separated(
    path: Path,
    where: str,
    heard: Heard,
    form: Form,
    separator: str,
    quoting: int,
    blanks: bool = False,
    skips_first: bool = False,
) -> Iterator[Record]:
    numbered = lines(path, where, encoding=form.encoding)
    if skips_first:
        next(numbered)
    source = (line + "\n" for _, line in numbered)
    dialect: dict[str, Any] = {
        "delimiter": separator,
        "quoting": quoting,
        "skipinitialspace": blanks,
    }
    reader = csv.reader(source, strict=True, **dialect)
    return named(_rows(reader, where, 1 + skips_first), where, heard, form)


def _rows(reader: Any, where: str, begin: int) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which it begins, fields) of each row."""
    skipped = begin - 1
    try:
        while (fields := _next_row(reader)) is not None:
            yield begin, fields
            begin = skipped + reader.line_num + 1
    except csv.Error as error:
        what = str(error)
        do = 'write a quotation mark inside a quoted field twice: ""'
        if "unexpected end" in what:
            what = "a quotation mark is never closed"
        elif "new-line character" in what:
            what = "a carriage return stands outside quotation marks"
            do = "quote the field, or end lines with line feeds"
        raise DataError(what, where=f"{where}, line {begin}", do=do) from None


def _next_row(reader: Any) -> list[str] | None:
    """Return the next row, however long its fields.

    The limit is a setting of the whole process, so it is restored at once.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def named(
    rows: Iterable[tuple[int, Sequence[Any]]],
    where: str,
    heard: Heard,
    form: Form,
    unit: str = "line",
) -> Iterator[Record]:
    """Yield the records of numbered rows of fields.

    Rows that repeat the header, as in concatenated files, are left out with a note.
    """
    header: list[str] | None = None
    # blank lines of a file with one column: each is an empty cell, except at the end
    blank: list[int] = []
    repeated: list[int] = []
    for number, fields in rows:
        if header is None and fields:
            header, is_row = _header(fields, f"{where}, {unit} {number}", form)
            if form.numbers:
                what = "a row: it is read without a header" if is_row else "its header, of numbers"
                heard(f"{where}: its first {unit} is {what}")
            if is_row:
                yield number, dict(zip(header, fields, strict=True))
        elif header is not None and len(header) == 1 and not fields:
            blank.append(number)
        elif header is not None and len(header) > 1 and _names(fields) == header:
            repeated.append(number)
        elif header is not None and len(fields) == len(header):
            yield from ((line, {header[0]: ""}) for line in blank)
            blank = []
            yield number, dict(zip(header, fields, strict=True))
        elif header is not None and any(str(field).strip() for field in fields):
            raise DataError(
                f"{len(fields)} fields where the header has {len(header)}",
                where=f"{where}, {unit} {number}",
                do="put quotation marks around fields that hold the separator or a line break",
            )
    if repeated:
        heard(
            f"{where}: its header stands in it again, {len(repeated):,} times, first in {unit}"
            f" {repeated[0]}, and is no row"
        )


def _header(fields: Sequence[Any], where: str, form: Form) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the fields are a row nonetheless.

    They are a row if columns are requested by number and the header does not have these names.
    """
    header = _names(fields)
    if form.numbers and not form.numbers.issubset(header):
        return [str(number) for number in range(1, len(fields) + 1)], True
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice:
        raise DataError(
            f"the header names {twice[0]!r} twice", where=where, do="give each column its own name"
        )
    return header, False


def _names(fields: Sequence[Any]) -> list[str]:
    """Return the fields as column names, without a byte order mark."""
    return ["" if each is None else str(each).removeprefix("\ufeff").strip() for each in fields]
