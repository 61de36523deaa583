"""What arrives: a task, a pretrained model, labelled data and a search space. What leaves: a study,
its best trial judged.
"""

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
    """Search settings of fine-tuning; returns the content of result.json.

    settings: as of `finetune`, or what is searched: a range, `train__lr="1e-5..1e-3"`, or a list of
    values, `**{"train.epochs": [1, 2, 4]}` (langue/settings/space.py). trials: in all, those before
    a resume included; seeds: runs of a trial, the mean of which counts. out: the study's folder,
    whose best.toml is a recipe for `finetune`. Raises LangueError for anything the user can mend.
    Needs the extra `langue[tune]`.
    """
    given = {"task": task, "model": model, "data": data, "columns": columns}
    content = tune_run(
        given, settings, out=out, trials=trials, seeds=seeds, recipe=recipe, resume=resume
    )
    lines = read_log(Path(out) / "trials.jsonl")
    return Result(content, partial(print_study, lines=lines))
