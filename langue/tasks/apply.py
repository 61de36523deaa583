"""What arrives: a task model and encoded examples.
What leaves: its outputs, in the examples' order; metrics held, logits not."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, gather
from langue.data.pack import sorted_batches
from langue.tasks.task import Task, TaskModel

BUDGET = 16384  # tokens of an inference batch


@torch.no_grad()
def apply(
    model: TaskModel,
    task: Task,
    examples: Examples,
    *,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float32], float | None]:
    """Predictions (n, n_outputs) and, where there are targets, the mean loss. `progress` is told examples done."""
    was_training = model.training
    model.eval()
    predictions = np.zeros((len(examples), task.n_outputs), np.float32)
    total, count = 0.0, 0.0
    longest = int(examples.lengths.max()) if len(examples) else 1
    for rows in sorted_batches(examples.lengths, max(BUDGET, longest)):
        batch: Batch = gather(examples, rows, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outputs = model(batch)
        predictions[batch.rows] = task.predict(outputs)
        if batch.targets is not None:
            loss, number = task.loss(outputs, batch.targets)
            total, count = total + float(loss), count + number
        if progress is not None:
            progress(len(rows))
    model.train(was_training)
    return predictions, (total / count if count else None)
