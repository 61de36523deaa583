"""Converts records of any number, or Arrow tables of a Parquet file, a Hub data set or a
`datasets.Dataset`, to one Arrow table with the requested columns.

Columns get our names, texts become strings, and class numbers become class names. Up to SPILL bytes
stay in memory; a larger table is written to a memory-mapped file whose name is then deleted, so
that no file is left behind and no stale one is ever read.
"""

import math
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from langue.errors import DataError
from langue.text.read.annotations import FORMS
from langue.text.read.parse import Record, repair
from langue.text.read.table import TEXTS

ROWS = 10_000  # rows of a record batch; fewer if the texts are long
CHARACTERS = 1 << 24  # characters in the texts of a record batch
SPILL = 1 << 28
_WORDS = pa.list_(pa.string())
_SPANS = pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64()), ("label", pa.string())]))
_ANSWERS = pa.list_(pa.struct([("text", pa.string()), ("start", pa.int64())]))
_TURNS = pa.list_(
    pa.struct([("role", pa.string()), ("content", pa.string()), ("more", pa.string())])
)
# types of the columns with a fixed form
_TYPES = {
    "tokens": _WORDS,
    "tags": _WORDS,
    "spans": _SPANS,
    "answers": _ANSWERS,
    "plausible_answers": _ANSWERS,
    "messages": _TURNS,
    "prompt": _TURNS,
    "completion": _TURNS,
    "chosen": _TURNS,
    "rejected": _TURNS,
    "tools": pa.string(),
}


class _Again(Exception):
    """Raised if later rows have a column that the first ones lack, or values of a wider type: the
    records are then read again with that knowledge.
    """


