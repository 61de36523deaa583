"""Evaluate a trained run or a language model: metrics with confidence intervals, beside a
baseline.
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
    """Evaluate a run on a split of its own data or on other data, and return the content of
    metrics.json.

    A pretraining run is evaluated on how well it predicts the held-out text, or other text; a
    published language model on how well it predicts `data`. The baseline is trained on the run's
    own training split; if that can no longer be read, the baseline is omitted and the result says
    so. For other data the result also contains the number of texts that occur in the training split
    (`seen`).

    run: a run, or a language model.
    other: another run of the same task, which replaces the baseline: both answer the same rows, and
        the difference in the main metric is tested with a paired test.
    data: other data; None: the run's own.
    split: train, dev or test; None: test, or dev if there is no test split.
    columns: our names -> names in the data.
    out: a JSON file to which the result is also written; force: replace existing files.
    show: called with the sections of the report that are not in the result, such as scores by
        label, confusion matrix and mistakes.
    batch_tokens, device: as in `predict`.
    task_file: a task file of `lm-evaluation-harness`; a language model is then evaluated with its
        prompts, on its rows or on `data`, and columns maps names in the task file to names in the
        data.
    few_shot: number of examples before each question, with a task file.
    limit: use only the first rows, with a task file.
    samples: a file for prompts and answers, one JSON object per line, with a task file.

    Raises SettingsError for arguments that contradict each other.
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
    """Raise SettingsError for arguments that have no meaning with a task file."""
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
    """Raise SettingsError for arguments that only have a meaning with a task file."""
    if extra := [name for name, value in asked.items() if value is not None]:
        raise SettingsError(
            f"{extra[0]} is of task files", do="give one with --task-file, or leave it out"
        )
