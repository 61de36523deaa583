"""Streams the documents of files, folders, Hub data sets or lists with running text, each with a
weight.

The documents come as pieces, in an order that is the same each time, whatever their size. A piece
is a whole document, or about a million characters of a longer one, cut before white space, where
tokenizers split as well. So memory does not grow with documents or files. The text is exactly that
of the file: nothing is stripped.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, Self

from langue.errors import DataError
from langue.settings.sections import DataSettings
from langue.text.read import named
from langue.text.read.columns import Columns
from langue.text.read.lines import Bad, blocks, encoding_note, lines
from langue.text.read.open import check_kind, exists, expanded, load_hub
from langue.text.read.parse import UNCODED, Heard, batches, kind, parquet, parsed, records
from langue.text.read.table import TEXT_SYNONYMS

PIECE_CHARACTERS = 1 << 20  # in characters
Kind = Literal["line", "blank", "file"]
_ASKED = ("text", "document")
_END = None  # marks the end of a document in a stream of its parts


@dataclass(frozen=True)
class Reading:
    """How files are converted to documents."""

    # ours -> theirs, of `text` and of `document`: consecutive rows with the same value of
    # `document` form one document, one line for each row
    columns: Mapping[str, str] = field(default_factory=dict)
    document: Kind = "file"  # the unit of documents in a .txt file
    invalid: Literal["error", "drop"] = "error"
    # the split to read in place of train; None: what there is to train on
    only: str | None = None
    encoding: str | None = None  # encoding of files that are not UTF-8

    @classmethod
    def of(cls, settings: DataSettings, columns: Mapping[str, str] | None, **others: Any) -> Self:
        """Return the reading that a command's settings specify."""
        return cls(columns or {}, invalid=settings.invalid, encoding=settings.encoding, **others)


@dataclass(frozen=True)
class Piece:
    text: str
    size: int  # in bytes of UTF-8
    first: bool  # whether it begins a document
    last: bool  # whether it ends a document


@dataclass
class Tally:
    """Counts of what was encountered while reading."""

    empty: int = 0
    invalid: int = 0
    first_invalid: str = ""
    done: int = 0  # bytes of the completed files
    told: int = 0  # how much of the read amount was reported to a progress bar
    file: IO[bytes] | None = None

    def bad(self, error: DataError, reading: Reading) -> None:
        if reading.invalid == "error":
            raise error
        self.invalid += 1
        self.first_invalid = self.first_invalid or str(error)

    def bad_of(self, reading: Reading) -> Bad | None:
        """Return the handler of invalid lines; None if they are errors."""
        return None if reading.invalid == "error" else partial(self.bad, reading=reading)

    def follow(self, file: IO[bytes]) -> None:
        """Count the bytes of this file as they are read."""
        self.file = file

    def read(self) -> int:
        """Return the number of bytes read, of the files as stored on disk."""
        return self.done + (
            self.file.tell() if self.file is not None and not self.file.closed else 0
        )


@dataclass(frozen=True)
class Texts:
    """One source: `files` by split, or `rows`, which starts from the beginning at each call."""

    name: str
    weight: float
    files: dict[str, list[Path]] = field(default_factory=dict)
    rows: Callable[[], Iterable[Any]] | None = None
    identity: str = ""  # of rows: distinguishes them from others of the same name

    @property
    def size(self) -> int | None:
        """Size on disk in bytes; None if unknown."""
        if self.rows is not None:
            return None
        return sum(path.stat().st_size for paths in self.files.values() for path in paths)

    def fingerprint(self) -> list[Any]:
        """Return a value that changes if the source does."""
        stats = [(str(path), path.stat()) for paths in self.files.values() for path in paths]
        return [
            self.name,
            self.weight,
            self.identity,
            [[name, s.st_size, s.st_mtime_ns] for name, s in stats],
        ]

    def pieces(self, reading: Reading, tally: Tally, split: str = "train") -> Iterator[Piece]:
        if self.rows is not None:
            rows = enumerate(self.rows() if split == "train" else (), start=1)
            located = ((f"{self.name}, row {number}", row) for number, row in rows)
            yield from _pieces(_of_rows(located, reading, tally), tally)
        for path in self.files.get(split, ()):
            yield from _pieces(_parts(path, reading, tally), tally)
            tally.done = tally.done + path.stat().st_size
            tally.file = None


