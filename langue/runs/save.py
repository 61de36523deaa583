"""What arrives: a trained task model.
What leaves: the files of a run that make it loadable, here and by `transformers`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

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


def head_of(task: Task, described: Description) -> str | None:
    """The kind of head that the task has on this model, to which the task is adapted."""
    family, config = family_of(described)
    task.adapt_to(config)
    return task.head_kind(family)


def write_task_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    task: Task,
    weights: Mapping[str, Tensor],
    data: DataSettings,
    pairs: bool | None = None,
    stored: "Mapping[str, AnyWeight] | None" = None,
) -> None:
    """pairs: whether the task is one of pairs of texts; None: it is not known. stored: as in
    `write_checkpoint`.
    """
    family = checkpoint.family
    own_class = family.body_class(checkpoint.config) in classes_of(checkpoint.published)
    if task.head_kind(family) is None and own_class:  # what is kept is the body's, as a pooler
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
    """langue.json, beside the tokenizer, which is told where texts are cut. more: other keys."""
    # Where `transformers` cuts texts, if it is told to, and on which side it cuts and pads: a
    # decoder's positions count from a text's first token, which left padding would move.
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
    """checkpoint: what its training began from; of a new model, without weights."""
    special = objective.special
    # What began and ended its texts: a tokenizer such as BERT's has [CLS] and [SEP] in their place.
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
    """langue.json of a language model. more: its other keys."""
    kept = {"max_length": data.seq_len, "truncation": "head"}
    facts = {"objective": objective.name, "data": kept}
    write_json(folder / "langue.json", facts | dict(more or {}))


def task_of(described: Description) -> Task | None:
    """The task of a run of ours, or of a model with such a head that `transformers` saved."""
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
