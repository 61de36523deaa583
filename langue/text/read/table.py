"""A `Table`: the rows of one split as an Arrow table that knows their locations in their file."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import datasets

# Common names of text columns, likeliest first; used in remedies only.
TEXT_SYNONYMS = (
    *("sentence", "sentence1", "review", "content", "comment"),
    *("body", "message", "premise", "document", "tweet"),
)
# The prefix of columns that are read only to be written again, and the name that stands for all of
# them.
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

# unambiguous names of our columns in published data sets; used if our name does not exist
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
# Replacements of a needed column that does not exist, likeliest first. The replacements with the
# same index belong together for all columns of a task: words with tags may be given as a text with
# spans, source and target as a text in several languages, a conversation as its parts.
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
    """The rows of one split; `origin`: what they were read from, as the user named it."""

    rows: "datasets.Dataset"
    origin: str
    # row of the origin -> its location
    locate: Callable[[int], str] | None = field(default=None, repr=False)
    # whether 1,5 means one and a half, as in files separated by semicolons
    decimal_comma: bool = False
    # (n,) row numbers in the origin; None: all, in order
    ids: NDArray[np.int64] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self.arrow(name).to_pylist()
        return values

    def numbers(self, name: str) -> list[Any]:
        """Return a column, with the numbers that a file with decimal commas holds converted."""
        values = self.column(name)
        if not self.decimal_comma:
            return values
        from langue.text.numerals import value_of

        read = [value_of(value, decimal_comma=True) for value in values]
        return [value if one is None else one for value, one in zip(values, read, strict=True)]

    def column_if_there(self, name: str) -> list[Any] | None:
        return self.column(name) if name in self.rows.column_names else None

    def arrow(self, name: str) -> Any:
        """Return the column, restricted to the rows of this table, as a chunked array of Arrow."""
        from datasets.formatting import query_table

        # `select_columns` would hash and copy the metadata of all columns
        data = self.rows.data.select([name])
        return query_table(data, slice(0, len(self)), self.rows._indices).column(name)

    def where(self, i: int) -> str:
        """Return the location of row i for a message: "reviews.csv, line 43"."""
        row = i if self.ids is None else int(self.ids[i])
        return self.locate(row) if self.locate else f"{self.origin}, row {row + 1}"

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "Table":
        """Return the table of these rows, in this order."""
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
    # notes on what was split, renamed, dropped or left out
    notes: list[str] = field(default_factory=list)


def present(need: Sequence[str], table: Table) -> list[str]:
    """Return the needed columns, or those of the table that replace them."""
    there = set(table.rows.column_names)
    rest = [name for name in need if name not in INSTEAD]
    for names in alternatives(need):
        if not there.issuperset(need) and there.issuperset(names):
            return [*rest, *names]
    return list(need)


def alternatives(need: Sequence[str]) -> list[list[str]]:
    """Return the lists of columns that can replace those of the needed ones that have
    replacements.
    """
    ways = zip(*(INSTEAD[name] for name in need if name in INSTEAD), strict=True)
    return [list(dict.fromkeys(name for part in way for name in part)) for way in ways]


def as_dataset(table: Any) -> "datasets.Dataset":
    """Return the Arrow table as a `datasets.Dataset`.

    Its fingerprint is random, since computing one would read every row.
    """
    import datasets

    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=secrets.token_hex(8))
