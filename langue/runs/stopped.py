"""What arrives: the folder of a run that was stopped. What leaves: how far it has come, and how it
goes on.
"""

import shlex
from pathlib import Path
from typing import Any

from langue.runs.folder import CHECKPOINTS, METRICS, RECIPE
from langue.settings.recipe import read_recipe
from langue.train.journal import read_log

LOG = "log.jsonl"


def stopped_run(folder: str | Path) -> dict[str, Any] | None:
    """What the files of a run say that has not come to its end; None where it has, or where there
    is no run: `{"run", "train", "dev", "checkpoint", "resume"}`.

    train, dev: the last lines of its log; checkpoint: the newest step that it can go on from, None
    where it begins anew; resume: the command for it.
    """
    path = Path(folder)
    if not (path / RECIPE).is_file() or (path / METRICS).is_file():
        return None
    recipe = read_recipe(path / RECIPE)
    log = read_log(path / LOG) if (path / LOG).is_file() else []
    verb = "pretrain" if "task.objective" in recipe else "finetune"
    steps = sorted((path / CHECKPOINTS).glob("step-*"))
    return {
        "run": str(folder),
        "epochs": recipe.get("train.epochs"),
        "max_steps": recipe.get("train.max_steps"),
        **{
            split: next((line for line in reversed(log) if line["split"] == split), None)
            for split in ("train", "dev")
        },
        "checkpoint": int(steps[-1].name.removeprefix("step-")) if steps else None,
        "resume": f"langue {verb} --out {shlex.quote(str(folder))} --resume",
    }
