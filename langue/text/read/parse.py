"""What arrives: lines of a JSON, CSV, TSV, text or CoNLL file. What leaves: records as `(line,
{column: value})`, each with the line it begins on, or a DataError naming that line.

The readers of the `datasets` library are not used for these formats, because they change people's
texts: its CSV reader turns "NA", "null" and "None" into nothing, its JSON reader turns texts that
look like dates into dates, both guess types, and neither can say where a row stands in its file.
Here a text is what the file says.
"""

import contextlib
import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.text.read.annotations import record as annotated
from langue.text.read.conll import sentences
from langue.text.read.lines import compression, lines, opened

# files of tokens in columns, whatever their dialect
CONLL = (".conll", ".conll2003", ".conllu", ".conllup", ".iob", ".bio", ".bioes")
Record = tuple[int, dict[str, Any]]
Note = Callable[[str], None]


def kind(path: Path) -> str:
    """The suffix that says how a file is read, the compression's left aside: ".jsonl" of
    "train.jsonl.gz".
    """
    return (path.with_suffix("") if compression(path) else path).suffix.lower()


def records(path: Path, where: str, note: Note) -> Iterator[Record]:
    """The file's records in order; `note` takes what people should know about how it was read."""
    return PARSERS[kind(path)](path, where, note)


def _jsonl(path: Path, where: str, note: Note) -> Iterator[Record]:
    for number, line in lines(path, where):
        if not line or line.isspace():
            continue
        value = parsed(line, f"{where}, line {number}", '{"text": "...", "label": "..."}')
        yield number, as_record(value, f"{where}, line {number}")


