"""Comparison of runs: takes two runs of the same task, and labelled rows; returns the metrics of
both, and a paired test of their difference.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langue.errors import DataError, LangueError, ModelError, RunError
from langue.hub.checkpoint import describe
from langue.progress import bar, say
from langue.runs.folder import RECIPE
from langue.runs.judge import encode_rows, own_rows, rows_to_judge, split_of, task_model
from langue.runs.model import Model
from langue.runs.prepare import count_leaks, data_fingerprint
from langue.settings.recipe import display_name, read_recipe
from langue.statistics.compare import compare_systems
from langue.tasks.objective import LOSS
from langue.text.read.source import Source, Table


def compare_runs(
    run: str | Path,
    other: str | Path,
    *,
    data: Any = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of metrics.json of the first run, with the second run as its baseline.

    Both are evaluated on a split of the first run's data, or on other data. The comparison is of
    the first run's main metric (langue/statistics/compare.py). `seen` and `other_seen` are the
    numbers of texts that are in the training data of each.
    """
    first, recipe = _open(run)
    second, other_recipe = _open(other)
    task = first.task
    beside = second.task
    assert task is not None and beside is not None
    if task.name != beside.name or task.published() != beside.published():
        raise ModelError(
            "the two runs do not predict the same: their tasks or labels differ",
            where=f"{run} and {other}",
            do="compare runs of one task with the same labels",
        )
    source, train, notes = rows_to_judge(first, recipe, run, data, columns)
    split, table = split_of(source, split, display_name(run if data is None else data), notes)
    rows, golds, predictions = _predict(first, table, split, data is not None, notes)
    others = _predict(second, table, split, data is not None, notes)
    if len(rows) != len(others[0]):
        raise DataError(
            f"one run can read {len(rows):,} of the texts, the other {len(others[0]):,}",
            where=table.origin,
            do="take out the rows whose texts have no tokens",
        )
    for note in dict.fromkeys(notes):
        say(note)
    best = recipe.get("train.best")
    main = task.main_metric if best in (None, LOSS) else str(best)
    judgement = task.judge(golds, predictions, main)
    found = beside.beside(str(other), others[1], others[2])
    content = judgement.as_json(split, {**found.as_json(), "comparison": None}, 0.0)
    comparison = compare_systems(task.systems(golds, predictions, found, main), main)
    content["baseline"]["comparison"] = None if comparison is None else comparison.as_json()
    del content["baseline"]["seconds"]
    content["other"] = str(other)
    content["notes"] = []
    if data is not None and train is not None:
        content["seen"] = count_leaks(task, train[0], rows)
    found_there = _seen_by_other(second, other_recipe, Path(other), source, data is None, rows)
    if found_there is not None:
        content["other_seen"] = found_there
    return content


def _open(run: str | Path) -> tuple[Model, dict[str, Any]]:
    """Load a fine-tuned run and its recipe."""
    path = Path(run) / RECIPE
    recipe = read_recipe(path) if path.is_file() else {}
    described = describe(run)
    if described.task is not None and "objective" in described.task:
        raise RunError(
            "it was pretrained, and runs are compared that were fine-tuned",
            where=str(run),
            do="evaluate each alone on the same text: their losses a byte can be compared",
        )
    return task_model(run, recipe), recipe


def _predict(
    model: Model, table: Table, split: str, foreign: bool, notes: list[str]
) -> tuple[Table, Any, Any]:
    """Return the rows that can be evaluated, with their golds and predictions."""
    rows, encoded = encode_rows(model, table, split, foreign, notes)
    with bar(f"judging on {split}", len(encoded.examples)) as advance:
        predictions = model.apply(encoded, advance)
    return rows, encoded.golds, predictions


def _seen_by_other(
    model: Model,
    recipe: Mapping[str, Any],
    run: Path,
    source: Source,
    own: bool,
    rows: Table,
) -> dict[str, int] | None:
    """Return how many of the texts the second run was trained on; None if this is unknown, or if
    both runs have the same data.

    source: the data under evaluation. own: whether it is the first run's data.
    """
    assert model.task is not None
    try:
        theirs = own_rows(model, recipe, run)
    except LangueError as error:
        say(f"{run}: no look for texts of its training: {error.what}")
        return None
    same = data_fingerprint(model.task, theirs) == data_fingerprint(model.task, source)
    if own and same:
        return None
    assert theirs.train is not None
    return count_leaks(model.task, theirs.train, rows)
