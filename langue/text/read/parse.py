"""Parses JSON, CSV, TSV, text and CoNLL files into records `(line, {column: value})`, each with the
line it begins on; errors are a DataError that names the line.

The readers of the `datasets` library are not used for these formats, because they change people's
texts: its CSV reader turns "NA", "null" and "None" into missing values, its JSON reader turns texts
that look like dates into dates, both guess types, and neither can tell the location of a row in its
file. Here a text is exactly that of the file.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.text.read.annotations import record as annotated
from langue.text.read.conll import sentences
from langue.text.read.form import Form as Form
from langue.text.read.form import Heard as Heard
from langue.text.read.form import Record as Record
from langue.text.read.lines import compression, lines, opened
from langue.text.read.separated import of_csv, of_tsv

# suffixes of files with tokens in columns, in any dialect
CONLL = (".conll", ".conll2003", ".conllu", ".conllup", ".iob", ".bio", ".bioes")
AS_WRITTEN = Form()


def kind(path: Path) -> str:
    """Return the suffix that determines the format of a file, without that of a compression:
    ".jsonl" for "train.jsonl.gz".
    """
    return (path.with_suffix("") if compression(path) else path).suffix.lower()


def records(path: Path, where: str, heard: Heard, form: Form = AS_WRITTEN) -> Iterator[Record]:
    """Yield the records of a file in order; `heard` is told what people should know about how it
    was read.
    """
    return PARSERS[kind(path)](path, where, heard, form)


def _jsonl(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    for number, marked in lines(path, where, encoding=form.encoding):
        line = marked.removeprefix("\ufeff")  # a mark of a file that was appended to another
        if not line or line.isspace():
            continue
        value = parsed(line, f"{where}, line {number}", '{"text": "...", "label": "..."}')
        yield number, as_record(value, f"{where}, line {number}", form)


def parsed(line: str, where: str, example: str) -> Any:
    """Return the JSON value of a line.

    where: the location of the line. example: a record, for the remedy.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON at column {error.colno}: {error.msg}",
            where=where,
            do=f"each line is one record, such as {example}; correct or remove the line",
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"not usable JSON: {error}", where=where, do="correct or remove the line"
        ) from None


def as_record(value: Any, where: str, form: Form = AS_WRITTEN) -> dict[str, Any]:
    """Return a record as a dictionary.

    A bare string becomes a text, and a list becomes a row if columns are requested by number. The
    formats of annotation tools are converted to our columns.
    """
    value = annotated(value, where)
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, (list, tuple)) and form.numbers:
        from langue.text.read.orients import numbered

        return numbered(value)
    raise DataError(
        f"a record is a {type(value).__name__}, not an object",
        where=where,
        do='write it as {"text": "...", ...}',
    )


def _json(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    """Yield records from one JSON value, or from JSON lines in a .json file.

    Records are identified by their number rather than a line.
    """
    text = "\n".join(line for _, line in lines(path, where, encoding=form.encoding))
    if not text.strip():
        return iter(())
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        with contextlib.suppress(json.JSONDecodeError):
            first = next(line for line in text.split("\n") if line.strip())
            if isinstance(json.loads(first), dict):
                return _jsonl(path, where, heard, form)
        raise DataError(
            f"not JSON at column {error.colno}: {error.msg}",
            where=f"{where}, line {error.lineno}",
            do="one record a line goes into a .jsonl file",
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"not usable JSON: {error}", where=where, do="one record a line goes into a .jsonl file"
        ) from None
    # imported here to keep the start of a command short, since most JSON files are lists of records
    from langue.text.read import orients
    from langue.text.read.squad import is_nested, questions

    rows: Iterable[Any] = orients.rows(value, where)
    if is_nested(rows):
        rows = questions(orients.rows(value, where), where)
    return ((n, as_record(v, f"{where}, row {n}", form)) for n, v in enumerate(rows, start=1))


def _txt(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    """Yield one text for each line.

    Blank lines at the end are dropped; elsewhere they become empty texts, which the caller handles.
    """
    blank: list[int] = []
    for number, line in lines(path, where, encoding=form.encoding):
        if not line or line.isspace():
            blank.append(number)
            continue
        yield from ((each, {"text": ""}) for each in blank)
        blank = []
        yield number, {"text": line.rstrip("\r")}


def _xlsx(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    from langue.text.read.sheets import of_sheet

    return of_sheet(path, where, heard, form)


def parquet(path: Path, where: str) -> Any:
    """Return the `pyarrow.parquet.ParquetFile` of a path, plain or compressed as a whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not compression(path):
            return pq.ParquetFile(path, memory_map=True)
        with opened(path, where) as stream:
            return pq.ParquetFile(pa.BufferReader(stream.read()))
    except (pa.ArrowException, OSError) as error:
        what = str(error).split("\n")[0].rstrip(".")
        raise DataError(
            f"not a readable Parquet file: {what}", where=where, do="fetch or write it again"
        ) from None


def batches(file: Any, names: list[str], where: str, size: int = 1 << 16) -> Iterator[Any]:
    """Yield record batches of the named columns of a `ParquetFile`, `size` rows at a time."""
    import pyarrow as pa

    try:
        yield from file.iter_batches(batch_size=size, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"damaged: {str(error).splitlines()[0].rstrip('.')}",
            where=where,
            do="fetch or write it again",
        ) from None


def is_missing(value: Any) -> bool:
    """Return whether a value is None, blank, or the NaN that marks missing values in pandas."""
    return value is None or value != value or not str(value).strip()


def replace_lone_surrogates(text: str) -> str:
    """Replace lone surrogates, which are not characters, by U+FFFD."""
    return text if text.isascii() else str(repair(text))


def repair(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {repair(key): repair(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(repair, value))
    return value


PARSERS: dict[str, Callable[[Path, str, Heard, Form], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": of_csv,
    ".tsv": of_tsv,
    ".txt": _txt,
    ".xlsx": _xlsx,
    **dict.fromkeys(CONLL, sentences),
}
KINDS = (*PARSERS, ".parquet")
OF_ONE_HEADER = (".csv", ".tsv", ".xlsx")  # formats whose first line may be a header
UNCODED = (".parquet", ".xlsx")  # formats that are not encoded text
OF_ROWS = (".json", ".parquet", ".xlsx")  # formats with rows rather than lines
