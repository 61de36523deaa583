"""Saving: takes a model, trained or as it was loaded; writes the files from which langue and
`transformers` can load it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from langue.errors import ModelError
from langue.files import read_json, write_json
from langue.hub.checkpoint import (
    Checkpoint,
    Description,
    classes_of,
    family_of,
    write_checkpoint,
)
from langue.hub.families.registry import FAMILIES
from langue.hub.family import EXTRA_PREFIX
from langue.settings.sections import DataSettings
from langue.tasks import TASKS
from langue.tasks.task import Task

if TYPE_CHECKING:
    from langue.model.weight_kinds import AnyWeight
    from langue.tasks.language import LanguageObjective


def refuse_filled(folder: str | Path) -> None:
    """Raise ModelError if writing a model to the folder would overwrite something."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ModelError(
            "the folder exists and is not empty, or is a file",
            where=str(path),
            do="choose another",
        )


def head_of(task: Task, described: Description) -> str | None:
    """Return the kind of head that the task has on this model, and adapt the task to the model."""
    family, config = family_of(described)
    task.adapt_to(config)
    return task.head_kind(family)


def write_published(
    folder: Path, checkpoint: Checkpoint, body: nn.Module, language: nn.Module | None
) -> None:
    """Write a model without a langue task in its publisher's form: with its language-model head or,
    if it has none, the body alone.
    """
    from langue.model.weight_linear import tensors_and_weights

    if language is None:
        tensors, stored = tensors_and_weights(body)
        tensors = {f"body.{name}": tensor for name, tensor in tensors.items()}
        stored = {f"body.{name}": weight for name, weight in stored.items()}
    else:
        tensors, stored = tensors_and_weights(language)
    for name, weight in checkpoint.weights.items():
        if name.startswith(EXTRA_PREFIX):
            tensors[name] = weight
    write_checkpoint(
        folder,
        family=checkpoint.family,
        config=checkpoint.config,
        weights=tensors,
        tokenizer=checkpoint.tokenizer,
        head=None if language is None else "lm",
        published=checkpoint.published,
        writes=checkpoint.writes,
        stored=stored,
    )


def write_task_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    task: Task,
    weights: Mapping[str, Tensor],
    data: DataSettings,
    pairs: bool | None = None,
    stored: "Mapping[str, AnyWeight] | None" = None,
) -> None:
    """Write a model with a task.

    pairs: whether the task reads pairs of texts; None: unknown. stored: as in `write_checkpoint`.
    """
    family = checkpoint.family
    own_class = family.body_class(checkpoint.config) in classes_of(checkpoint.published)
    # keep further weights of the body, such as a pooler
    if task.head_kind(family) is None and own_class:
        kept_weights = {n: w for n, w in checkpoint.weights.items() if n.startswith(EXTRA_PREFIX)}
        weights = {**weights, **kept_weights}
    write_checkpoint(
        folder,
        family=family,
        config=checkpoint.config,
        weights=weights,
        tokenizer=checkpoint.tokenizer,
        head=task.head_kind(family),
        extra=task.published() | task.published_head(family, checkpoint.batch_pad),
        published=checkpoint.published,
        writes=checkpoint.writes | task.generation(),
        stored=stored,
    )
    write_task_facts(folder, checkpoint, task, data, pairs)


def write_task_facts(
    folder: Path,
    checkpoint: Checkpoint,
    task: Task,
    data: DataSettings,
    pairs: bool | None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write langue.json, and the truncation length to the tokenizer's config; more: other keys of
    langue.json.
    """
    # `transformers` reads from these how it truncates and pads. A decoder counts positions from the
    # first token of a text, which padding on the left would shift.
    sides = {"padding_side": "right", "truncation_side": "right"}
    cuts = {"model_max_length": min(data.max_length, checkpoint.config.longest)}
    written = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**written, **sides, **cuts})
    task.write_beside(folder, checkpoint.config, data)
    kept: dict[str, Any] = {"max_length": data.max_length, "truncation": data.truncation}
    for name in ("source_language", "target_language", "encoding", "decimal_comma"):
        if (value := getattr(data, name)) is not None:
            kept[name] = value
    facts = {"task": task.name, **task.to_dict(), "data": kept, "pairs": pairs}
    write_json(folder / "langue.json", facts | dict(more or {}))


def write_language_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    objective: "LanguageObjective",
    weights: Mapping[str, Tensor],
    data: DataSettings,
) -> None:
    """Write a language model; checkpoint: its initial model, without weights if it was a new
    one.
    """
    special = objective.special
    # The tokens that began and ended its texts; BERT's tokenizer uses [CLS] and [SEP] for them.
    ids = {"bos_token_id": getattr(objective, "begin", special.bos), "pad_token_id": special.pad}
    ids["eos_token_id"] = getattr(objective, "end", special.eos)
    if checkpoint.config.decoder_layers:
        ids["decoder_start_token_id"] = getattr(objective, "start", None)
    write_checkpoint(
        folder,
        family=checkpoint.family,
        config=checkpoint.config,
        weights=weights,
        tokenizer=checkpoint.tokenizer,
        head="lm",
        published=ids | checkpoint.published,
        writes=checkpoint.writes,
    )
    write_objective_facts(folder, objective, data)


def write_objective_facts(
    folder: Path,
    objective: "LanguageObjective",
    data: DataSettings,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write langue.json of a language model; more: its other keys."""
    kept = {"max_length": data.seq_len, "truncation": "head"}
    facts = {"objective": objective.name, "data": kept}
    write_json(folder / "langue.json", facts | dict(more or {}))


def task_of(described: Description) -> Task | None:
    """Return the task of a langue run, or of a model with such a head that `transformers` saved."""
    ours = described.task is not None and "objective" not in described.task
    where = str(described.told / ("config.json" if described.task is None else "langue.json"))
    try:
        DataSettings.of_run((described.task or {}).get("data", {}))
        if described.task is None or not ours:
            family = FAMILIES.get(str(described.published.get("model_type")))
            if family is None:
                return None
            found = (each.from_published(described.published, family) for each in TASKS.values())
            return next((task for task in found if task is not None), None)
        kind = str(described.task.get("task"))
        if kind not in TASKS:
            raise ModelError(f"the task {kind!r} is not known", where=where)
        return TASKS[kind].from_dict(described.task)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise ModelError(
            f"the task cannot be followed ({type(error).__name__}: {said})", where=where
        ) from error
