"""Data loading: takes a source of batches and the position of training; yields the batches of one
step after another from there on.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, Pairs, gather, gather_pairs
from langue.data.encoded import Encoded
from langue.data.pack import shuffled_batches
from langue.errors import SettingsError
from langue.runtime import rank, world_size
from langue.settings.sections import TrainSettings

T = TypeVar("T")
# a planned batch: one row for each of its sequences, or for groups of them
Rows = NDArray[np.int64]


class BatchSource(Protocol):
    """A source of batches; both methods depend on their arguments only, so that any epoch can be
    resumed.
    """

    def plan(self, epoch: int) -> Sequence[Rows]:
        """Return the batches of one epoch in order; they may be computed lazily."""

    def batch(self, rows: Rows, epoch: int, device: torch.device) -> Batch | Pairs:
        """Build a batch; `rows` may be a part of what `plan` returned."""


class Split:
    """Encoded examples as a source: every example once per epoch, in batches of similar lengths."""

    def __init__(self, examples: Examples, settings: TrainSettings) -> None:
        self.examples = examples
        self.settings = settings

    def plan(self, epoch: int) -> list[Rows]:
        chosen = self.settings
        return shuffled_batches(
            self.examples.lengths, chosen.batch_tokens, chosen.batch_examples, chosen.seed, epoch
        )

    def batch(self, rows: Rows, epoch: int, device: torch.device) -> Batch:
        return gather(self.examples, rows, device)


class PairSplit:
    """Sources and targets of an encoder-decoder as a source of batches: like `Split`, by the tokens
    of both.
    """

    def __init__(self, sources: Examples, targets: Examples, settings: TrainSettings) -> None:
        self.sources = sources
        self.targets = targets
        self.settings = settings

    def plan(self, epoch: int) -> list[Rows]:
        chosen = self.settings
        lengths = self.sources.lengths + self.targets.lengths
        return shuffled_batches(
            lengths, chosen.batch_tokens, chosen.batch_examples, chosen.seed, epoch
        )

    def batch(self, rows: Rows, epoch: int, device: torch.device) -> Pairs:
        return gather_pairs(self.sources, self.targets, rows, device)


class RowGroups:
    """Rows with several sequences as a source: every row once per epoch, with all its sequences in
    the same batch.

    train.batch_examples counts rows, and the length of a row is that of all its sequences.
    by_length: batches contain rows of similar length; False: they are purely random.
    """

    def __init__(self, encoded: Encoded, settings: TrainSettings, by_length: bool = True) -> None:
        self.examples = encoded.examples
        self.settings = settings
        self.by_length = by_length
        row = np.arange(encoded.n_rows) if encoded.row is None else encoded.row
        # start of each row's sequences
        self.bounds = np.searchsorted(row, np.arange(encoded.n_rows + 1))
        self.lengths = np.diff(self.examples.starts[self.bounds])  # (n_rows,) tokens

    def plan(self, epoch: int) -> list[Rows]:
        chosen = self.settings
        return shuffled_batches(
            self.lengths,
            chosen.batch_tokens,
            chosen.batch_examples,
            chosen.seed,
            epoch,
            self.by_length,
        )

    def batch(self, rows: Rows, epoch: int, device: torch.device) -> Batch:
        parts = [np.arange(self.bounds[row], self.bounds[row + 1]) for row in rows.tolist()]
        return gather(self.examples, np.concatenate(parts), device)


class Loader:
    """Steps of `accumulate` batches, epoch after epoch; a position is (epoch, step within it).

    With several processes, each takes every n-th sequence of every batch, so that a step is the
    same whatever their number.
    """

    def __init__(
        self, source: BatchSource, accumulate: int = 1, share: tuple[int, int] | None = None
    ) -> None:
        """share: index of this process's part of a batch, and the number of parts; None: one part
        for each process.
        """
        self.source = source
        self.accumulate = accumulate
        self.share = (rank(), world_size()) if share is None else share
        self._epoch: tuple[int, Sequence[Rows]] | None = None

    def batches(self, epoch: int) -> Sequence[Rows]:
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = None  # only one epoch's plan is in memory
            batches = self.source.plan(epoch)
            if not any(len(rows) >= self.share[1] for rows in batches):
                most = max(map(len, batches), default=0)
                raise SettingsError(
                    f"a batch of {most} sequences cannot be divided among {self.share[1]}"
                    " processes",
                    do="raise train.batch_tokens or train.batch_examples, or start fewer processes",
                )
            self._epoch = (epoch, batches)
        return self._epoch[1]

    def steps(self, epoch: int) -> list[range]:
        """Return the batch numbers of each step."""
        batches = range(len(self.batches(epoch)))
        return [batches[i : i + self.accumulate] for i in range(0, len(batches), self.accumulate)]

    def total(self, epochs: float, most: int = 0) -> int:
        """Return the number of optimizer steps in `epochs` epochs, of which the last may be
        partial; at most `most`, unless that is 0.
        """
        if 0 < most <= epochs:  # an epoch has at least one step
            return most
        steps = 0
        epoch = 0
        while epochs > epoch and not 0 < most <= steps:
            share = min(1.0, epochs - epoch)
            steps += (
                len(self.steps(epoch)) if share == 1.0 else round(share * len(self.steps(epoch)))
            )
            epoch += 1
        return max(1, min(steps, most) if most else steps)

    def iterate(
        self, step: int, total: int, device: torch.device
    ) -> Iterator[tuple[float, list[Batch | Pairs]]]:
        """Yield (epoch reached, batches) from global step `step` (0 is the first) to the last of
        `total`; for an accelerator, batches are built while it works on the previous step.
        """
        steps = islice(self._iterate(step, device), total - step)
        return steps if device.type == "cpu" else prefetch(steps)

    def _iterate(
        self, step: int, device: torch.device
    ) -> Iterator[tuple[float, list[Batch | Pairs]]]:
        epoch = 0
        while step >= len(self.steps(epoch)):
            step -= len(self.steps(epoch))
            epoch += 1
        while True:
            steps = self.steps(epoch)
            batches = self.batches(epoch)
            for index in range(step, len(steps)):
                made = [self._own_part(batches[number], epoch, device) for number in steps[index]]
                yield epoch + (index + 1) / len(steps), made
            del batches  # before the next epoch is planned
            epoch = epoch + 1
            step = 0

    def _own_part(self, rows: Rows, epoch: int, device: torch.device) -> Batch | Pairs:
        """Build this process's part of a batch. If a short batch leaves it nothing (the last of an
        epoch, the first of a ramp), it gets a sequence that another process has, which does not
        count: all processes must run forward and backward together.
        """
        number, of = self.share
        own = rows[number::of]
        batch = self.source.batch(own if len(own) else rows[:1], epoch, device)
        return batch if len(own) else replace(batch, is_real=False)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, each computed by another thread while the previous one is in use."""
    with ThreadPoolExecutor(1, "langue-prefetch") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
