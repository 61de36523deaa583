"""What arrives: a training run at some step.
What leaves: a folder from which it goes on bit for bit; and the run again.

All randomness is a function of (seed, step) and all order of (seed, epoch), so the state is the weights, AdamW's
moments and a few counts. safetensors and JSON only: a resumable checkpoint can be given to others without risk.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from langue.errors import RunError
from langue.files import atomic_folder, read_json, write_json
from langue.hub.checkpoint import load_into
from langue.hub.weights import read_safetensors

FORMAT = 1
MOMENTS = ("exp_avg", "exp_avg_sq")


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> Path:
    """Write `folder`/step-NNNNNNNN, complete or absent, then drop the older ones."""
    path = folder / f"step-{progress['step']:08d}"
    with atomic_folder(path) as temporary:
        save_weights(temporary, model)
        moments = {
            f"{kind}.{name}": optimizer.state[weight][kind]
            for name, weight in model.named_parameters()
            for kind in MOMENTS
            if weight in optimizer.state
        }
        save_file(moments, str(temporary / "optimizer.safetensors"))
        write_json(temporary / "state.json", {"format": FORMAT, **progress})
    _drop_others(path)
    return path


def save_best(folder: Path, model: nn.Module, step: int, metrics: dict[str, Any]) -> None:
    """Keep the weights of the best evaluation. A run resumed from before it reaches it again and writes it again."""
    path = folder / f"best-{step:08d}"
    with atomic_folder(path) as temporary:
        save_weights(temporary, model)
        write_json(temporary / "metrics.json", {"step": step, **metrics})
    _drop_others(path)


def _drop_others(path: Path) -> None:
    """Only once the new one is complete on disk, remove the older ones of its kind."""
    for other in path.parent.glob(path.name.split("-")[0] + "-*"):
        if other != path:
            shutil.rmtree(other)


def save_weights(folder: Path, model: nn.Module) -> None:
    save_file({n: w.detach().contiguous() for n, w in model.named_parameters()}, str(folder / "model.safetensors"))


def load_weights(folder: Path, model: nn.Module) -> None:
    load_into(model, read_safetensors(folder / "model.safetensors"), where=str(folder))


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    found = sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())
    return found[-1] if found else None


def load_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put weights and moments back; returns what `save_state` was given as progress."""
    progress: dict[str, Any] = read_json(path / "state.json")
    if progress.get("format") != FORMAT:
        raise RunError(f"format {progress.get('format')!r} is not {FORMAT}", where=str(path / "state.json"))
    load_weights(path, model)
    moments = read_safetensors(path / "optimizer.safetensors")
    for name, weight in model.named_parameters():
        kept = {kind: moments.get(f"{kind}.{name}") for kind in MOMENTS}
        if any(moment is None or moment.shape != weight.shape for moment in kept.values()):
            raise RunError(f"no moments for {name}", where=str(path), do="the checkpoint is of another model")
        on_device = {kind: moment.to(weight.device) for kind, moment in kept.items() if moment is not None}
        optimizer.state[weight] = {"step": torch.tensor(float(progress["step"]), device=weight.device), **on_device}
    return progress
