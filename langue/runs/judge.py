"""Evaluation of runs: takes a trained model, and held-out or other data; returns and writes
metrics.json, curves.png and report.html, with a baseline for comparison.

This file evaluates labelled rows; `langue/runs/judge_language.py` evaluates text.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from langue.data.encoded import Encoded
from langue.errors import DataError, LangueError, RunError
from langue.evaluation import report
from langue.evaluation.curves import Curves
from langue.evaluation.facts import sections_of_facts
from langue.evaluation.judge import verdict
from langue.files import write_json
from langue.hub.checkpoint import describe
from langue.progress import bar, say
from langue.runs.folder import RECIPE, changed_data
from langue.runs.judge_language import (
    about_run,
    evaluate_text,
    is_language_model,
    judge_text,
)
from langue.runs.model import Model, load
from langue.runs.prepare import (
    Finetuning,
    Prepared,
    count_leaks,
    data_fingerprint,
    dropped_note,
    read_source,
    with_usable_targets,
)
from langue.runtime import device, precision
from langue.settings.recipe import ROWS, display_name, read_recipe, split_recipe
from langue.settings.sections import resolve
from langue.statistics.compare import compare_systems
from langue.tasks import OPTIONS
from langue.tasks.judgement import Judgement, Section
from langue.tasks.objective import LOSS
from langue.tasks.task import Task
from langue.text.read.source import Source, Table, read
from langue.text.read.table import SPLITS
from langue.train.journal import read_log
from langue.wording import counted

Show = Callable[[Sequence[Section]], None]


def judge_run(
    folder: Path, prepared: Prepared, network: nn.Module, seconds: float, tokens: int
) -> dict[str, Any]:
    """Evaluate a finished run, and write all that people read; return the content of metrics.json.

    seconds, tokens: duration and tokens of the training.
    """
    log = read_log(folder / "log.jsonl")
    if isinstance(prepared, Finetuning):
        page, curves = judge_rows(prepared, network, log, seconds)
    else:
        page, curves = judge_text(prepared, network, log, seconds, tokens)
    content = dict(page.summary or {})
    write_json(folder / "metrics.json", content)
    curves.write(folder / "curves.png")
    report.write(folder / "report.html", replace(page, curves=curves.panels()))
    return content


def judge_rows(
    prepared: Finetuning, network: nn.Module, log: list[dict[str, Any]], seconds: float
) -> tuple[report.Page, Curves]:
    """Evaluate on the test split, or on dev if there is none."""
    split = "test" if "test" in prepared.encoded else "dev"
    table = getattr(prepared.source, split)
    if table is None:
        raise DataError(
            "there is neither a test nor a dev split to judge on", where=prepared.facts["origin"]
        )
    task = prepared.task
    settings = prepared.settings
    encoded = prepared.encoded[split]
    with bar(f"judging on {split}", len(encoded.examples)) as advance:
        predictions, _ = task.apply(
            network,
            encoded,
            device=device(),
            dtype=precision(settings.train.precision),
            progress=advance,
        )
    assert prepared.source.train is not None
    train = (prepared.source.train, prepared.train.golds)
    judged = (table, encoded.golds)
    content, judgement = _judge(
        task, split, judged, predictions, train, seconds, settings.train.best
    )
    curves = Curves(
        log,
        quality=task.primary_metric,
        by_loss=task.best == LOSS,
        baseline=(content["baseline"] or {}).get("metrics", {}),
        baseline_split=split,
    )
    page = report.Page(
        title=prepared.facts["title"],
        about={
            **about_run(prepared.facts, curves, seconds),
            "judged on": f"{counted(content['examples'], 'example')} of {split}",
        },
        verdict=verdict(content),
        notes=[*judgement.notes, *prepared.source.notes, prepared.facts["transformers"]],
        summary=content,
        primary=content["main_metric"],
        repeated=judgement.repeated,
        sections=[*judgement.sections, *sections_of_facts(prepared.facts)],
        settings=settings.model_dump(),
    )
    return page, curves


def evaluate_run(
    run: str | Path,
    *,
    data: Any,
    split: str | None,
    columns: Mapping[str, str] | None,
    show: Show | None,
) -> dict[str, Any]:
    """Evaluate a run as at the end of training, on a split of its own data or on other data; return
    the content of metrics.json. A published language model is evaluated on text.

    split: None: test, or dev if there is no test split.
    """
    path = Path(run) / RECIPE
    recipe = read_recipe(path) if path.is_file() else {}
    described = describe(run)
    if is_language_model(described):
        return evaluate_text(described, recipe, data=data, split=split, columns=columns)
    return _evaluate_rows(run, recipe, data=data, split=split, columns=columns, show=show)


def _evaluate_rows(
    run: str | Path,
    recipe: Mapping[str, Any],
    *,
    data: Any,
    split: str | None,
    columns: Mapping[str, str] | None,
    show: Show | None,
) -> dict[str, Any]:
    model = task_model(run, recipe)
    task = model.task
    assert task is not None
    began = time.perf_counter()
    source, train, notes = rows_to_judge(model, recipe, run, data, columns)
    split, table = split_of(source, split, display_name(run if data is None else data), notes)
    rows, encoded = encode_rows(model, table, split, data is not None, notes)
    for note in notes:
        say(note)
    with bar(f"judging on {split}", len(encoded.examples)) as advance:
        predictions = model.apply(encoded, advance)
    seconds = time.perf_counter() - began
    judged = (rows, encoded.golds)
    best = recipe.get("train.best")
    content, judgement = _judge(task, split, judged, predictions, train, seconds, best)
    if show is not None:
        show(judgement.sections)
    content["notes"] = encoded.notes_of_unknown()
    if data is not None and train is not None:
        content["seen"] = count_leaks(task, train[0], rows)
    return content


def rows_to_judge(
    model: Model,
    recipe: Mapping[str, Any],
    run: str | Path,
    data: Any,
    columns: Mapping[str, str] | None,
) -> tuple[Source, tuple[Table, Any] | None, list[str]]:
    """Return the run's own data, or other data, by split; the run's training rows with their golds,
    None if they can no longer be read; and notes on the data.
    """
    assert model.task is not None
    source: Source | None = None
    train = None
    try:
        source = own_rows(model, recipe, Path(run))
        assert source.train is not None
        train = source.train, model.task.golds(source.train)
    except LangueError as error:
        if data is None:
            raise
        missing = "no baseline, and no look" if model.task.baseline_learns else "no look"
        say(f"{missing} for texts of the training: {error.what}")
    notes: list[str] = []  # notes on the run's own data were shown before training
    if data is not None:
        source = _read_other_data(model, data, columns or split_recipe(recipe)[1] or None)
        notes = source.notes
    assert source is not None
    return source, train, notes


def encode_rows(
    model: Model, table: Table, split: str, foreign: bool, notes: list[str]
) -> tuple[Table, Encoded]:
    """Return the rows that can be evaluated, and their tokens; `notes` gets what is dropped.

    foreign: the data is not the run's own.
    """
    task = model.task
    assert task is not None
    model.check_pairs("pair" in table.rows.column_names, table.origin)
    if model.data.invalid == "drop" and foreign:
        table = with_usable_targets(type(task), task, split, table, task.settings, notes)
    rows, encoded = task.encode(model.tokenizer, table, task.golds(table), model.data, model.config)
    if len(rows) < len(table):
        notes.append(dropped_note(task, table, rows))
    return rows, encoded


def task_model(run: str | Path, recipe: Mapping[str, Any]) -> Model:
    """Load a run's model with the precision of its training, so that its metrics are the same as
    then.
    """
    model = load(run)
    if not model.has_task():
        raise RunError(
            "the model has no task to evaluate",
            where=str(run),
            do="give a run of finetune or pretrain",
        )
    assert model.task is not None
    model.dtype = precision(recipe.get("train.precision", "auto"))
    if recipe.get("data.invalid") == "drop":  # drop the same rows as in training
        model.data = model.data.model_copy(update={"invalid": "drop"})
    if recipe.get("train.best") is not None:
        model.task.choose_by(recipe["train.best"])
    return model


def _read_other_data(model: Model, data: Any, columns: Mapping[str, str] | None) -> Source:
    """Read data that the run was not trained on; each file is the split that it names."""
    assert model.task is not None
    named = model.task.columns
    return read(
        data,
        columns=columns,
        need=named.required,
        optional=model.optional_columns(),
        split=False,
        invalid=model.data.invalid,
        encoding=model.data.encoding,
        decimal_comma=model.data.decimal_comma,
        synonyms=named.synonyms,
    )


def split_of(source: Source, split: str | None, where: str, notes: list[str]) -> tuple[str, Table]:
    """Return the name and the rows of the split to evaluate; None: test, or dev if there is none,
    which is noted. Raises DataError if the split does not exist.
    """
    there = [name for name in SPLITS if len(getattr(source, name) or ())]
    chosen = split or next((name for name in ("test", "dev") if name in there), "test")
    if chosen not in there:
        raise DataError(
            f"there is no split {chosen!r}", where=where, do=f"there are: {', '.join(there)}"
        )
    if split is None and chosen != "test":
        notes.append(f"there is no test split: {chosen} is judged")
    table: Table = getattr(source, chosen)
    return chosen, table


def own_rows(model: Model, recipe: Mapping[str, Any], run: Path) -> Source:
    """Return the data that the run was trained on, with the same splits; raise RunError if it has
    changed.
    """
    assert model.task is not None
    named, columns, settings = split_recipe(recipe)
    if named.get("data", ROWS) == ROWS:
        raise RunError(
            "the run does not say what data to judge on", where=str(run), do="give --data"
        )
    kind = type(model.task)
    chosen = resolve(settings, options=kind.Options, elsewhere=OPTIONS)
    source = read_source(kind, named["data"], columns or None, chosen)
    if other := changed_data(run, data_fingerprint(model.task, source)):
        raise RunError(
            f"its {other} is not what it was, so that today's test may hold what it was trained on",
            where=str(run),
            do="put the data back, or name texts that it has not seen with --data",
        )
    return source


def _judge(
    task: Task,
    split: str,
    test: tuple[Table, Any],
    predictions: Any,
    train: tuple[Table, Any] | None,
    seconds: float,
    best: str | None,
) -> tuple[dict[str, Any], Judgement]:
    """Return the content of metrics.json, and the judgement with the worst mistakes as a section.

    test, train: rows and their golds. best: what selected the run's checkpoint (`train.best`),
    which is its main metric; None: a run from before the setting existed, which is evaluated by the
    task's own main metric, with a baseline as at that time.
    """
    table, golds = test
    main = task.main_metric if best in (None, LOSS) else str(best)
    judgement = task.judge(golds, predictions, main)
    beside: dict[str, Any] | None = None
    if train is None and not task.baseline_learns:
        train = test
    if train is not None:
        with bar("baseline", 1) as advance:
            found = task.baseline(train, test, metric=main, as_model=best is not None)
            advance(1)
        if found is not None:
            beside = found.as_json()
            comparison = compare_systems(task.systems(golds, predictions, found, main), main)
            if comparison is not None:
                beside["comparison"] = comparison.as_json()
    content = judgement.as_json(split, beside, seconds)
    worst = task.mistakes(table, golds, predictions)
    if worst is not None:
        judgement = replace(judgement, sections=[*judgement.sections, worst])
    return content, judgement
