"""What arrives: files that belong together line by line, as `train.en` and `train.de`, or
`train.en.txt` and `train.de.txt`. What leaves: their records, in which each file is a column called
as its name ends.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from langue.errors import DataError
from langue.text.read.form import Form, Record
from langue.text.read.lines import compression, lines
from langue.text.read.parse import KINDS, kind


def named_parts(path: Path) -> tuple[str, str]:
    """(what files that belong together share, the column that this one is) of a file's name;
    ("", "") of a name that says no column.
    """
    if path.name.startswith(".") or kind(path) in KINDS and kind(path) != ".txt":
        return "", ""
    plain = path.with_suffix("") if compression(path) else path
    stem, _, column = plain.name.removesuffix(".txt").rpartition(".")
    return (stem, column) if stem else ("", "")


def together(files: Iterable[Path]) -> dict[str, list[Path]]:
    """The files that share what their names begin with, two or more, in the order of names."""
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
    """The file of each column."""
    return {named_parts(path)[1]: path for path in paths}


def listed_files(paths: Sequence[Path]) -> str:
    """The files as one place: the folder is said once."""
    return " and ".join([str(paths[0]), *(path.name for path in paths[1:])])


def records(paths: Sequence[Path], form: Form) -> Iterator[Record]:
    """A record a line of all the files. Lines that are blank in each of them are no rows at the
    end; before it they are empty ones, left to be judged.
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
