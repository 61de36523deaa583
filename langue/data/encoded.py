"""A split as a task encodes it: token sequences, the row of each sequence, and the golds of the
rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.data.batch import Examples


@dataclass(frozen=True)
class Encoded:
    """An encoded split, or a user's encoded inputs, with one or more sequences for each row.

    A row has several sequences if a long text is split into windows, or if texts are compared.
    Sequences are sorted by row.
    """

    examples: Examples  # n sequences, with the `targets` or `labels` of the loss
    n_rows: int
    golds: Any = None  # one for each row, in a sequence or an array; None: unknown
    # (n,) row of each sequence; None: one sequence for each row
    row: NDArray[np.int64] | None = None
    context: Any = None  # what the task needs to merge sequences, and to relate them to the text
    # of an encoder-decoder: the decoder inputs of the n sequences, with their `labels`
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
        """Return notes on what the tokenizer does not know of the texts, and of the targets of a
        decoder.

        what: prefix that identifies the texts, such as `train: `.
        """
        found = []
        for part, of in ((self.examples, ""), (self.decoder, "targets: ")):
            if part is not None and part.lost is not None:
                found += part.lost.note(f"{what}{of}")
        return found

    @classmethod
    def of(cls, examples: Examples, golds: Any = None) -> "Encoded":
        """Return examples with one sequence for each row; an array of golds is also the targets of
        the loss.
        """
        if isinstance(golds, np.ndarray):
            examples = examples.with_targets(golds)
        return cls(examples, len(examples), golds)

    def __len__(self) -> int:
        return self.n_rows

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) number of tokens of each sequence, including its decoder inputs."""
        if self.decoder is None:
            return self.examples.lengths
        return self.examples.lengths + self.decoder.lengths

    def rows_with_tokens(self) -> NDArray[np.bool_]:
        """Return whether each row has any tokens, (n_rows,)."""
        filled: NDArray[np.bool_] = self.examples.lengths > 0
        if self.row is None:
            return filled
        found = np.zeros(self.n_rows, bool)
        np.logical_or.at(found, self.row, filled)
        return found

    def sequences_of(self, row: int) -> NDArray[np.int64]:
        """Return the sequences of a row."""
        if self.row is None:
            return np.asarray([row], np.int64)
        return np.flatnonzero(self.row == row)


def in_order(n: int, parts: Sequence[tuple[NDArray[np.int64], Any]]) -> Any:
    """Return the results of batches, (rows, values) each, in the order of the n sequences: an array
    if the values are arrays of equal shape, a list if they are lists.
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
