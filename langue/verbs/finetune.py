"""Fine-tune a pretrained model on labelled data, and evaluate it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.runs.arguments import FINETUNE
from langue.runs.execute import Run, execute
from langue.runs.prepare import Finetuning
from langue.train.parallel import processes


@processes()
def finetune(
    task: str | None = None,
    *,
    model: str | Path | None = None,
    data: Any = None,
    out: str | Path,
    columns: Mapping[str, str] | None = None,
    recipe: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    keep_checkpoints: bool = False,
    folds: int | None = None,
    seeds: int | None = None,
    shares: Sequence[float] | None = None,
    show: Callable[[Finetuning], None] | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a pretrained model on labelled text, evaluate it, and return the run.

    task: one of `langue.tasks.TASKS`.
    model: a Hub name or a folder.
    data: a file, a folder, a Hub name, or rows.
    out: the run's folder. force: replace an existing run; resume: continue a stopped one.
    columns: our names -> names in the data, such as `{"text": "review"}`.
    recipe: a TOML file with the same keys.
    keep_checkpoints: keep the training state of a finished run, three times the model's size, so
        that resume can train it for more epochs or steps.
    folds, seeds, shares: one run on each of this many folds of the training rows, with each of this
        many seeds, or on each of these shares of the training rows; the runs are in folders below
        `out`, whose metrics.json summarises them.
    show: called with the prepared data and model before training.
    settings: `section.key` values such as `**{"train.lr": 3e-5}` or, with two underscores,
        `train__lr=3e-5`; `langue.settings()` lists them.

    Only the embedding rows of tokens in use are trained (train/embedding_rows.py). Processes
    started by torchrun train together; the first one writes, shows and evaluates. Raises
    LangueError for every error that the user can correct.
    """
    given = {"task": task, "model": model, "data": data, "columns": columns}
    if folds is not None or seeds is not None or shares is not None:
        from langue.runs.repeat import repeat

        return repeat(
            given,
            settings,
            out=out,
            folds=folds,
            seeds=seeds,
            shares=shares,
            recipe=recipe,
            force=force,
            resume=resume,
            show=show,
        )
    return execute(
        FINETUNE,
        given,
        settings,
        out=out,
        recipe=recipe,
        force=force,
        resume=resume,
        show=show,
        keep_checkpoints=keep_checkpoints,
    )
