"""What arrives: a trained task model.
What leaves: the files of a run that make it loadable, here and by `transformers`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from langue.files import write_json
from langue.hub.checkpoint import Checkpoint, write_checkpoint
from langue.hub.family import Family
from langue.settings import DataSettings, TaskSettings
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.tasks.task import Task


def write_task_checkpoint(
    folder: Path, checkpoint: Checkpoint, task: Task, weights: Mapping[str, Tensor], data: DataSettings
) -> None:
    write_checkpoint(
        folder,
        family=checkpoint.family,
        config=checkpoint.config,
        weights=weights,
        tokenizer=checkpoint.tokenizer,
        head=task.head_kind,
        extra=task.published(),
        published=checkpoint.published,
    )
    kept = {"max_length": data.max_length, "cut": data.cut}
    write_json(folder / "langue.json", {"task": task.name, **task.to_dict(), "data": kept})


def expressible(task: Task, family: Family) -> str:
    """What `transformers` users get from the saved folder, in one plain sentence."""
    if "classify" not in family.heads:
        return (
            f"transformers: no class for this head on {family.name}; AutoModel loads the body, the head stays langue's."
        )
    if task.head_kind == "classify":
        return "transformers: AutoModelForSequenceClassification gives the same logits."
    return (
        "transformers: its classes cannot express mean pooling, so AutoModel loads the body and the head stays "
        "langue's; train with task.pooling=first where you need AutoModelForSequenceClassification."
    )


def task_files(published: dict[str, Any]) -> Task | None:
    """The task of a sequence classifier published in `transformers`' words, or None."""
    if not any(name.endswith("ForSequenceClassification") for name in published.get("architectures") or []):
        return None
    labels = published.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    names = [str(labels[key]) for key in sorted(labels, key=int)]
    kind = published.get("problem_type")
    settings = TaskSettings(pooling="first", multi_label=kind == "multi_label_classification")
    if kind == "regression" or (kind is None and len(names) == 1):
        return Regress(settings)
    return Classify(names, settings)
