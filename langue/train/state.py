"""Checkpoints: saves a training run at a step to a folder, and restores it so that it continues bit
for bit.

All random numbers are a function of (seed, step) and the order of the data is one of (seed, epoch),
so the state consists of the weights, the optimizer state of each, and a few counts. It is stored as
safetensors and JSON only, so that a checkpoint can be shared without risk. If the weights are
sharded, each process writes its part (sharding.py); any number of processes can read either kind.
"""

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from langue.errors import ModelError, RunError
from langue.files import atomic_file, atomic_folder, read_json, write_json
from langue.hub.checkpoint import load_into
from langue.hub.weights import read_safetensors
from langue.runtime import rank, world_size
from langue.train.optimizer import Optimizers, trained_parameters
from langue.train.sharding import (
    Writer,
    distribute_like,
    gather_full,
    is_dtensor,
    is_row_sharded,
    read_shards,
)

FORMAT = 3
WEIGHT = "weight."  # prefix of weights, if all tensors are in one file
AVERAGE = "average."  # prefix of averaged weights
OTHER = "it is of another model or optimiser: put the run's own back, or start a new run"


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizers,
    progress: dict[str, Any],
    average: dict[str, Tensor],
    writer: Writer | None = None,
) -> Path:
    """Write `folder`/step-NNNNNNNN atomically, then remove older ones; average: an EMA of the
    weights.

    With a writer, each process writes its part, and the checkpoint is complete when `writer.wait`
    returns; otherwise the first process writes it.
    """
    path = folder / f"step-{progress['step']:08d}"
    weight_of = dict(trained_parameters(model))
    names: dict[Tensor, str] = {weight: name for name, weight in weight_of.items()}
    kept: dict[str, Tensor] = {}
    for weight, state, _ in optimizer.state():
        for kind, tensor in state.items():
            kept[f"{kind}.{names[weight]}"] = tensor
    kept |= {AVERAGE + name: tensor for name, tensor in average.items()}
    facts = {"format": FORMAT, **progress}

    def done() -> None:
        _drop_others(path)
        _drop_others(folder / f"best-{progress['best_step']:08d}")

    if writer is not None:
        kept |= {WEIGHT + name: weight.detach() for weight, name in names.items()}
        writer.start(path, kept, facts, done)
        return path
    weights = _whole_weights(model)
    memories = {}
    for key, tensor in kept.items():
        name = key.partition(".")[2]
        memories[key] = gather_full(tensor, weight_of.get(name))
    if rank() == 0:
        with atomic_folder(path) as temporary:
            save_file(weights, str(temporary / "model.safetensors"))
            save_file(memories, str(temporary / "optimizer.safetensors"))
            write_json(temporary / "state.json", facts)
        done()
    return path


def save_best(folder: Path, model: nn.Module, step: int, metrics: dict[str, Any]) -> None:
    """Save the weights of the best evaluation, and keep those that were best at the newest
    checkpoint: a run resumed from there may find no better ones. A run resumed before this
    evaluation will reach and save it again.
    """
    path = folder / f"best-{step:08d}"
    weights = _whole_weights(model)
    if rank() == 0:
        with atomic_folder(path) as temporary:
            save_file(weights, str(temporary / "model.safetensors"))
            write_json(temporary / "metrics.json", {"step": step, **metrics})
        newest = latest(folder)
        named = _facts(newest)["best_step"] if newest is not None else 0
        _drop_others(path, folder / f"best-{named:08d}")


def _drop_others(path: Path, beside: Path | None = None) -> None:
    """Remove the other checkpoints of this kind and the incomplete ones of killed runs; only call
    this once the new one is complete on disk.
    """
    kind = path.name.split("-")[0]
    for other in [*path.parent.glob(f"{kind}-*"), *path.parent.glob(f".{kind}-*")]:
        if other not in (path, beside):
            shutil.rmtree(other)


def save_weights(folder: Path, model: nn.Module) -> None:
    save_file(_whole_weights(model), str(folder / "model.safetensors"))


