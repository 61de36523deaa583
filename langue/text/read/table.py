"""What arrives: an Arrow table of one split. What leaves: a `Table`, whose rows know where they
stand in their file.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import datasets

# What people call a column of texts, likeliest first: for the remedy alone.
TEXT_SYNONYMS = (
    *("sentence", "sentence1", "review", "content", "comment"),
    *("body", "message", "premise", "document", "tweet"),
)
# Before the names of columns that are read only to be written again, and what names all of them.
KEPT = "kept:"
ALL = "all"
SPLITS = ("train", "dev", "test")
ALIASES = {
    "training": "train",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "validation_matched": "dev",
}
TEXTS = frozenset({"text", "pair", "source", "question", "context"})
"""Columns that are text whatever their values look like: 7 becomes "7"."""

# names that published data sets give our columns and nothing else: taken where ours is not there
PUBLISHED = {
    "tags": ("ner_tags", "pos_tags"),
    "spans": ("entities",),
    "source": ("text", "document", "article", "dialogue", "src"),
    "target": ("summary", "summaries", "highlights", "tgt", "trg"),
    "text": ("anchor",),
    "pair": ("positive",),
    "messages": ("conversations", "conversation"),
    "completion": ("response",),
    "output": ("response",),
    "input": ("context",),
}
# what does for a needed column where it is not there, likeliest first, and for all of a task's by
# the same number: words with tags may come as a text with spans, a source and its target as one
# text in several languages, a conversation as its parts
INSTEAD: dict[str, tuple[tuple[str, ...], ...]] = {
    "tokens": (("text",),),
    "tags": (("spans",),),
    "source": (("translation",),),
    "target": (("translation",),),
    "messages": (("prompt",), ("instruction",)),
    "chosen": (("prompt", "completion", "label"),),
    "rejected": (("prompt", "completion", "label"),),
}


@dataclass(frozen=True)
class Table:
    """The rows of one split. `origin`: what they were read from, as the user named it."""

    rows: "datasets.Dataset"
    origin: str
    # row of the origin -> where it stands
    locate: Callable[[int], str] | None = field(default=None, repr=False)
    # whether 1,5 is one and a half in it, as where semicolons part the columns
    decimal_comma: bool = False
    # (n,) rows of the origin; None: all, in order
    ids: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self.arrow(name).to_pylist()
        return values

    def numbers(self, name: str) -> list[Any]:
        """A column with what is written as in a file whose point is a comma read as numbers."""
        values = self.column(name)
        if not self.decimal_comma:
            return values
        from langue.text.numerals import value_of

        read = [value_of(value, decimal_comma=True) for value in values]
        return [value if one is None else one for value, one in zip(values, read, strict=True)]

    def column_if_there(self, name: str) -> list[Any] | None:
        return self.column(name) if name in self.rows.column_names else None

    def arrow(self, name: str) -> Any:
        """The column of these rows, and no others, as Arrow's chunked array."""
        from datasets.formatting import query_table

        # not by `select_columns`, which hashes and copies what it knows of all columns
        data = self.rows.data.select([name])
        return query_table(data, slice(0, len(self)), self.rows._indices).column(name)

    def where(self, i: int) -> str:
        """Where row i stands, for a message: "reviews.csv, line 43"."""
        row = i if self.ids is None else int(self.ids[i])
        return self.locate(row) if self.locate else f"{self.origin}, row {row + 1}"

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "Table":
        """The table of these rows, in this order."""
        chosen = np.asarray(rows, np.int64)
        ids = chosen if self.ids is None else self.ids[chosen]
        contiguous = len(chosen) > 0 and bool((np.diff(chosen) == 1).all())
        indices = range(int(chosen[0]), int(chosen[-1]) + 1) if contiguous else chosen
        return replace(self, rows=self.rows.select(indices), ids=ids)


@dataclass(frozen=True)
class Source:
    train: Table | None
    dev: Table | None
    test: Table | None
    notes: list[str] = field(default_factory=list)  # what was split, renamed, dropped or left out


def present(need: Sequence[str], table: Table) -> list[str]:
    """The needed columns, or those of the table that do for them."""
    there = set(table.rows.column_names)
    rest = [name for name in need if name not in INSTEAD]
    for names in alternatives(need):
        if not there.issuperset(need) and there.issuperset(names):
            return [*rest, *names]
    return list(need)


def alternatives(need: Sequence[str]) -> list[list[str]]:
    """The columns that may stand for those of the needed ones that have others, one list a way."""
    ways = zip(*(INSTEAD[name] for name in need if name in INSTEAD), strict=True)
    return [list(dict.fromkeys(name for part in way for name in part)) for way in ways]


def as_dataset(table: Any) -> "datasets.Dataset":
    """The Arrow table as a `datasets.Dataset`. Its fingerprint is drawn: computing one would read
    every row.
    """
    import datasets

    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=secrets.token_hex(8))
