"""What arrives: a task, a pretrained model, labelled data and settings. What leaves: a run
directory, judged.
"""

from collections.abc import Callable, Mapping
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
    show: Callable[[Finetuning], None] | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a pretrained encoder or decoder on labelled text and judge it.

    task: one of `langue.tasks.TASKS`. model: Hub name or folder. data: file, folder, Hub
    name, or rows. columns: ours -> theirs, `{"text": "review"}`. recipe: a TOML file with the same
    keys. settings: `section.key` values such as `**{"train.lr": 3e-5}`, or with two underscores,
    `train__lr=3e-5`. show: called with what was prepared, before training. Of the embedding the
    rows in use are trained (train/embedding_rows.py). Raises LangueError for anything the user can
    mend. Processes that torchrun started train together; the first writes, shows and judges.
    """
    given = {"task": task, "model": model, "data": data, "columns": columns}
    return execute(
        FINETUNE, given, settings, out=out, recipe=recipe, force=force, resume=resume, show=show
    )
