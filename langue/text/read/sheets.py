"""Reads the rows of the first sheet of an Excel workbook (.xlsx) as records.

It uses the package `openpyxl`, which the extra `excel` installs.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.text.read.form import Form, Heard, Record
from langue.text.read.separated import named

LARGEST = 1 << 31  # maximum unpacked size in bytes: every table that Excel can hold is smaller


def of_sheet(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise DataError(
            "reading .xlsx needs the package openpyxl",
            where=where,
            do='pip install "langue[excel]", or save the sheet as CSV in UTF-8',
        ) from None
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
        if size > LARGEST:
            raise DataError(
                f"it unpacks to {size:,} bytes, more than any sheet needs",
                where=where,
                do="save the sheet as CSV in UTF-8",
            )
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"not a readable workbook: {error}", where=where, do="save the sheet as CSV in UTF-8"
        ) from None
    first, *others = book.sheetnames
    if others:
        heard(f"{where}: its first sheet, {first}, is read, and not {', '.join(others)}")
    return named(_rows(book[first]), where, heard, form, unit="row")


def _rows(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield (number, cells) of each nonempty row, padded to the width of the first."""
    width = 0
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        row = list(cells)
        while row and row[-1] is None:
            row.pop()
        if not row:
            continue
        width = width or len(row)
        yield number, row + [None] * (width - len(row))
