"""What arrives: encoded examples and where training stands.
What leaves: one step's batches after another, from there on."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, gather
from langue.data.pack import shuffled_batches

Step = list[NDArray[np.int64]]  # the batches whose gradients make one optimiser step, as row numbers


class Loader:
    """Steps of `accumulate` batches, epoch after epoch. A position is (epoch, step within it)."""

    def __init__(self, examples: Examples, *, batch_tokens: int, batch_examples: int, accumulate: int, seed: int):
        self.examples = examples
        self.batch_tokens, self.batch_examples = batch_tokens, batch_examples
        self.accumulate, self.seed = accumulate, seed
        self._epoch: tuple[int, list[Step]] | None = None

    def steps(self, epoch: int) -> list[Step]:
        if self._epoch is None or self._epoch[0] != epoch:
            batches = shuffled_batches(self.examples.lengths, self.batch_tokens, self.batch_examples, self.seed, epoch)
            steps = [batches[i : i + self.accumulate] for i in range(0, len(batches), self.accumulate)]
            self._epoch = (epoch, steps)
        return self._epoch[1]

    def total(self, epochs: float) -> int:
        """Optimiser steps of `epochs` passes; the last may be a part of one."""
        whole = int(epochs)
        steps = sum(len(self.steps(epoch)) for epoch in range(whole))
        if epochs > whole:
            steps += round((epochs - whole) * len(self.steps(whole)))
        return max(1, steps)

    def iterate(self, step: int, device: torch.device) -> Iterator[tuple[float, list[Batch]]]:
        """From global step `step` (0 is the first) on, without end: (epoch reached after it, its batches)."""
        epoch = 0
        while step >= len(self.steps(epoch)):
            step -= len(self.steps(epoch))
            epoch += 1
        while True:
            steps = self.steps(epoch)
            for index in range(step, len(steps)):
                yield epoch + (index + 1) / len(steps), [gather(self.examples, rows, device) for rows in steps[index]]
            epoch, step = epoch + 1, 0