def parsed(line: str, where: str, example: str) -> Any:
    """The JSON value of one line. where: the line's place; example: a record, for the remedy."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"not JSON at column {error.colno}: {error.msg}",
            where=where,
            do=f"each line is one record, such as {example}",
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"not usable JSON: {error}", where=where, do="correct or remove the line"
        ) from None


def as_record(value: Any, where: str) -> dict[str, Any]:
    """A record as the dictionary it is; a bare string is a text. What annotation tools write is
    brought to our columns.
    """
    value = annotated(value, where)
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    raise DataError(
        f"a record is a {type(value).__name__}, not an object",
        where=where,
        do='write it as {"text": "...", ...}',
    )


def _json(path: Path, where: str, note: Note) -> Iterator[Record]:
    """One JSON value holding the records, or JSON lines under this name. Records are numbered, not
    located.
    """
    text = "\n".join(line for _, line in lines(path, where))
    if not text.strip():
        return iter(())
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        with contextlib.suppress(json.JSONDecodeError):
            first = next(line for line in text.split("\n") if line.strip())
            if isinstance(json.loads(first), dict):
                return _jsonl(path, where, note)
        raise DataError(
            f"not JSON at column {error.colno}: {error.msg}",
            where=f"{where}, line {error.lineno}",
            do="one record a line goes into a .jsonl file",
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"not usable JSON: {error}", where=where, do="one record a line goes into a .jsonl file"
        ) from None
    # imported here: most JSON files are lists of records, and a command's start stays short
    from langue.text.read.squad import is_nested, questions

    rows = _rows(value, where)
    if is_nested(rows):
        rows = questions(rows, where)
    return ((n, as_record(v, f"{where}, row {n}")) for n, v in enumerate(rows, start=1))


def _rows(value: Any, where: str) -> Any:
    """The list of records in a JSON value: the value itself, its only list of records, or its
    columns side by side.
    """
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = {name: v for name, v in value.items() if isinstance(v, list)}
        held = [v for v in lists.values() if v and all(isinstance(each, dict) for each in v)]
        if len(held) == 1:
            return held[0]
        if lists and len(lists) == len(value) and len({len(v) for v in lists.values()}) == 1:
            return (dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True))
    raise DataError(
        "there is no list of records in it", where=where, do='write [{"text": "...", ...}, ...]'
    )


def _txt(path: Path, where: str, note: Note) -> Iterator[Record]:
    """One text a line. Blank lines at the end are no texts; between texts they are empty ones, left
    to be judged.
    """
    blank: list[int] = []
    for number, line in lines(path, where):
        if not line or line.isspace():
            blank.append(number)
            continue
        yield from ((each, {"text": ""}) for each in blank)
        blank = []
        yield number, {"text": line.rstrip("\r")}


def _csv(path: Path, where: str, note: Note) -> Iterator[Record]:
    header = next((line for _, line in lines(path, where) if line.strip()), "")
    # what stands in quotation marks separates nothing
    header = re.sub(r'"(?:[^"]|"")*"', "", header)
    separator = max(",;\t", key=header.count)
    if separator != ",":
        note(
            f"{where}: its columns are separated by {'semicolons' if separator == ';' else 'tabs'}"
        )
    if blanks := f"{separator} " in header:
        note(f"{where}: blanks after a separator are no part of a field, as in its header")
    return _separated(path, where, separator, csv.QUOTE_MINIMAL, blanks)


def _tsv(path: Path, where: str, note: Note) -> Iterator[Record]:
    quoting = csv.QUOTE_MINIMAL
    if _plain_quotes(path, where):
        quoting = csv.QUOTE_NONE
        note(f"{where}: its quotation marks are read as ordinary characters")
    return _separated(path, where, "\t", quoting)


def _plain_quotes(path: Path, where: str) -> bool:
    """Whether a TSV uses quotation marks as characters: some field opens with one that does not
    close it, and no field needs quoting, every line having as many as the first. Read as quoted,
    rows would run into each other; where bytes can be read both ways, joining rows is the worse
    mistake.
    """
    width = 0
    stray = False
    for _, line in lines(path, where):
        fields = line.rstrip("\r").split("\t")
        width = width or len(fields)
        if len(fields) != width and line.strip():
            return False
        stray = stray or any(
            f.startswith('"') and not re.fullmatch(r'"(?:[^"]|"")*"', f) for f in fields if f
        )
    return stray


def _separated(
    path: Path, where: str, separator: str, quoting: int, blanks: bool = False
) -> Iterator[Record]:
    source = (line + "\n" for _, line in lines(path, where))
    form: dict[str, Any] = {"delimiter": separator, "quoting": quoting, "skipinitialspace": blanks}
    reader = csv.reader(source, strict=True, **form)
    header: list[str] | None = None
    begin = 1
    # lines of a file of one column: an empty cell each, but for those at the end
    blank: list[int] = []
    try:
        while (fields := _next_row(reader)) is not None:
            if header is None and fields:
                header = [name.strip() for name in fields]
                _check_header(header, f"{where}, line {begin}")
            elif header is not None and len(header) == 1 and not fields:
                blank.append(begin)
            elif header is not None and len(fields) == len(header):
                yield from ((line, {header[0]: ""}) for line in blank)
                blank = []
                yield begin, dict(zip(header, fields, strict=True))
            elif header is not None and any(field.strip() for field in fields):
                raise DataError(
                    f"{len(fields)} fields where the header has {len(header)}",
                    where=f"{where}, line {begin}",
                    do="put quotation marks around fields that hold the separator or a line break",
                )
            begin = reader.line_num + 1
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
    """The next row however long its fields: the limit is the process's, so it is put back at
    once.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(limit)


def _check_header(header: list[str], where: str) -> None:
    twice = sorted({name for name in header if header.count(name) > 1 and name})
    if twice:
        raise DataError(
            f"the header names {twice[0]!r} twice", where=where, do="give each column its own name"
        )


def parquet(path: Path, where: str) -> Any:
    """The `pyarrow.parquet.ParquetFile` of a path, plain or compressed as a whole."""
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
    """Record batches of the named columns of a `ParquetFile`, `size` rows at a time."""
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
    """Whether a value is none, blank, or the not-a-number that stands for a missing one in tables
    of pandas.
    """
    return value is None or value != value or not str(value).strip()


def replace_lone_surrogates(text: str) -> str:
    """The text, its halves of surrogate pairs, which are no characters, replaced by U+FFFD."""
    return text if text.isascii() else str(repair(text))


def repair(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {repair(key): repair(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(repair, value))
    return value


PARSERS: dict[str, Callable[[Path, str, Note], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _txt,
    **dict.fromkeys(CONLL, sentences),
}
KINDS = (*PARSERS, ".parquet")
