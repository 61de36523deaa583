"""Experiment trackers: take the lines of log.jsonl as they are written; log the same numbers to
TensorBoard or W&B.
"""

import os
from pathlib import Path
from typing import Any, Protocol

from langue.errors import SettingsError


class Tracker(Protocol):
    def log(self, line: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard; `tensorboard --logdir RUN` shows them."""

    def __init__(self, folder: Path, begin: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Hides what an interrupted run has logged after its checkpoint, which log.jsonl cuts off.
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=begin)

    def log(self, line: dict[str, Any]) -> None:
        for name, value in _numbers(line).items():
            self.writer.add_scalar(f"{line['split']}/{name}", value, line["step"])

    def close(self) -> None:
        self.writer.close()


class Wandb:
    """A W&B run named like the folder; WANDB_PROJECT, WANDB_MODE etc. apply."""

    def __init__(self, folder: Path, begin: int) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", "langue")
        self.run: Any = wandb.init(
            project=project, name=folder.name, dir=str(folder), resume="allow" if begin else None
        )

    def log(self, line: dict[str, Any]) -> None:
        self.run.log(
            {f"{line['split']}/{name}": value for name, value in _numbers(line).items()},
            step=line["step"],
        )

    def close(self) -> None:
        self.run.finish()


KINDS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb}


def make_tracker(kind: str, folder: Path, begin: int) -> Tracker | None:
    """Return a tracker, or None; begin: the step at which the run is resumed. Raises SettingsError
    if the library is not installed.
    """
    if kind == "none":
        return None
    try:
        tracker: Tracker = KINDS[kind](folder, begin)
    except ImportError as error:
        raise SettingsError(
            f"train.tracker = {kind} needs a library that is not here ({error.name})",
            do=f"pip install 'langue[{kind}]'",
        ) from error
    return tracker


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    kept = {name: value for name, value in line.items() if name not in ("split", "step")}
    return {name: float(value) for name, value in kept.items() if isinstance(value, (int, float))}
