"""Numbers as people write them in tables, and their values.

This is the grammar; everything else is refused:

    number   = [sign] digits [point digits] [("e" | "E") [sign] digits] [blank] ["%"]
    digits   = any number of digits; or groups of three, separated by the mark that is not the point
    sign     = "+" | "-" | U+2212, the minus sign

The decimal point is a full stop, and groups are separated by commas: `1100.5`, `1,100.5`. If
semicolons separate the columns of a file, as programs with decimal commas write it, a comma is a
decimal point: `1,5` is one and a half, and in `1,100.5` and `1.100,5` the last mark is the point. A
per cent is a hundredth.
"""

import re
from typing import Any

_EXPONENT = r"(?:[eE][+-]?\d+)?"
_PLAIN = re.compile(rf"[+-]?(?:\d+(?:\.\d*)?|\.\d+){_EXPONENT}")
_GROUPED = re.compile(rf"[+-]?\d{{1,3}}(?:,\d{{3}})+(?:\.\d*)?{_EXPONENT}")
_SWAPPED = str.maketrans(",.", ".,")


def value_of(written: Any, decimal_comma: bool = False) -> float | None:
    """The number, or None for what is none: no word, no truth value, no infinity. decimal_comma:
    whether it stands in a file where a comma is a point.
    """
    if isinstance(written, bool) or written is None:
        return None
    if not isinstance(written, str):
        try:
            return float(written)
        except (TypeError, ValueError):
            return None
    text = written.strip().replace("\N{MINUS SIGN}", "-")
    share = text.endswith("%")
    text = text.removesuffix("%").rstrip()
    number = _read(text, decimal_comma)
    if number is None:
        return None
    return number / 100 if share else number


def _read(text: str, decimal_comma: bool) -> float | None:
    if decimal_comma and text.rfind(",") > text.rfind("."):
        text = text.translate(_SWAPPED)
    if _PLAIN.fullmatch(text):
        return float(text)
    if _GROUPED.fullmatch(text):
        return float(text.replace(",", ""))
    return None
