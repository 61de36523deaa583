"""Settings for reading files that do not describe themselves, and notes made while reading."""

from dataclasses import dataclass, field
from typing import Any

Record = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Form:
    """What the user specifies about the form of files."""

    encoding: str | None = None  # encoding of files that are not UTF-8
    numbers: frozenset[str] = frozenset()  # columns requested by number, from "1"


@dataclass
class Heard:
    """What a parser reports about a file besides its records.

    A file may be read more than once; each note is kept once.
    """

    notes: dict[str, None] = field(default_factory=dict)
    # whether 1,5 means one and a half
    decimal_comma: bool = False

    def __call__(self, note: str) -> None:
        self.notes.setdefault(note)
