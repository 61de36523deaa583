"""What arrives: a training run at some step.
What leaves: a folder from which it goes on bit for bit; and the run again.

All randomness is a function of (seed, step) and all order of (seed, epoch), so the state is the weights, what the
optimisers remember of each, and a few counts. safetensors and JSON only: a resumable checkpoint can be given to others
without risk.
"""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from langue.errors import RunError
from langue.files import atomic_folder, read_json, write_json
from langue.hub.checkpoint import load_into
from langue.hub.weights import read_safetensors
from langue.train.optimizer import Optimizers

FORMAT = 2
AVERAGE = "average."  # before the names of the averaged weights


def save_state(
    folder: Path, model: nn.Module, optimizer: Optimizers, progress: dict[str, Any], average: dict[str, Tensor]
) -> Path:
    """Write `folder`/step-NNNNNNNN, complete or absent, then drop the older ones. average: an EMA of the weights."""
    path = folder / f"step-{progress['step']:08d}"
    with atomic_folder(path) as temporary:
        save_weights(temporary, model)
        names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
        kept = {f"{kind}.{names[weight]}": t for weight, state in optimizer.state() for kind, t in state.items()}
        kept |= {AVERAGE + name: tensor for name, tensor in average.items()}
        save_file(kept, str(temporary / "optimizer.safetensors"))
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


def load_state(path: Path, model: nn.Module, optimizer: Optimizers, average: dict[str, Tensor]) -> dict[str, Any]:
    """Put weights, memories and averages back; returns what `save_state` was given as progress."""
    progress: dict[str, Any] = read_json(path / "state.json")
    if progress.pop("format", None) != FORMAT:
        raise RunError(f"its format is not {FORMAT}", where=str(path / "state.json"), do="it is of another langue")
    load_weights(path, model)
    kept = read_safetensors(path / "optimizer.safetensors")
    for name, tensor in average.items():
        tensor.copy_(_taken(kept, AVERAGE + name, tensor, path))
    kinds: dict[str, list[str]] = defaultdict(list)
    for key in kept:
        kinds[key.partition(".")[2]].append(key.partition(".")[0])
    names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    for weight, state in optimizer.state():
        name = names[weight]
        for kind in kinds[name]:
            like = torch.tensor(0.0) if kind == "step" else weight
            state[kind] = _taken(kept, f"{kind}.{name}", like, path).to(weight.device)
    if kept:
        raise RunError(f"{next(iter(kept))} is of no weight", where=str(path), do="it is of another model or optimiser")
    return progress


def _taken(kept: dict[str, Tensor], name: str, like: Tensor, path: Path) -> Tensor:
    tensor = kept.pop(name, None)
    if tensor is None or tensor.shape != like.shape:
        raise RunError(f"no fitting {name}", where=str(path), do="the checkpoint is of another model or optimiser")
    return tensor
