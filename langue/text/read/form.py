"""How files are read where they do not say it themselves, and what is heard of them."""

from dataclasses import dataclass, field
from typing import Any

Record = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Form:
    """What the user says of the form of files."""

    encoding: str | None = None  # of files that are not UTF-8
    numbers: frozenset[str] = frozenset()  # of columns that are asked for by number, from "1"


@dataclass
class Heard:
    """What a parser tells of a file besides its records. A file may be read more than once: each
    note is kept once.
    """

    notes: dict[str, None] = field(default_factory=dict)
    # whether 1,5 is one and a half in it
    decimal_comma: bool = False

    def __call__(self, note: str) -> None:
        self.notes.setdefault(note)
