"""What arrives: a training run at some step.
What leaves: a folder from which it goes on bit for bit; and the run again.

All randomness is a function of (seed, step) and all order of (seed, epoch), so the state is the
weights, what the optimisers remember of each, and a few counts. safetensors and JSON only: a
resumable checkpoint can be given to others without risk. Where processes share the model, each
writes its part (shards.py); any number of them reads either kind.
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
WEIGHT = "weight."  # before the names of the weights, where all tensors are in one file
AVERAGE = "average."  # before the names of the averaged weights
OTHER = "it is of another model or optimiser: put the run's own back, or start a new run"


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizers,
    progress: dict[str, Any],
    average: dict[str, Tensor],
    writer: Writer | None = None,
) -> Path:
    """Write `folder`/step-NNNNNNNN, complete or absent, then drop the older ones. average: an EMA
    of the weights.

    With a writer each process writes its part, and it is complete when `writer.wait` returns; else
    the first does.
    """
    path = folder / f"step-{progress['step']:08d}"
    names: dict[Tensor, str] = {weight: name for name, weight in trained_parameters(model)}
    of = {name: weight for weight, name in names.items()}
    kept = {
        f"{kind}.{names[weight]}": t
        for weight, state, _ in optimizer.state()
        for kind, t in state.items()
    }
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
    memories = {key: gather_full(t, of.get(key.partition(".")[2])) for key, t in kept.items()}
    if rank() == 0:
        with atomic_folder(path) as temporary:
            save_file(weights, str(temporary / "model.safetensors"))
            save_file(memories, str(temporary / "optimizer.safetensors"))
            write_json(temporary / "state.json", facts)
        done()
    return path


def save_best(folder: Path, model: nn.Module, step: int, metrics: dict[str, Any]) -> None:
    """Keep the weights of the best evaluation, and those of the best one before the newest
    checkpoint: a run that goes on from there may find no better ones. A run resumed from before it
    reaches it again and writes it again.
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
    """Only once the new one is complete on disk, remove the others of its kind, and what a run that
    was killed had begun to write.
    """
    kind = path.name.split("-")[0]
    for other in [*path.parent.glob(f"{kind}-*"), *path.parent.glob(f".{kind}-*")]:
        if other not in (path, beside):
            shutil.rmtree(other)


def save_weights(folder: Path, model: nn.Module) -> None:
    save_file(_whole_weights(model), str(folder / "model.safetensors"))


def _whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights that are trained, one gathered after another; in the first process only, where
    they are divided.
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
    """The newest complete checkpoint of a run."""
    found = sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())
    return found[-1] if found else None


def _facts(path: Path) -> dict[str, Any]:
    """What `save_state` was given as progress."""
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
    """Put weights, memories and averages back; returns what `save_state` was given as progress."""
    progress = _facts(path)
    named = dict(trained_parameters(model))

    def like(key: str) -> Tensor | None:
        """What the tensor of a checkpoint is shaped and divided as."""
        kind, _, name = key.partition(".")
        weight = torch.tensor(0.0) if kind == "step" else named.get(name)
        if kind + "." == AVERAGE:
            weight = named.get(name, average.get(name)) if name in average else None
        # whole: `distribute_like` cuts it
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
    """The tokens of a step's batches, for inspection: suspect-STEP.safetensors with `tokens` and
    `starts` of each.
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
