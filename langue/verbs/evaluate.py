"""What arrives: a trained run and labelled text, or text. What leaves: scores with intervals, the
baseline beside.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.files import refuse_existing, write_json
from langue.runs.compare import compare_runs
from langue.runs.harness import evaluate_task_file
from langue.runs.judge import evaluate_run
from langue.runs.notebook import Result
from langue.runs.show import print_run, print_task
from langue.runtime import computing
from langue.tasks.judgement import Section


def evaluate(
    run: str | Path,
    other: str | Path | None = None,
    *,
    data: Any = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    force: bool = False,
    show: Callable[[Sequence[Section]], None] | None = None,
    task_file: str | Path | None = None,
    few_shot: int | None = None,
    limit: int | None = None,
    samples: str | Path | None = None,
    batch_tokens: int | None = None,
    device: str | None = None,
) -> Result:
    """Judge a run on a split of its own data, or on other data; returns the content of
    metrics.json. Of a pretraining run it is judged how well it predicts the text that was held out,
    or other text; of a published language model, how well it predicts `data`.

    split: train, dev or test; None: test, or dev where there is no other.

    The baseline is trained on the run's own training split; where that cannot be read any more it
    is left out and the result says so. Of other data the result also says how many texts stand in
    that split (`seen`). `out`: also write the result there as JSON.
    other: another run of the same task, which stands in the baseline's place: both answer the same
    rows, and the difference in the main metric is tested in pairs.
    batch_tokens, device: as of `predict`.
    `show`: called with the sections of a report that are not in the result: scores by label,
    confusions, mistakes.

    task_file: instead, any language model is asked what a task file of `lm-evaluation-harness` asks
    of its rows, or of `data`; columns are then names in the task file -> names in the data. There,
    few_shot: examples before each question; limit: of the rows, the first so many; samples: a file
    for what each row was asked and answered, one JSON object a line.
    """
    refuse_existing(out, force)
    refuse_existing(samples, force)
    with computing(device, batch_tokens):
        if task_file is not None:
            _check_task_file(other, split)
            content = evaluate_task_file(
                run,
                task_file,
                data=data,
                columns=columns,
                few_shot=few_shot,
                limit=limit,
                samples=samples,
            )
        else:
            _check_no_task_file(few_shot=few_shot, limit=limit, samples=samples)
            if other is None:
                content = evaluate_run(run, data=data, split=split, columns=columns, show=show)
            else:
                content = compare_runs(run, other, data=data, split=split, columns=columns)
    if out is not None:
        write_json(Path(out), content)
    return Result(content, print_run if task_file is None else print_task)


def _check_task_file(other: Any, split: str | None) -> None:
    """SettingsError at what says nothing beside a task file."""
    if other is not None:
        raise SettingsError(
            "two runs are compared on their own task",
            do="leave --task-file or the second run out",
        )
    if split is not None:
        raise SettingsError(
            f"split = {split} is of runs, and a task file says its own",
            do="leave --split out: write test_split there, or name one file with --data",
        )


def _check_no_task_file(**asked: Any) -> None:
    """SettingsError at what is of task files alone."""
    if extra := [name for name, value in asked.items() if value is not None]:
        raise SettingsError(
            f"{extra[0]} is of task files", do="give one with --task-file, or leave it out"
        )