def _whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return all trained weights, gathered one after another; if they are sharded, only in the
    first process.
    """
    kept: dict[str, Tensor] = {}
    for name, weight in trained_parameters(model):
        tensor = gather_full(weight.detach(), weight)
        if not is_dtensor(weight):
            kept[name] = tensor.contiguous()
        elif rank() == 0:
            kept[name] = tensor.cpu()
    return kept


def load_weights(folder: Path, model: nn.Module) -> None:
    _put(read_safetensors(folder / "model.safetensors"), model, folder)


def _put(weights: dict[str, Tensor], model: nn.Module, folder: Path) -> None:
    named = dict(trained_parameters(model))
    fitting = {
        name: distribute_like(t, named[name]) if name in named else t for name, t in weights.items()
    }
    try:
        load_into(model, fitting, where=str(folder), trained=True)
    except ModelError as error:
        raise RunError(error.what, where=str(folder), do=OTHER) from None


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run."""
    found = sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())
    return found[-1] if found else None


def _facts(path: Path) -> dict[str, Any]:
    """Return the progress that `save_state` was given."""
    found = read_json(path / "state.json")
    if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
        raise RunError(
            f"its format is not {FORMAT}",
            where=str(path / "state.json"),
            do="resume it with the version of langue that wrote it",
        )
    return found


def load_state(
    path: Path, model: nn.Module, optimizer: Optimizers, average: dict[str, Tensor]
) -> dict[str, Any]:
    """Restore weights, optimizer state and averages; return the progress that `save_state` was
    given.
    """
    progress = _facts(path)
    named = dict(trained_parameters(model))

    def like(key: str) -> Tensor | None:
        """Return a tensor with the shape and sharding to use for a tensor of the checkpoint."""
        kind, _, name = key.partition(".")
        weight = torch.tensor(0.0) if kind == "step" else named.get(name)
        if kind + "." == AVERAGE:
            weight = named.get(name, average.get(name)) if name in average else None
        # a whole tensor, which `distribute_like` shards later
        return weight if weight is None or is_row_sharded(weight) else torch.zeros(weight.shape)

    if (path / "optimizer.safetensors").is_file():
        load_weights(path, model)
        kept = read_safetensors(path / "optimizer.safetensors")
    else:
        kept = read_shards(path, like)
        weights = {key: kept.pop(key) for key in list(kept) if key.startswith(WEIGHT)}
        _put({key.removeprefix(WEIGHT): tensor for key, tensor in weights.items()}, model, path)
    for name, tensor in average.items():
        tensor.copy_(_taken(kept, AVERAGE + name, named.get(name, tensor), path))
    kinds: dict[str, list[str]] = defaultdict(list)
    for key in kept:
        kinds[key.partition(".")[2]].append(key.partition(".")[0])
    names: dict[Tensor, str] = {weight: name for name, weight in named.items()}
    for weight, state, memories in optimizer.state():
        name = names[weight]
        if kinds[name] and set(kinds[name]) != memories:
            raise RunError(
                f"{kinds[name][0]} of {name} is of another optimiser", where=str(path), do=OTHER
            )
        for kind in kinds[name]:
            key = f"{kind}.{name}"
            state[kind] = _taken(
                kept, key, weight if kind != "step" else torch.tensor(0.0), path
            ).to(weight.device)
    if kept:
        raise RunError(f"{next(iter(kept))} is of no weight", where=str(path), do=OTHER)
    return progress


def _taken(kept: dict[str, Tensor], name: str, like: Tensor, path: Path) -> Tensor:
    tensor = kept.pop(name, None)
    if tensor is None or tensor.shape != like.shape:
        raise RunError(f"no fitting {name}", where=str(path), do=OTHER)
    return distribute_like(tensor, like)


def keep_batches(folder: Path, step: int, batches: Sequence[Any]) -> Path:
    """Save the tokens of a step's batches for inspection, in suspect-STEP.safetensors with `tokens`
    and `starts` of each.
    """
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