class Sink:
    """Collects record batches of one schema in memory or, beyond SPILL bytes, on disk."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.size = 0
        self.file: Any = None
        self.writer: Any = None

    def add(self, batch: Any) -> None:
        self.size += batch.nbytes
        self.batches.append(batch)
        if self.size > SPILL:
            try:
                self._spill()
            except OSError as error:
                raise DataError(
                    f"no room for the rows on disk: {error.strerror or error}",
                    do="free space, or set HF_DATASETS_CACHE to a folder that has some",
                ) from None

    def _spill(self) -> None:
        if self.file is None:
            import datasets

            folder = Path(datasets.config.HF_DATASETS_CACHE)
            folder.mkdir(parents=True, exist_ok=True)
            self.file = tempfile.NamedTemporaryFile(dir=folder, prefix="langue-", suffix=".arrow")  # noqa: SIM115
            self.writer = pa.ipc.new_stream(self.file, self.batches[0].schema)
        for batch in self.batches:
            self.writer.write_batch(batch)
        self.batches = []

    def table(self) -> Any:
        """Return everything added as one table; the pages of a file are loaded on use."""
        if self.file is None:
            return pa.Table.from_batches(self.batches)
        self.writer.close()
        self.file.flush()
        table = pa.ipc.open_stream(pa.memory_map(self.file.name)).read_all()
        self.file.close()  # deletes the name; the mapping keeps the pages
        return table


def from_records(
    read: Callable[[], Iterator[Record]],
    names: Callable[[list[str]], Mapping[str, str]],
    where: Callable[[int], str],
    note: Callable[[str], None],
) -> tuple[Any, "array[int]"]:
    """Return (table, line of each row).

    `read` starts from the beginning at each call; `names` maps the seen columns, as ours -> theirs.
    """
    types: dict[str, Any] = {}
    # the columns to read, including those that first appear in later rows
    late: dict[str, None] = {}
    while True:
        try:
            return _gather(read(), names, where, note, types, late)
        except _Again:
            continue


def _gather(
    records: Iterator[Record],
    names: Callable[[list[str]], Mapping[str, str]],
    where: Callable[[int], str],
    note: Callable[[str], None],
    types: dict[str, Any],
    late: dict[str, None],
) -> tuple[Any, "array[int]"]:
    sink = Sink()
    places = array("L")
    theirs_by_ours: Mapping[str, str] = {}
    repaired = 0
    for numbers, rows in _chunks(records):
        found = names(list(dict.fromkeys([*late, *(key for row in rows for key in row)])))
        late.update(dict.fromkeys(found.values()))
        if places and found != theirs_by_ours:
            raise _Again
        theirs_by_ours = found
        places.extend(numbers)
        arrays = {}
        for ours, theirs in theirs_by_ours.items():
            values = [row.get(theirs) for row in rows]
            if ours in TEXTS:
                values = [
                    v if type(v) is str else _text(v, ours, where, n)
                    for v, n in zip(values, numbers, strict=True)
                ]
                types[ours] = pa.string()
            if ours in FORMS:
                form = FORMS[ours]
                values = [form(v, ours, where(n)) for v, n in zip(values, numbers, strict=True)]
            try:
                arrays[ours] = _array(ours, values, types, where, numbers)
            except UnicodeEncodeError:
                sound = [repair(value) for value in values]
                repaired += sum(a != b for a, b in zip(values, sound, strict=True))
                arrays[ours] = _array(ours, sound, types, where, numbers)
        sink.add(pa.record_batch(arrays))
    if repaired:
        note(
            f"{repaired} values held halves of surrogate pairs, which are no characters: replaced"
            " by U+FFFD"
        )
    return (sink.table() if places else None), places


def _chunks(records: Iterator[Record]) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    numbers: list[int] = []
    rows: list[dict[str, Any]] = []
    size = 0
    for number, row in records:
        numbers.append(number)
        rows.append(row)
        size += sum(len(value) for value in row.values() if type(value) is str)
        if len(rows) == ROWS or size > CHARACTERS:
            yield numbers, rows
            numbers = []
            rows = []
            size = 0
    if rows:
        yield numbers, rows


def _text(value: Any, name: str, where: Callable[[int], str], number: int) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (bool, int, float, str)):
        return str(value)
    raise DataError(
        f"the {name} is a {type(value).__name__}, not a text",
        where=where(number),
        do="write it as a string",
    )


def _array(
    name: str,
    values: list[Any],
    types: dict[str, Any],
    where: Callable[[int], str],
    numbers: list[int],
) -> Any:
    """Return the Arrow array with the column's type so far; raise _Again if these values need a
    wider type.
    """
    if name in _TYPES:
        return pa.array(values, _TYPES[name])
    known = types.get(name)
    if known == pa.string():
        if name not in TEXTS:
            values = [_scalar(v, name, where, n) for v, n in zip(values, numbers, strict=True)]
        return pa.array(values, known)
    try:
        found = pa.array(values).type
        if _are_bytes(found):
            row = next(
                (number for value, number in zip(values, numbers, strict=True) if value), numbers[0]
            )
            raise DataError(
                f"the {name} holds bytes, not text", where=where(row), do="write it as a string"
            )
        if pa.types.is_floating(found) and any(type(value) is bool for value in values):
            # the error that Arrow itself raises for a boolean among integers
            raise pa.ArrowTypeError("true is no number")
        if known is None:
            types[name] = found
            return pa.array(values)
        fields = [pa.schema([(name, known)]), pa.schema([(name, found)])]
        wider = pa.unify_schemas(fields, promote_options="permissive").field(0).type
        if wider == known:
            return pa.array(values, known)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        _refuse_lists(values, name, where, numbers)
        # numbers mixed with words, or too large for any number type: the column is read as strings
        wider = pa.string()
        for value, number in zip(values, numbers, strict=True):
            _scalar(value, name, where, number)
    types[name] = wider
    raise _Again


def _refuse_lists(
    values: list[Any], name: str, where: Callable[[int], str], numbers: list[int]
) -> None:
    """Raise DataError if all values are lists, whose items then have different types.

    The error names the first row with a list that is not of strings.
    """
    if all(isinstance(value, (list, tuple)) for value in values if value is not None):
        others = (any(not isinstance(each, str) for each in value or ()) for value in values)
        row = next(
            (number for number, other in zip(numbers, others, strict=True) if other), numbers[0]
        )
        what = f"the {name} is a list of other things than those of other rows"
        raise DataError(what, where=where(row), do='write all of them as words: ["a", "1"]')


def _scalar(value: Any, name: str, where: Callable[[int], str], number: int) -> str | None:
    if isinstance(value, (list, tuple, dict)):
        raise DataError(
            f"the {name} is a {type(value).__name__} where other rows have single values",
            where=where(number),
            do="give every row the same kind",
        )
    return None if value is None or value != value else str(value)


def as_arrow(data: Any) -> Any:
    """Convert another library's table to Arrow; None if it is not a table.

    If its columns have mixed types, as pandas allows, return a list of records.
    """
    if not hasattr(data, "__arrow_c_stream__"):
        return None
    try:
        return pa.table(data)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return data.to_dict("records")


def plain(table: Any) -> Any:
    """Return the table with all strings in the plain type, instead of dictionary-encoded strings or
    views.
    """
    for at, field in enumerate(table.schema):
        kind = _plain_type(field.type)
        if kind != field.type:
            table = table.set_column(at, field.with_type(kind), _cast(table.column(at), kind))
    return table


def _cast(column: Any, kind: Any) -> Any:
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.chunked_array([pa.array(column.to_pylist(), kind)])


def _plain_type(kind: Any) -> Any:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    # by name, since older versions of Arrow lack these types
    if str(kind) in ("string_view", "binary_view"):
        return pa.string() if str(kind) == "string_view" else pa.binary()
    if str(kind).startswith(("list<", "list_view<", "large_list_view<", "fixed_size_list<")):
        return pa.list_(_plain_type(kind.value_type))
    return kind


def from_arrow(
    batches: Iterable[Any], schema: Any, theirs_by_ours: Mapping[str, str], where: str
) -> Any:
    """Return one table of these columns of Arrow tables.

    The metadata that `datasets` stores in the schema tells which numbers are classes.
    """
    import datasets

    theirs = list(dict.fromkeys(theirs_by_ours.values()))  # one column may be used as two of ours
    used = [schema.field(name) for name in theirs]
    fields = [field.with_type(_plain_type(field.type)) for field in used]
    try:
        features = datasets.Features.from_arrow_schema(pa.schema(fields, schema.metadata))
    except ValueError as error:  # a type that `datasets` does not support
        what = str(error).rstrip(".")
        raise DataError(
            f"a column cannot be read: {what}", where=where, do="write it as strings"
        ) from None
    sink = Sink()
    begin = 1
    for part in batches:
        chosen = plain(part.select(theirs))
        for batch in convert(chosen, features, theirs_by_ours, where, begin).to_batches():
            sink.add(batch)
        begin += len(part)
    return sink.table() if sink.size or sink.batches else None


def convert(
    table: Any, features: Any, theirs_by_ours: Mapping[str, str], where: str, begin: int = 1
) -> Any:
    """Do the same as `from_arrow` for a table that is already memory-mapped; columns that need no
    change are not copied.

    begin: the number of its first row.
    """
    return pa.table(
        {
            ours: _column(table[theirs], features[theirs], ours, where, begin)
            for ours, theirs in theirs_by_ours.items()
        }
    )


def _column(column: Any, feature: Any, name: str, where: str, begin: int) -> Any:
    import datasets

    inner = getattr(feature, "feature", None)
    named = _tags if name == "tags" else _named
    try:
        if isinstance(feature, datasets.ClassLabel):
            names = pa.array(feature.names, pa.string())
            return pa.chunked_array(
                [names.take(_classes(chunk)) for chunk in column.chunks], pa.string()
            )
        if isinstance(inner, datasets.ClassLabel):
            return pa.chunked_array(
                [pa.array([named(row, inner.names) for row in column.to_pylist()], _WORDS)]
            )
    except IndexError:
        what = (
            f"the column {name!r} has class numbers beyond its {len((inner or feature).names)}"
            " names"
        )
        raise DataError(what, where=where, do="give each class a name, or write names") from None
    if name in FORMS and column.type != _TYPES[name]:
        values = column.to_pylist()
        form = FORMS[name]
        found = [form(v, name, f"{where}, row {n}") for n, v in enumerate(values, begin)]
        return pa.chunked_array([pa.array(found, _TYPES[name])])
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    if name not in TEXTS and not _are_bytes(column.type):
        return column
    try:
        several = name not in TEXTS and pa.types.is_nested(column.type)
        return column.cast(_WORDS if several else pa.string())
    # bytes that are not UTF-8, lists, or records
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(
            f"the column {name!r} holds {column.type}, not texts",
            where=where,
            do="name another with --columns",
        ) from None


def _are_bytes(kind: Any) -> bool:
    """Return whether a column of this type holds bytes, or lists of bytes."""
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))


def _named(row: list[int | None] | None, names: list[str]) -> list[str] | None:
    """Return the names of a row's classes; None if all of them are unknown, as defined by
    `_classes`.
    """
    found = [names[each] for each in row or () if each is not None and each >= 0]
    return found if found or row == [] else None


def _tags(row: list[int | None] | None, names: list[str]) -> list[str | None] | None:
    """Return the names of a row's tags; None if all are unknown.

    A single unknown tag becomes None, so that the others stay aligned with their tokens.
    """
    if row is None:
        return None
    found = [names[each] if each is not None and each >= 0 else None for each in row]
    return None if row and not any(found) else found


def _classes(numbers: Any) -> Any:
    """Return class numbers with null in place of -1, which stands for a missing label
    in data sets.
    """
    import pyarrow.compute as pc

    return pc.if_else(pc.less(numbers, 0), pa.scalar(None, numbers.type), numbers)
