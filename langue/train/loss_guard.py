"""What arrives: the loss of each step. What leaves: whether it may be trusted, and a file of the
batches where not."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from langue.files import atomic_file
from langue.runtime import rank, world_size

WINDOW = 100  # losses that a spike is measured against
FEWEST = 20  # below which none is called a spike


def check_loss(loss: float, recent: Sequence[float], spike: float) -> str | None:
    """What is wrong with a loss that follows `recent`, in words; None where nothing is."""
    if not math.isfinite(loss):
        return f"is {loss}"
    if spike and len(recent) >= FEWEST:
        mean = float(np.mean(recent))
        deviation = float(np.std(recent))
        if loss > mean + spike * max(deviation, 1e-3 * abs(mean)):
            return f"is {loss:.4g}, a spike over {mean:.4g} ± {deviation:.2g} before"
    return None


def keep_batches(folder: Path, step: int, batches: Sequence[Any]) -> Path:
    """The tokens of a step's batches, for inspection: suspect-STEP.safetensors with `tokens` and
    `starts` of each."""
    share = f"-process-{rank()}" if world_size() > 1 else ""
    path = folder / f"suspect-{step:08d}{share}.safetensors"
    tensors: dict[str, torch.Tensor] = {}
    for index, batch in enumerate(batches):
        sides = (
            {"": batch}
            if hasattr(batch, "tokens")
            else {"source.": batch.source, "target.": batch.target}
        )
        for side, each in sides.items():
            tensors[f"{index}.{side}tokens"] = each.tokens.cpu()
            tensors[f"{index}.{side}starts"] = each.starts.cpu()
    with atomic_file(path) as temporary:
        save_file(tensors, str(temporary))
    return path
