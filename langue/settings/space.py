"""Parse the settings of a search, which may be ranges and lists, into the search space and the
fixed settings.

    train.lr=1e-5..1e-3           a range, including both ends; sampled logarithmically if both
                                  are positive and the upper is at least 10 times the lower
    train.lr=1e-5..1e-3:linear    sampled uniformly; :log requests logarithmic sampling
    train.batch_tokens=2048,4096  a list: one of these values
    train.betas=[0.9,0.95],[0.9,0.999]   for a setting of several numbers, each choice in brackets
    train.epochs=2                one value, for all trials
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langue.errors import SettingsError
from langue.settings.aliases import RENAMED

RATIO = 10  # ratio of the ends from which on a range is sampled logarithmically
_RANGE = re.compile(r"\s*(\S+?)\s*\.\.\s*([^\s:]+)\s*(?::\s*(\w+)\s*)?")
_GROUPS = re.compile(r"[\[(][^\[\]()]*[\])](\s*,\s*[\[(][^\[\]()]*[\])])+")
# Settings that determine how trials are compared.
FIXED = {
    "train.best": "trials are compared in one metric",
    "train.seed": "a trial would be chosen for its luck; --seeds N gives each trial N seeds",
    **dict.fromkeys(
        (
            "data.dev_fraction",
            "data.folds",
            "data.fold",
            "data.test_fraction",
            "data.dev_max",
            "data.conflicts",
            "data.decimal_comma",
            "data.encoding",
            "data.invalid",
            "data.seed",
        ),
        "trials are compared on the same dev rows",
    ),
}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, inclusive."""

    low: float
    high: float
    log: bool
    whole: bool

    def __str__(self) -> str:
        usual = self.low > 0 and self.high / self.low >= RATIO
        said = "" if self.log == usual else ":log" if self.log else ":linear"
        return f"{_number(self.low)}..{_number(self.high)}{said}"

    @property
    def tried(self) -> list[str]:
        """Return values that must be valid if all are."""
        return [_number(self.low), _number(self.high)]


@dataclass(frozen=True)
class Choice:
    """One of several values, in written form."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.values)

    @property
    def tried(self) -> list[str]:
        return list(self.values)


Space = dict[str, Range | Choice]


def parse_space(
    words: Mapping[str, Any], fields: Mapping[str, Any]
) -> tuple[Space, dict[str, Any]]:
    """Return the settings that are searched, and those that are fixed.

    fields: the field of every setting, from `known`. Unknown keys are left for `resolve` to refuse.
    In Python, a list of values may also be a list. Raises SettingsError for an invalid range or
    list.
    """
    space: Space = {}
    fixed: dict[str, Any] = {}
    for written, value in words.items():
        key = RENAMED.get(written, written)
        field = fields.get(key)
        found = None if field is None else _read(key, value, field)
        if found is None:
            fixed[key] = value
            continue
        if key in FIXED:
            raise SettingsError(f"{key} is not searched: {FIXED[key]}", do="give it one value")
        space[key] = found
    return space, fixed


def _read(key: str, value: Any, field: Any) -> Range | Choice | None:
    """Return a range or a choice, or None for a single value."""
    several = "tuple" in str(field.annotation)
    if isinstance(value, (list, tuple)):
        if several and not any(isinstance(each, (list, tuple)) for each in value):
            return None
        return _choice(key, [_written(each) for each in value])
    if not isinstance(value, str) or field.json_schema_extra:  # a label may contain commas
        return None
    found = _RANGE.fullmatch(value)
    if found is not None and _is_number(found[1]) and _is_number(found[2]):
        return _range(key, value, found, field)
    if several:
        if _GROUPS.fullmatch(value.strip()) is None:
            return None
        return _choice(key, re.findall(r"[\[(][^\[\]()]*[\])]", value))
    if "," not in value:
        return None
    return _choice(key, [part.strip() for part in value.split(",")])


def _range(key: str, value: str, found: re.Match[str], field: Any) -> Range:
    kinds = set(re.findall(r"\w+", str(field.annotation)))
    whole = "int" in kinds and "float" not in kinds
    if not kinds & {"int", "float"}:
        raise SettingsError(
            f"{key} = {value!r}: a range is of numbers", do=f"list values: {key}=A,B,C"
        )
    low, high = float(found[1]), float(found[2])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingsError(
            f"{key} = {value!r}: a range goes from a number up to a larger one",
            do=f"write {key}=LOW..HIGH",
        )
    if whole and not (low.is_integer() and high.is_integer()):
        raise SettingsError(
            f"{key} = {value!r}: it is a whole number", do="give whole numbers as both ends"
        )
    scale = found[3]
    if scale not in (None, "log", "linear"):
        raise SettingsError(
            f"{key} = {value!r}: {scale!r} is no scale", do="write :log or :linear after a range"
        )
    if scale == "log" and low <= 0:
        raise SettingsError(
            f"{key} = {value!r}: what is not positive has no logarithm",
            do="begin the range above 0, or write :linear",
        )
    log = low > 0 and high / low >= RATIO if scale is None else scale == "log"
    return Range(low, high, log, whole)


def _choice(key: str, values: Sequence[str]) -> Choice:
    twice = next((each for each in values if values.count(each) > 1), None)
    if twice is not None or "" in values or not values:
        what = "lists nothing between two commas" if twice is None else f"lists {twice!r} twice"
        raise SettingsError(f"{key} {what}", do=f"write {key}=A,B,C, each value once")
    return Choice(tuple(values))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _written(value: Any) -> str:
    """Return a Python value as it is written in a command."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_written(each) for each in value) + "]"
    return "none" if value is None else str(value)
