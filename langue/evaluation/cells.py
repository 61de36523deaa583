"""Formatting of table cells and untrusted text, shared by HTML pages and terminals."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from langue.tasks.judgement import Cell, Table

# Control characters and lone surrogates are invalid in a page, and can control a terminal.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# the position after a joining mark and before a letter or digit
_JOINTS = re.compile(r"(?<=[_/.:|-])(?=\w)")


def visible(text: str) -> str:
    """Replace each character that cannot be displayed by U+FFFD; the length stays the same."""
    return _UNSEEN.sub("\ufffd", text)


def clipped(text: str, limit: int) -> str:
    """Truncate the text to `limit` characters and append the number of omitted characters."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def parts_of(label: str) -> list[str]:
    """Split a label at the positions where a line may break: after marks that join words."""
    return [part for part in _JOINTS.split(label) if part]


def format_cell(cell: Cell, share: bool = False) -> str:
    """Format a cell for people.

    Shares are in percent, counts with thousands separators, measurements with four significant
    digits; undefined values are a dash.
    """
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return cell
    if share:
        return f"{100 * cell:.2f}%"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.0f}" if 1000 <= abs(cell) < 1e9 else f"{cell:.4g}"


def is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def number_columns(rows: Sequence[Sequence[Cell]], width: int) -> list[bool]:
    """Return which columns contain only numbers and blanks, and are right-aligned."""
    return [
        any(is_number(row[column]) for row in rows)
        and not any(isinstance(row[column], str) and row[column] for row in rows)
        for column in range(width)
    ]


def bars(table: Table) -> list[float | None]:
    """Return the filled fraction of each row's bar, 0 to 1, or None if it has no bar.

    A share fills the bar at 1; other numbers fill it at the maximum of the column.
    """
    if table.bar is None:
        return [None] * len(table.rows)
    column = [row[table.bar] for row in table.rows]
    numbers = [
        float(cell) if isinstance(cell, int | float) and math.isfinite(cell) else None
        for cell in column
    ]
    most = max((number for number in numbers if number is not None), default=0.0)
    if table.bar in table.shares:
        most = 1.0
    if most <= 0:
        return [None] * len(numbers)
    return [None if each is None else min(1.0, max(0.0, each / most)) for each in numbers]
