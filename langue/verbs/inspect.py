"""Describe a model: its structure with shapes, what it can do, and how much memory it needs.

Only config and tokenizer are read; the shapes of the weights follow from the config.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from langue.hub.checkpoint import Description, classes_of, describe, family_of, read_tokenizer
from langue.hub.family import parameters
from langue.model.config import ANY_LENGTH, ModelConfig
from langue.model.language_model import on_meta_device
from langue.planning.memory import (
    FULL,
    Layout,
    Sizes,
    memory,
    memory_to_use,
)
from langue.runs.notebook import Result
from langue.runs.save import head_of, task_of
from langue.runs.show import print_model, print_stopped
from langue.runs.stopped import stopped_run
from langue.tasks.task import Task
from langue.text.tokenizers.classes import ROLES
from langue.text.tokenizers.languages import MARKS
from langue.text.tokenizers.special import special_ids
from langue.text.tokenizers.tokenizer import Tokenizer

BYTES = {"fp32": FULL, "bf16": 2}
NORMS = {
    "layer": "LayerNorm",
    "rms": "RMSNorm",
    "rms_offset": "RMSNorm",
    "rms_plain": "RMSNorm without weights",
}
PLACES = {"post": "after", "pre": "before", "both": "before and after", "after": "at the end of"}
POSITIONS = {
    **{
        "learned": "learned positions",
        "rotary": "rotary positions",
        "alibi": "ALiBi",
        "none": "no positions",
    },
    **{"sinusoidal": "sinusoidal positions", "sinusoidal_halves": "sinusoidal positions"},
    "sinusoidal_fairseq": "sinusoidal positions",
    "relative": "relative-position biases",
}


def inspect(model: str | Path, *, length: int = 512, revision: str | None = None) -> Result:
    """Describe a model: its tree of parameters, their number and bytes, its tokenizer, uses and
    memory.

    model: a Hub name, folder or run; for a stopped run, its progress is returned instead.
    length: number of tokens of the text for which memory is estimated.
    revision: a branch, tag or commit on the Hub.
    """
    stopped = stopped_run(model)
    if stopped is not None:
        return Result(stopped, print_stopped)
    described = describe(model, revision, weights=False)
    family, config = family_of(described)
    tokenizer = read_tokenizer(described)
    task = task_of(described)
    speaks = task is None and (
        described.original is not None
        or family.has_lm_head(config, classes_of(described.published))
    )
    shapes = {
        name.removeprefix("body."): tuple(shape)
        for name, shape in (
            parameters(config) if task is None else _with_head(described, config, task)
        ).items()
        if speaks or task or name.startswith("body.")
    }
    total = sum(math.prod(shape) for shape in shapes.values())
    adapter = None if described.adapter is None else _adapter(described)
    trained = total if adapter is None else adapter["trained"]
    facts = {
        "model": str(model),
        "family": family.name,
        "architecture": config.architecture,
        "task": task and {"name": task.name, "labels": task.output_names()},
        "axes": _axes(config),
        "parameters": total,
        "adapter": adapter,
        "bytes": {name: total * size for name, size in BYTES.items()},
        "context": None if config.max_length >= ANY_LENGTH else config.max_length,
        "tokenizer": _tokenizer(tokenizer),
        "uses": _uses(config, speaks, task),
        "memory": _memory(config, shapes, length, speaks, trained),
        "tree": _tree("model", shapes),
        "config": {name: value for name, value in config.to_dict().items()},
    }
    return Result(facts, print_model)


def _adapter(described: Description) -> dict[str, Any]:
    """Return the adapter's method, its base, and the number of trained weights."""
    from langue.hub.adapters import read_config, read_tensors

    assert described.adapter is not None
    said = read_config(described.adapter)
    tensors = read_tensors(described.adapter, family_of(described)[0])
    held = [
        *(t for own in tensors.adapters.values() for t in own.values()),
        *tensors.whole.values(),
    ]
    return {
        "method": said.method,
        "base": said.base,
        "maps": len(tensors.adapters),
        "trained": sum(tensor.numel() for tensor in held),
    }


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the tokenizer's kind and size, its special tokens by role, its language codes, and the
    contradictions between its files.
    """
    ids = asdict(special_ids(tokenizer))
    roles = {role: tokenizer.token(ids[role]) for role in ROLES if ids[role] is not None}
    languages = (
        []
        if tokenizer.languages is None
        else [code.strip(MARKS) for code in tokenizer.languages.codes]
    )
    return {
        "kind": type(tokenizer.backend.model).__name__,
        "tokens": len(tokenizer),
        "special": roles,
        "languages": languages,
        "notes": tokenizer.notes,
    }


def _axes(config: ModelConfig) -> list[str]:
    """Return a description of the layers."""
    rotary = f" of base {config.rotary_base:,.0f}" if config.position == "rotary" else ""
    if config.rotary_scaling != "none":
        rotary += f" ({config.rotary_scaling}, {config.rotary_factor:g} times the context)"
    scored = ", distances scored with contents" if config.is_disentangled else ""
    limited = [window for window in config.windows if window]
    return [
        f"{NORMS[config.norm]} {PLACES[config.norm_place]} each sublayer",
        POSITIONS[config.position] + rotary + scored,
        f"{config.n_heads} heads of {config.head_dim}"
        + (
            f", {config.n_kv_heads} of keys and values"
            if config.n_kv_heads != config.n_heads
            else ""
        )
        + (
            f", windows of {max(limited):,} in {len(limited)} of {config.n_layers} layers"
            if limited
            else ""
        ),
        ("gated " if config.gated else "")
        + f"{config.activation} of width {config.ffn_dim:,}"
        + (
            f", {config.experts_per_token} of {config.n_experts} experts a token"
            if config.n_experts
            else ""
        ),
    ]


def _with_head(described: Description, config: ModelConfig, task: Task) -> dict[str, torch.Size]:
    """Return `parameters` with a task's head instead of a language model's."""
    head_of(task, described)
    with on_meta_device():
        return {name: weight.shape for name, weight in task.network(config).named_parameters()}


def _uses(config: ModelConfig, speaks: bool, task: Task | None) -> list[str]:
    can = (
        ["hidden", "encode", "finetune"]
        + (["predict"] if task else [])
        + (["logits"] if speaks or task else [])
    )
    return can + (["generate"] if speaks and config.architecture != "encoder" else [])


def _memory(
    config: ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    length: int,
    speaks: bool,
    trained: int,
) -> dict[str, int]:
    """Return the bytes in fp32 for one text of this length, for inference and for training with
    AdamW, by the estimate of `langue plan`. trained: number of weights that have gradients and
    moments.
    """
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    blocks = sum(n for name, n in counts.items() if "blocks." in name)
    sizes = Sizes(sum(counts.values()), blocks)
    training = memory(config, sizes, length, Layout(), FULL, None, of_language=speaks)
    share = min(1.0, trained / max(1, sizes.total))
    frozen = (training.gradients + training.moments) * (1 - share)
    return {
        "inference": round(memory_to_use(config, sizes, length)),
        "training": round(training.total - frozen),
        "length": length,
    }


def _tree(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return a module with its shape, or with its submodules; identical layers are counted, not
    repeated.
    """
    if set(shapes) == {""}:
        size = math.prod(shapes[""])
        return {"name": name, "shape": list(shapes[""]), "parameters": size, "bytes": FULL * size}
    groups: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, shape in shapes.items():
        first, _, rest = path.partition(".")
        groups.setdefault(first, {})[rest] = shape
    parts: list[dict[str, Any]] = []
    for first, inside in groups.items():
        if parts and first.isdecimal() and parts[-1]["inside"] == inside:
            parts[-1]["times"] += 1
        else:
            parts.append({"name": first, "times": 1, "inside": inside})
    size = sum(math.prod(shape) for shape in shapes.values())
    children = []
    for part in parts:
        child = _tree(part["name"], part["inside"])
        if part["times"] > 1:
            last = int(part["name"]) + part["times"] - 1
            child |= {"name": f"{part['name']} to {last}", "times": part["times"]}
        children.append(child)
    return {"name": name, "parameters": size, "bytes": FULL * size, "parts": children}
