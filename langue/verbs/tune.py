"""Search hyperparameters of fine-tuning, and evaluate the best trial."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from langue.runs.notebook import Result
from langue.runs.show_study import print_study
from langue.runs.tune import tune_run
from langue.train.journal import read_log


def tune(
    task: str | None = None,
    *,
    model: str | Path | None = None,
    data: Any = None,
    out: str | Path,
    trials: int = 20,
    seeds: int = 1,
    columns: Mapping[str, str] | None = None,
    recipe: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> Result:
    """Search for good settings of fine-tuning, and return the content of result.json.

    task, model, data, columns, recipe: as in `finetune`.
    out: the study's folder; its best.toml is a recipe for `finetune`.
    trials: total number of trials, including those before a resume.
    seeds: runs of each trial, whose mean counts.
    resume: continue a stopped study.
    settings: as in `finetune`, or search spaces: a range, `train__lr="1e-5..1e-3"`, or a list of
        values, `**{"train.epochs": [1, 2, 4]}` (langue/settings/space.py).

    Raises LangueError for every error that the user can correct. Needs the extra `langue[tune]`.
    """
    given = {"task": task, "model": model, "data": data, "columns": columns}
    content = tune_run(
        given, settings, out=out, trials=trials, seeds=seeds, recipe=recipe, resume=resume
    )
    lines = read_log(Path(out) / "trials.jsonl")
    return Result(content, partial(print_study, lines=lines))
