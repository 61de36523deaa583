"""Reads files that are aligned line by line, such as `train.en` and `train.de`, or `train.en.txt`
and `train.de.txt`, as records with one column for each file, named after its suffix.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from langue.errors import DataError
from langue.text.read.form import Form, Record
from langue.text.read.lines import compression, lines
from langue.text.read.parse import KINDS, kind


def named_parts(path: Path) -> tuple[str, str]:
    """Split a file's name into (the part that aligned files share, the name of its column); ("",
    "") if the name has no column.
    """
    if path.name.startswith(".") or kind(path) in KINDS and kind(path) != ".txt":
        return "", ""
    plain = path.with_suffix("") if compression(path) else path
    stem, _, column = plain.name.removesuffix(".txt").rpartition(".")
    return (stem, column) if stem else ("", "")


def together(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the groups of two or more files whose names begin alike, in the order of names."""
    by_stem: dict[str, dict[str, list[Path]]] = {}
    for file in sorted(files):
        stem, column = named_parts(file)
        if stem and file.is_file():
            by_stem.setdefault(stem, {}).setdefault(column, []).append(file)
    found = {}
    for stem, by_column in by_stem.items():
        if len(by_column) > 1 and all(len(those) == 1 for those in by_column.values()):
            found[stem] = [those[0] for those in by_column.values()]
    return found


def columns_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the file of each column."""
    return {named_parts(path)[1]: path for path in paths}


def listed_files(paths: Sequence[Path]) -> str:
    """Format the files as one location, with the folder only once."""
    return " and ".join([str(paths[0]), *(path.name for path in paths[1:])])


def records(paths: Sequence[Path], form: Form) -> Iterator[Record]:
    """Yield one record for each line of all the files.

    Lines that are blank in all files are dropped at the end; elsewhere they become empty rows,
    which the caller handles.
    """
    columns = list(columns_of(paths))
    numbered = [lines(path, str(path), encoding=form.encoding) for path in paths]
    blank: list[int] = []
    for number, fields in enumerate(zip_longest(*numbered), start=1):
        texts = [None if field is None else field[1].rstrip("\r") for field in fields]
        if all(text is None or not text or text.isspace() for text in texts):
            blank.append(number)
            continue
        if None in texts:
            raise _unequal(paths, form)
        yield from ((each, dict.fromkeys(columns, "")) for each in blank)
        blank = []
        yield number, dict(zip(columns, texts, strict=True))


def _unequal(paths: Sequence[Path], form: Form) -> DataError:
    counts = []
    for path in paths:
        count = sum(1 for _ in lines(path, str(path), encoding=form.encoding))
        counts.append(f"{path.name} has {count:,}")
    return DataError(
        f"the numbers of lines differ, and line by line they belong together: {', '.join(counts)}",
        where=listed_files(paths),
        do="fetch them again, or correct the one that lacks lines",
    )
