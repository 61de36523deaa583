"""The parts of a model in use: takes a described model; returns its modules with their weights. A
base and each of its adapters are separate `Parts` around the same weights.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from langue.errors import ModelError
from langue.hub.checkpoint import (
    Checkpoint,
    Description,
    classes_of,
    family_of,
    is_quantized,
    load_into,
    read_checkpoint,
    without_extra,
)
from langue.hub.family import EXTRA_PREFIX
from langue.model.heads import TaskModel
from langue.model.language_model import LanguageModel, build_on_meta, on_meta_device
from langue.model.transformer import Transformer
from langue.runs.save import head_of, task_of
from langue.runs.weight_plan import STORED, WeightPlan
from langue.runtime import device
from langue.tasks.task import Task


@dataclass(frozen=True)
class Parts:
    """A checkpoint in use: for a task, as a language model, or as its body alone."""

    checkpoint: Checkpoint
    body: Transformer
    task: Task | None
    # with the task's head; equal to `language` for a task that generates text
    network: nn.Module | None
    language: LanguageModel | None


def read_parts(
    described: Description,
    kind: torch.dtype,
    held: str | None,
    table: str | None = None,
    trained_so: bool = False,
    widen: bool = False,
) -> Parts:
    """Return the parts of a described model, with their weights.

    kind: the format of matrix products. held, table: as in `WeightPlan`. trained_so: whether
    adapters may have been trained on weights in this format. widen: add embedding rows for the
    tokens that were added to the tokenizer.
    """
    task = task_of(described)
    head = "lm" if task is None else head_of(task, described)
    quantized = is_quantized(described.published)
    if held == "int4" and not trained_so and family_of(described)[1].architecture == "encoder":
        raise ModelError(
            "an encoder is not held in int4, whose errors go straight into its states",
            where=str(described.folder),
            do="use int8",
        )
    # what is quantized on loading is read in the precision of the file
    checkpoint = read_checkpoint(
        described,
        head,
        weights_dtype=None if held else kind,
        stored=held == STORED or (quantized and held in ("int8", "int4")),
        widen=widen,
    )
    if widen:
        from langue.hub.new_tokens import widened

        checkpoint = widened(checkpoint)
    plan = None if held is None else WeightPlan(checkpoint, held, table)
    where = str(checkpoint.folder)
    network: nn.Module | None = None
    language = None
    if task is None or task.has_language_head:
        body, language = _language_model(checkpoint, kind, plan)
        network = None if task is None else language
    else:
        with on_meta_device():
            network = task.network(checkpoint.config, pad=checkpoint.pad)
        assert isinstance(network, TaskModel)
        if plan is not None:
            plan.prepare(network.body, "body.")
        tensors = without_extra(checkpoint.weights)
        load_into(network, tensors, where=where, copy=False, weights_dtype=kind)
        if plan is not None:
            network.body = plan.apply(network.body)
        body = network.body
    # if only the body is used, the head stays on the meta device
    (network or language or body).to(device()).eval()
    # tensors of the file in another precision are not kept
    if held is not None or kind != torch.float32:
        prefix = "" if network or language else "body."
        whole = {prefix + name: w for name, w in (network or language or body).named_parameters()}
        kept = {
            name: whole.get(name, tensor)
            for name, tensor in checkpoint.weights.items()
            if held is None or name in whole or name.startswith(EXTRA_PREFIX)
        }
        checkpoint = replace(checkpoint, weights=kept)
    return Parts(checkpoint, body, task, network, language)


def _language_model(
    checkpoint: Checkpoint, kind: torch.dtype, plan: WeightPlan | None
) -> tuple[Transformer, LanguageModel | None]:
    """Return the body, and the language model with its head if the folder has one."""
    where = str(checkpoint.folder)
    whole = build_on_meta(checkpoint.config)
    if plan is not None:
        plan.prepare(whole)
    weights = without_extra(checkpoint.weights)
    family = checkpoint.family
    classes = classes_of(checkpoint.published)
    absent = load_into(whole, weights, where=where, new="head.", copy=False, weights_dtype=kind)
    # A folder without any head weights still provides hidden states; calls that need the head raise
    # an error.
    if absent and len(absent) < len(list(whole.head.parameters())):
        raise ModelError(
            f"weights of the language-model head missing: {', '.join(absent[:3])}", where=where
        )
    speaks = len(list(whole.head.parameters())) or family.has_lm_head(checkpoint.config, classes)
    speaks = speaks and not absent and not family.other(classes)
    if plan is not None and speaks:
        whole = plan.apply(whole)
    elif plan is not None:
        return plan.apply(whole.body, "body."), None
    return whole.body, whole if speaks else None
