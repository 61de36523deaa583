"""What arrives: a trained task model.
What leaves: the files of a run that make it loadable, here and by `transformers`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from langue.errors import ModelError
from langue.files import read_json, write_json
from langue.hub.checkpoint import Checkpoint, Description, classes_of, family_of, write_checkpoint
from langue.hub.families.registry import FAMILIES
from langue.hub.family import Family
from langue.settings.sections import DataSettings, TaskSettings
from langue.tasks import TASKS
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.tasks.task import Task


def head_of(task: Task, described: Description) -> str:
    """The kind of head that the task has on this model; which pooling `auto` is is settled with
    it."""
    family, config = family_of(described)
    task.resolve_pooling(config)
    return family.head_kind(task.settings.pooling)


def write_task_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    task: Task,
    weights: Mapping[str, Tensor],
    data: DataSettings,
    pairs: bool | None = None,
) -> None:
    """pairs: whether the task is one of pairs of texts; None: it is not known."""
    family = checkpoint.family
    pooling = task.settings.pooling
    length = checkpoint.config.longest
    kind = family.head_kind(pooling)
    said = dict(family.poolings[pooling]) if kind == "classify" else {}
    # told or not: a class's default would be another token
    if kind == "classify" and pooling == "last":
        said["pad_token_id"] = checkpoint.batch_pad
    write_checkpoint(
        folder,
        family=family,
        config=checkpoint.config,
        weights=weights,
        tokenizer=checkpoint.tokenizer,
        head=kind,
        extra=task.published() | said,
        published=checkpoint.published,
    )
    # Where `transformers` cuts texts, if it is told to, and on which side it cuts and pads: a
    # decoder's positions count from a text's first token, which left padding would move.
    sides = {"padding_side": "right", "truncation_side": "right"}
    cuts = {"model_max_length": min(data.max_length, length)}
    written = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**written, **sides, **cuts})
    kept: dict[str, Any] = {"max_length": data.max_length, "truncation": data.truncation}
    languages = {"source_language": data.source_language, "target_language": data.target_language}
    kept |= {name: code for name, code in languages.items() if code is not None}
    write_json(
        folder / "langue.json", {"task": task.name, **task.to_dict(), "data": kept, "pairs": pairs}
    )


def describe_transformers_support(task: Task, family: Family, data: DataSettings) -> str:
    """What `transformers` users get from the saved folder, in one plain sentence."""
    if "classify" not in family.heads:
        return (
            f"transformers: no class for this head on {family.name}; AutoModel loads the body, the"
            " head stays langue's, and AutoModelForSequenceClassification refuses the folder."
        )
    if family.head_kind(task.settings.pooling) == "classify":
        cut = f"of texts of more than {data.max_length} tokens it is given "
        if data.truncation == "head":
            return (
                "transformers: AutoModelForSequenceClassification gives the same logits;"
                f" {cut}truncation=True."
            )
        kept = {"head-tail": "beginning and end", "tail": "end"}[data.truncation]
        return (
            "transformers: AutoModelForSequenceClassification gives the same logits where nothing"
            f" is cut; {cut}the beginning by truncation=True, where here the {kept} is kept"
            " (data.truncation=head keeps the same)."
        )
    return (
        f"transformers: its {family.architectures['classify']} cannot express"
        f" {task.settings.pooling} pooling, so AutoModel loads the body and the head stays"
        f" langue's; train with task.pooling={' or '.join(family.poolings)} where you need"
        " AutoModelForSequenceClassification, which refuses this folder."
    )


def task_of(described: Description) -> Task | None:
    """The task of a run of ours, or of a classifier that `transformers` saved."""
    ours = described.task is not None and "objective" not in described.task
    where = str(described.folder / ("config.json" if described.task is None else "langue.json"))
    try:
        DataSettings.of_run((described.task or {}).get("data", {}))
        if described.task is None or not ours:
            return _published_task(described.published)
        kind = str(described.task.get("task"))
        if kind not in TASKS:
            raise ModelError(f"the task {kind!r} is not known", where=where)
        return TASKS[kind].from_dict(described.task)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise ModelError(
            f"the task cannot be followed ({type(error).__name__}: {said})", where=where
        ) from error


def _published_task(published: dict[str, Any]) -> Task | None:
    """The task of a sequence classifier published in `transformers`' words, or None."""
    classes = [name for name in classes_of(published) if name.endswith("ForSequenceClassification")]
    family = FAMILIES.get(str(published.get("model_type")))
    if not classes or family is None or "classify" not in family.heads:
        return None
    said = family.poolings.items()
    fits = [
        name
        for name, words in said
        if all(published.get(key, value) == value for key, value in words.items())
    ]
    if not fits:
        known = ", ".join(str(value) for _, words in said for value in words.values())
        key = next(key for _, words in said for key in words)
        raise ModelError(
            f"config: {key} = {published.get(key)!r} is not known", do=f"known: {known}"
        )
    labels = published.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    names = [str(labels[key]) for key in sorted(labels, key=int)]
    kind = published.get("problem_type")
    several = kind == "multi_label_classification"
    settings = TaskSettings.model_validate({"pooling": fits[0], "multi_label": several})
    if kind == "regression" or (kind is None and len(names) == 1):
        return Regress(settings)
    return Classify(names, settings)
