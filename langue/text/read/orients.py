"""Converts a JSON value that holds a table, in one of the forms ("orients") of pandas and others,
to a list of records.

| orient | form |
|---|---|
| records | `[{"text": "a"}, {"text": "b"}]`, also as the only such list in an object (`table`) |
| split | `{"columns": ["text"], "index": [0, 1], "data": [["a"], ["b"]]}` |
| list | `{"text": ["a", "b"]}` |
| columns | `{"text": {"0": "a", "1": "b"}}` |
| index | `{"0": {"text": "a"}, "1": {"text": "b"}}` |
| values | `[["a"], ["b"]]`, whose columns are named by numbers, from 1 |
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langue.errors import DataError


def rows(value: Any, where: str) -> Sequence[Any]:
    """Return the records of the table; raise DataError if there are none."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value:
        found: Sequence[Any] | None = _split(value)
        if found is None:
            found = _of_objects(value)
        if found is None:
            found = _of_lists(value)
        if found is not None:
            return found
    raise DataError(
        "there is no list of records in it", where=where, do='write [{"text": "...", ...}, ...]'
    )


def numbered(value: list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    """Return a row without column names as a record with numbers for names."""
    return {str(number): each for number, each in enumerate(value, start=1)}


def _split(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    columns = value.get("columns")
    data = value.get("data")
    if not (isinstance(columns, list) and isinstance(data, list) and len(value) <= 3):
        return None
    if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        return None
    return [dict(zip(map(str, columns), row, strict=True)) for row in data]


def _of_objects(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the records of objects keyed by the name of a column or of a row.

    Names of rows are recognised as numbers, which pandas gives them; if that does not decide, there
    are assumed to be at least as many rows as columns.
    """
    if not all(isinstance(each, dict) for each in value.values()):
        return None
    inner = list(dict.fromkeys(key for each in value.values() for key in each))
    counts = _are_numbers(inner), _are_numbers(value)
    by_column = counts[0] if counts[0] != counts[1] else len(value) <= len(inner)
    if not by_column:
        return [dict(each) for each in value.values()]
    return [{name: column.get(row) for name, column in value.items()} for row in inner]


def _are_numbers(names: Iterable[str]) -> bool:
    return all(name.isdecimal() for name in names)


def _of_lists(value: Mapping[str, Any]) -> Sequence[Any] | None:
    """Return the only list of records in an object, or combine its parallel lists."""
    lists = {name: each for name, each in value.items() if isinstance(each, list)}
    held = [v for v in lists.values() if v and all(isinstance(each, dict) for each in v)]
    if len(held) == 1:
        return held[0]
    if lists and len(lists) == len(value) and len({len(v) for v in lists.values()}) == 1:
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return None
