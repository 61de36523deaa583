"""What arrives: a split's rows as a task encodes them.
What leaves: `Encoded`: token sequences, the row that each is of, and what is true of each row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.data.batch import Examples


@dataclass(frozen=True)
class Encoded:
    """A split, or a user's inputs, for a task: one or more sequences a row.

    A row has several where a long text is read in windows, or where texts are compared. Sequences
    stand in the order of their rows.
    """

    examples: Examples  # n sequences, with the `targets` or the `labels` of the loss
    n_rows: int
    golds: Any = None  # what is true, one a row: a sequence or an array; None: it is not known
    row: NDArray[np.int64] | None = None  # (n,) the row of each sequence; None: they are the rows
    context: Any = None  # what the task needs to merge sequences and to speak of the text
    # of an encoder-decoder: what the decoder reads for each of the n sequences, with its `labels`
    decoder: Examples | None = None

    def __post_init__(self) -> None:
        if self.decoder is not None and len(self.decoder) != len(self.examples):
            raise ValueError(f"{len(self.examples)} sources and {len(self.decoder)} targets")
        if self.row is None and len(self.examples) != self.n_rows:
            raise ValueError(f"{len(self.examples)} sequences and {self.n_rows} rows")
        if self.row is not None and len(self.row) != len(self.examples):
            raise ValueError(f"{len(self.row)} rows named for {len(self.examples)} sequences")
        if self.golds is not None and len(self.golds) != self.n_rows:
            raise ValueError(f"{len(self.golds)} golds and {self.n_rows} rows")

    def notes_of_unknown(self, what: str = "") -> list[str]:
        """What the tokenizer does not know of the texts, and of the targets that a decoder reads.

        what: of which these are, as `train: `.
        """
        found = []
        for part, of in ((self.examples, ""), (self.decoder, "targets: ")):
            if part is not None and part.lost is not None:
                found += part.lost.note(f"{what}{of}")
        return found

    @classmethod
    def of(cls, examples: Examples, golds: Any = None) -> "Encoded":
        """One sequence a row; where golds are an array they are also the targets of the loss."""
        if isinstance(golds, np.ndarray):
            examples = examples.with_targets(golds)
        return cls(examples, len(examples), golds)

    def __len__(self) -> int:
        return self.n_rows

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each sequence, those that a decoder reads for it with them."""
        if self.decoder is None:
            return self.examples.lengths
        return self.examples.lengths + self.decoder.lengths

    def rows_with_tokens(self) -> NDArray[np.bool_]:
        """(n_rows,) whether there is anything to read in a row."""
        filled: NDArray[np.bool_] = self.examples.lengths > 0
        if self.row is None:
            return filled
        found = np.zeros(self.n_rows, bool)
        np.logical_or.at(found, self.row, filled)
        return found

    def sequences_of(self, row: int) -> NDArray[np.int64]:
        """The sequences that are of a row."""
        if self.row is None:
            return np.asarray([row], np.int64)
        return np.flatnonzero(self.row == row)


def in_order(n: int, parts: Sequence[tuple[NDArray[np.int64], Any]]) -> Any:
    """What was made of the sequences of batches, (rows, values) each, in the order of the n
    sequences: an array where the values are arrays of one shape, a list where they are lists.
    """
    if parts and isinstance(parts[0][1], np.ndarray):
        first = parts[0][1]
        array = np.zeros((n, *first.shape[1:]), first.dtype)
        for rows, values in parts:
            array[rows] = values
        return array
    found: list[Any] = [None] * n
    for rows, values in parts:
        for row, value in zip(rows, values, strict=True):
            found[int(row)] = value
    return found
