"""Stopped runs: takes the folder of a run that was stopped; returns how far it has come, and how to
resume it.
"""

import shlex
from pathlib import Path
from typing import Any

from langue.runs.folder import CHECKPOINTS, METRICS, RECIPE
from langue.settings.recipe import read_recipe
from langue.train.journal import read_log

LOG = "log.jsonl"


def stopped_run(folder: str | Path) -> dict[str, Any] | None:
    """Return the state of an unfinished run, `{"run", "train", "dev", "checkpoint", "resume"}`;
    None if it is finished, or there is no run.

    train, dev: the last lines of its log. checkpoint: the latest step to resume from; None if it
    would start again. resume: the command.
    """
    path = Path(folder)
    if not (path / RECIPE).is_file() or (path / METRICS).is_file():
        return None
    recipe = read_recipe(path / RECIPE)
    log = read_log(path / LOG) if (path / LOG).is_file() else []
    verb = "pretrain" if "task.objective" in recipe else "finetune"
    last = {line["split"]: line for line in log}
    steps = sorted((path / CHECKPOINTS).glob("step-*"))
    return {
        "run": str(folder),
        "epochs": recipe.get("train.epochs"),
        "max_steps": recipe.get("train.max_steps"),
        "train": last.get("train"),
        "dev": last.get("dev"),
        "checkpoint": int(steps[-1].name.removeprefix("step-")) if steps else None,
        "resume": f"langue {verb} --out {shlex.quote(str(folder))} --resume",
    }
