"""What arrives: a task, a pretrained model, labelled data and settings. What leaves: a run
directory, judged.
"""

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
    """Fine-tune a pretrained encoder or decoder on labelled text and judge it.

    task: one of `langue.tasks.TASKS`. model: Hub name or folder. data: file, folder, Hub name, or
    rows. columns: ours -> theirs, `{"text": "review"}`. recipe: a TOML file with the same keys.
    keep_checkpoints: a finished run keeps what it can be trained longer from, by resume with more
    epochs or steps: three times the model's size. settings: `section.key` values such as
    `**{"train.lr": 3e-5}`, or with two underscores, `train__lr=3e-5`. show: called with what was
    prepared, before training. Of the embedding the rows in use are trained
    (train/embedding_rows.py). folds, seeds, shares: a run on each of so many folds of the training
    rows, with so many seeds, on each of these shares of them; they are then in folders below `out`,
    whose metrics.json sums them up. Raises LangueError for anything the user can mend. Processes
    that torchrun started train together; the first writes, shows and judges.
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