def open_texts(sources: Sequence[Any], reading: Reading, notes: list[str]) -> list[Texts]:
    """Open sources: each is `PATH`, `PATH@WEIGHT`, a folder, a Hub name, a `datasets.Dataset`, a
    list of rows, or a mapping of splits to one of the last two.
    """
    if not sources:
        raise DataError("no source is named", do="name a file, a folder or a Hub data set")
    found = [_open(source, reading, notes, index) for index, source in enumerate(sources)]
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(
            "the source is named twice",
            where=twice,
            do=f"name it once, as {twice}@2, to see it twice",
        )
    return found


def _open(source: Any, reading: Reading, notes: list[str], index: int) -> Texts:
    if not isinstance(source, (str, Path)):
        splits = source if isinstance(source, Mapping) else {"train": source}
        rows = named.only(splits, reading.only, f"rows {index + 1}", notes)
        if hasattr(rows, "__arrow_c_stream__"):  # a data frame, which iterates over its columns
            from langue.text.read.arrow import as_arrow

            table = as_arrow(rows)
            rows = table if isinstance(table, list) else table.to_pylist()
        if not isinstance(rows, Iterable) or isinstance(rows, (str, bytes, Mapping, Iterator)):
            do = "give a path, or a list of rows, which is read more than once"
            raise DataError(f"text of type {type(rows).__name__} cannot be read", do=do)
        mark = getattr(rows, "_fingerprint", None) or _digest(rows)
        return Texts(f"rows {index + 1}", 1.0, rows=lambda: rows, identity=str(mark))
    name, weight = named.weighed(str(source))
    path = expanded(name)
    if exists(path) and path.is_dir():
        files = named.files_of(path, notes)
        notes.extend(_told_of_encoding(files, reading))
        if reading.only is None:
            return Texts(name, weight, named.for_training(files, path, notes))
        return Texts(name, weight, {"train": named.only(files, reading.only, name, notes)})
    if exists(path):
        check_kind(path, named.OF_TEXT)
        notes.extend(_told_of_encoding({"train": [path]}, reading))
        return Texts(
            name, weight, {"train": named.only({"train": [path]}, reading.only, name, notes)}
        )
    streamed = named.only(load_hub(name, streaming=True), reading.only, name, notes)
    return Texts(name, weight, rows=lambda: _streamed(streamed, name), identity=name)


def _told_of_encoding(files: Mapping[str, Sequence[Path]], reading: Reading) -> list[str]:
    """Return notes on the files that are read in the encoding which the user specified."""
    if reading.encoding is None:
        return []
    paths = [path for those in files.values() for path in those if kind(path) not in UNCODED]
    return [note for path in paths for note in encoding_note(path, str(path), reading.encoding)]


