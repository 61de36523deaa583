"""What arrives: encoded examples and what a model makes of one batch. What leaves: that of all
batches, in turn."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, gather
from langue.data.pack import sorted_batches
from langue.runtime import keep_freed_memory, keep_kernels, parallel_map, world_size

R = TypeVar("R")
BUDGET = 16384  # tokens of a batch on an accelerator
# On a processor, so few that what a layer computes stays in its caches, and few enough that every
# core has some.
CPU_BUDGET = 2048
LEAST = 512
TURNS = 4


def infer(
    work: Callable[[Batch], R], examples: Examples, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Batch, R]]:
    """Each batch with what `work` makes of it, longest texts first.

    A processor's cores take a batch each: threads that share one wait for each other at every step
    of it. `work` must therefore change nothing that it shares.
    """

    def one(rows: NDArray[np.int64]) -> tuple[Batch, R]:
        batch = gather(examples, rows, device)
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return batch, work(batch)

    longest = int(examples.lengths.max(initial=1))
    total = int(examples.lengths.sum())
    if device.type != "cpu":
        yield from map(one, sorted_batches(examples.lengths, max(BUDGET, longest)))
        return
    keep_freed_memory()
    keep_kernels()
    budget = min(CPU_BUDGET, max(LEAST, total // (TURNS * torch.get_num_threads())))
    batches = sorted_batches(examples.lengths, max(budget, longest))
    # Processes that share a model's weights must ask for them in the same order.
    yield from parallel_map(one, batches) if world_size() == 1 else map(one, batches)
