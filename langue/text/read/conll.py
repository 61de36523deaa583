"""Reads CoNLL files: one token per line with annotations in columns, and a blank line between
sentences.

Each sentence becomes a record `(line, {column: list})`. Every column is named by its number, from
1: "2" is the second. `tokens` is the first column and `tags` the last, unless the file says
otherwise. A CoNLL-U file (10 columns) has the column names of its format (form, lemma, upos, ...),
with form as `tokens` and upos as `tags`. A line `# columns: form pos ner` or, in CoNLL-U Plus, `#
global.columns = ID FORM NER`, also defines names.

Formats: CoNLL-2003 (https://aclanthology.org/W03-0419), CoNLL-U
(https://universaldependencies.org/format.html).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.text.read.form import Form, Heard, Record
from langue.text.read.lines import lines

UNIVERSAL = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_BLANK = " \t\r"  # other Unicode white space may be a token
_NAMED = re.compile(r"#\s*(?:global\.)?columns\s*[:=]\s*(\S.*)", re.IGNORECASE)
_BORDER = re.compile(r"-DOCSTART-|# newdoc\b|#begin document\b")
_COMMENT = re.compile(r"# +(?:[\w.:-]+ *=|(?:newdoc|newpar|sent_id|id|text)\b)|#(?:begin|end) ")
_TAG = re.compile(r"O|[BIESLUM][-_]\S+")
_TOKENS = ("tokens", "token", "form", "word", "words", "text")
_TAGS = ("tags", "tag", "upos")
_NOT_WORDS = re.compile(r"\d+[-.]\d+")  # ids of multiword tokens (1-2) and empty nodes (1.1)


def sentences(path: Path, where: str, heard: Heard, form: Form) -> Iterator[Record]:
    """Yield the sentences of a file, each with the line on which it begins.

    If `-DOCSTART-` lines, `# newdoc` or `#begin document` separate documents, `document` is the
    number of a sentence's document. `heard` is told what was not read as a token.
    """
    layout = _Layout(path, where)
    document = 0
    begin = 0
    block: list[str] = []
    for number, raw in lines(path, where, encoding=form.encoding):
        line = raw.rstrip(_BLANK)
        # most lines are tokens; all other lines begin with one of two characters
        if line and line[0] not in "#-":
            if not block:
                begin = number
            block.append(line)
            continue
        border = _BORDER.match(line) is not None
        if line and not border and not layout.is_comment(line, block, begin):
            if not block:
                begin = number
            block.append(line)
            continue
        if not line or border:
            if block:
                yield from layout.sentence(block, begin, document)
            block = []
            document += border
        elif block:
            # a comment within a sentence is kept as an empty line, so that line numbers stay right
            block.append("")
    if block:
        yield from layout.sentence(block, begin, document)
    layout.report(heard)


class _Layout:
    """The columns of a file, determined by its first lines."""

    def __init__(self, path: Path, where: str) -> None:
        self.where = where
        self.universal = ".conllu" in path.name.lower()
        self.names: tuple[str, ...] = ()  # as defined in the file
        self.width = 0
        self.tokens = 0
        self.tags: int | None = None
        self.skipped = 0

    def is_comment(self, line: str, block: list[str], begin: int) -> bool:
        """Return whether a line that begins with # or - is not a token, and take column names from
        it.

        block: the preceding lines of its sentence, of which the first has the number `begin`. `#`
        may also be a token, as in `# NN`; the line then has as many fields as the others.
        """
        if line[0] != "#":
            return False
        if named := _NAMED.match(line):
            self.names = tuple(named[1].split())
            return True
        if block and not self.width:
            self._settle(_fields(block[0]), begin)
        if self.universal or block:
            return self.universal
        if _COMMENT.match(line):
            return True
        fields = _fields(line)
        if not self.width:
            return line.startswith("# ") and not _TAG.fullmatch(fields[-1])
        return len(fields) != self.width

    def sentence(
        self, block: list[str], begin: int, document: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the record of a block of lines, the first of which has the number `begin`; none if
        no line is a word.
        """
        rows = _split(block)
        if not self.width:
            self._settle(rows[0], begin)
        kept: Sequence[int] = range(begin, begin + len(block))
        if "" in block:
            kept = [number for number, line in enumerate(block, begin) if line]
            rows = [row for row, line in zip(rows, block, strict=True) if line]
        if set(map(len, rows)) != {self.width}:
            self._refuse(rows, kept)
        if self.universal:
            words = [row for row in rows if not _NOT_WORDS.fullmatch(row[0])]
            self.skipped += len(rows) - len(words)
            if not words:
                return
            rows = words
        columns = [list(column) for column in zip(*rows, strict=True)]
        if "" in columns[self.tokens]:
            at = kept[columns[self.tokens].index("")]
            raise DataError(
                "the token is empty", where=f"{self.where}, line {at}", do="write the token first"
            )
        yield begin, self._record(columns, document)

    def _settle(self, first: Sequence[str], line: int) -> None:
        """Determine the columns from the fields of the first line that has any."""
        if any("\r" in field for field in first):
            raise DataError(
                "its lines end in carriage returns alone",
                where=f"{self.where}, line {line}",
                do="save it with line feeds, \\n or \\r\\n",
            )
        self.width = len(first)
        self.universal = self.universal or (
            not self.names
            and self.width == 10
            and re.fullmatch(r"\d+([-.]\d+)?", first[0]) is not None
        )
        if self.names and len(self.names) != self.width:
            raise DataError(
                f"{self.width} fields where the header names {len(self.names)} columns",
                where=f"{self.where}, line {line}",
                do="name every column in the line `# columns: ...`",
            )
        if not self.names and self.universal:
            self.names = UNIVERSAL[: self.width]
        lowered = [name.lower() for name in self.names]
        # in CoNLL-U Plus, words have ids as in CoNLL-U, if they have any
        self.universal = lowered[:1] == ["id"]
        self.tokens = _first(_TOKENS, lowered, 0)
        last = self.width - 1 if self.width > 1 else None
        self.tags = _first(_TAGS, lowered, last)

    def _record(self, columns: list[list[str]], document: int) -> dict[str, Any]:
        found: dict[str, Any] = {"tokens": columns[self.tokens]}
        if self.tags is not None:
            found["tags"] = self._annotation(columns[self.tags])
        for name, column in zip(self.names, columns, strict=False):
            found.setdefault(name, self._annotation(column))
        for number, column in enumerate(columns, 1):
            found.setdefault(str(number), self._annotation(column))
        if document:
            found["document"] = document
        return found

    def _annotation(self, column: list[str]) -> list[str] | None:
        """Return the column, or None if it is not annotated, which CoNLL-U marks by `_`."""
        missing = self.universal and column.count("_") == len(column)
        return None if missing else column

    def _refuse(self, rows: list[list[str]], lines_of: Sequence[int]) -> None:
        index = next(i for i, row in enumerate(rows) if len(row) != self.width)
        size = len(rows[index])
        what = f"{size} fields where the first line has {self.width}"
        if size == 1:
            what = f"a token without a tag: {what}"
        raise DataError(
            what,
            where=f"{self.where}, line {lines_of[index]}",
            do="write a token and its tag, and a blank line between sentences",
        )

    def report(self, heard: Heard) -> None:
        if self.skipped:
            heard(
                f"{self.where}: {self.skipped:,} lines of multiword tokens and empty nodes are not"
                " read, but the words that they are made of"
            )


def _split(block: list[str]) -> list[list[str]]:
    """Return the fields of each line, split in one pass if all are simple: single
    spaces, no tabs.
    """
    text = "\n".join(block)
    if "\t" in text or "  " in text or "\n " in text or text[0] == " ":
        return [_fields(line) for line in block]
    return [line.split(" ") for line in block]


def _fields(line: str) -> list[str]:
    """Return the fields of a line, separated by tabs if it has any, otherwise by spaces."""
    if "\t" in line:
        return line.split("\t")
    fields = line.split(" ")
    return [field for field in fields if field] if "" in fields else fields


def _first(candidates: Iterable[str], names: Sequence[str], otherwise: Any) -> Any:
    """Return the index of the first candidate that exists."""
    return next((names.index(name) for name in candidates if name in names), otherwise)