def _streamed(rows: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield rows of the Hub; any error of the network or of its files becomes one line."""
    try:
        yield from rows
    except (OSError, ValueError, RuntimeError) as error:
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"the Hub's data set stopped: {what}",
            where=name,
            do="run it again: what is finished is kept",
        ) from error


def _digest(rows: Iterable[Any]) -> str:
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _pieces(parts: Iterable[str | None], tally: Tally) -> Iterator[Piece]:
    """Yield pieces of documents from their parts, each document closed by _END; documents of white
    space only are counted and left out.
    """
    held: list[str] = []
    length = 0
    first = True
    for part in parts:
        if part is not _END:
            held.append(part)
            length += len(part)
            if length > PIECE_CHARACTERS + PIECE_CHARACTERS // 8:
                text = "".join(held)
                begin = 0
                while len(text) - begin > PIECE_CHARACTERS + PIECE_CHARACTERS // 8:
                    piece = text[begin : (cut := _cut(text, begin))]
                    begin = cut
                    yield Piece(piece, _size(piece), first, False)
                    first = False
                held = [text[begin:]]
                length = len(held[0])
            continue
        text = "".join(held)
        if first and (not text or text.isspace()):
            tally.empty += 1
        else:
            yield Piece(text, _size(text), first, True)
        held = []
        length = 0
        first = True


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def _cut(text: str, begin: int) -> int:
    """Return the start of the next piece: at the last white space before PIECE_CHARACTERS that is
    followed by a word, or else at PIECE_CHARACTERS.
    """
    for at in range(
        begin + PIECE_CHARACTERS - 1, begin + PIECE_CHARACTERS - PIECE_CHARACTERS // 8, -1
    ):
        if text[at].isspace() and not text[at + 1].isspace():
            return at
    return begin + PIECE_CHARACTERS


def _parts(path: Path, reading: Reading, tally: Tally) -> Iterator[str | None]:
    where = str(path)
    if kind(path) == ".txt":
        yield from _of_text(path, reading, tally)
    elif kind(path) in (".jsonl", ".ndjson"):
        yield from _of_rows(_jsonl(path, reading, tally), reading, tally)
    elif kind(path) == ".parquet":
        yield from _of_rows(_parquet(path, reading), reading, tally)
    else:
        unit = "row" if kind(path) == ".json" else "line"
        rows = (
            (f"{where}, {unit} {number}", record)
            for number, record in records(path, where, Heard(), _columns(reading).form)
        )
        yield from _of_rows(rows, reading, tally)


def _of_text(path: Path, reading: Reading, tally: Tally) -> Iterator[str | None]:
    how = (str(path), tally.bad_of(reading), tally.follow, reading.encoding)
    if reading.document == "file":
        yield from (text for _, text in blocks(path, *how))
        yield _END
        return
    inside = False
    for _, line in lines(path, *how):
        if reading.document == "line":
            yield line.rstrip("\r")
            yield _END
        elif line and not line.isspace():
            yield line + "\n"
            inside = True
        elif inside:
            yield _END
            inside = False
    if inside:
        yield _END


def _jsonl(path: Path, reading: Reading, tally: Tally) -> Iterator[tuple[str, Any]]:
    for number, line in lines(
        path, str(path), tally.bad_of(reading), tally.follow, reading.encoding
    ):
        if not line or line.isspace():
            continue
        try:
            yield (
                f"{path}, line {number}",
                parsed(line, f"{path}, line {number}", '{"text": "..."}'),
            )
        except DataError as error:
            tally.bad(error, reading)


def _parquet(path: Path, reading: Reading) -> Iterator[tuple[str, Any]]:
    where = str(path)
    file = parquet(path, where)
    names = list(_columns(reading).find(file.schema_arrow.names, where).values())
    row = itertools.count(1)
    for batch in batches(file, names, where, size=1024):
        yield from ((f"{where}, row {next(row)}", record) for record in batch.to_pylist())


def _columns(reading: Reading) -> Columns:
    asked = {name: reading.columns[name] for name in _ASKED if name in reading.columns}
    optional = tuple(name for name in asked if name != "text")
    return Columns(("text",), optional, asked, {"text": TEXT_SYNONYMS}, reading.encoding)


def _of_rows(
    rows: Iterable[tuple[str, Any]], reading: Reading, tally: Tally
) -> Iterator[str | None]:
    """Yield the parts of documents: each row's text, or the lines of consecutive rows with the same
    value in the column `document`.
    """
    before: Any = None
    is_open = False
    for document, text in _texts(rows, reading, tally):
        same = is_open and document is not None and document == before
        if is_open and not same:
            yield _END
        yield "\n" + text if same else text
        before = document
        is_open = True
    if is_open:
        yield _END


def _texts(
    rows: Iterable[tuple[str, Any]], reading: Reading, tally: Tally
) -> Iterator[tuple[Any, str]]:
    """Yield (document, text) of each row, which is given as (location, record or text)."""
    names = {ours: reading.columns.get(ours, ours) for ours in ("text", *reading.columns)}
    asked = [names[ours] for ours in _ASKED if ours in names]
    for number, (where, record) in enumerate(rows, start=1):
        if isinstance(record, Mapping) and any(name not in record for name in asked):
            error = DataError("the row has no text", where=where)
            try:
                _columns(reading).find(list(record), where)
            except DataError as found:
                error = found
            if number == 1:
                raise error
            tally.bad(error, reading)
            continue
        text = record.get(names["text"]) if isinstance(record, Mapping) else record
        if text is None:
            tally.empty += 1
        elif not isinstance(text, str):
            what = f"the text is a {type(text).__name__}"
            tally.bad(DataError(what, where=where, do="write it as text"), reading)
        elif not text.isascii() and re.search("[\ud800-\udfff]", text):
            what = "the text holds half a surrogate pair, which is no character"
            tally.bad(
                DataError(
                    what, where=where, do="correct it, or drop such rows with data.invalid=drop"
                ),
                reading,
            )
        else:
            document = record.get(names.get("document")) if isinstance(record, Mapping) else None
            yield document, text
