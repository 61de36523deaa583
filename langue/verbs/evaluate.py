"""What arrives: a trained run and labelled text.
What leaves: metrics.json, curves.png and report.html, the baseline beside."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from langue.errors import DataError, LangueError, RunError
from langue.evaluation import report
from langue.evaluation.curves import Curves
from langue.evaluation.facts import sections_of_facts
from langue.evaluation.judge import verdict
from langue.files import refuse_existing, write_json
from langue.hub.checkpoint import describe
from langue.model.heads import TaskModel
from langue.progress import bar, say
from langue.runs.model import Model, load
from langue.runs.prepare import (
    Prepared,
    count_leaks,
    dropped_note,
    first_changed_split,
    read_source,
    with_usable_targets,
)
from langue.runtime import device, precision
from langue.settings.recipe import ROWS, display_name, read_recipe, split_recipe
from langue.settings.sections import Settings, resolve
from langue.statistics.compare import compare_systems
from langue.tasks import OPTIONS
from langue.tasks.judgement import Judgement, Section
from langue.tasks.objective import LOSS
from langue.tasks.task import Task
from langue.text.read.source import Source, Table, read
from langue.text.read.table import SPLITS
from langue.train.journal import read_log
from langue.verbs.evaluate_language import evaluate_language


def judge_run(
    folder: Path, prepared: Prepared, network: TaskModel, settings: Settings, *, seconds: float
) -> dict[str, Any]:
    """Judge a finished run on its test split (dev where it has none); write all that people
    read."""
    split = "test" if "test" in prepared.examples else "dev"
    table = getattr(prepared.source, split)
    if table is None:
        raise DataError(
            "there is neither a test nor a dev split to judge on", where=prepared.facts["origin"]
        )
    with bar(f"judging on {split}", len(prepared.examples[split])) as advance:
        predictions, _ = prepared.task.apply(
            network,
            prepared.encoded[split],
            device=device(),
            dtype=precision(settings.train.precision),
            progress=advance,
        )
    assert prepared.source.train is not None
    train = (prepared.source.train, prepared.encoded["train"].golds)
    content, judgement = _judge(
        prepared.task,
        split,
        (table, prepared.encoded[split].golds),
        predictions,
        train,
        seconds,
        settings.train.best,
    )
    write_json(folder / "metrics.json", content)
    curves = Curves(
        read_log(folder / "log.jsonl"),
        quality=prepared.task.primary_metric,
        by_loss=prepared.task.best == LOSS,
        baseline=(content["baseline"] or {}).get("metrics", {}),
        baseline_split=split,
    )
    curves.write(folder / "curves.png")
    page = report.Page(
        title=f"{prepared.task.name}: {prepared.facts['origin']}",
        facts=[
            f"model {prepared.facts['model']}",
            f"task {prepared.task.name}",
            f"{content['examples']:,} examples of {split}",
            f"trained in {content['seconds']:,.1f} s",
            *([] if (step := curves.kept_step()) is None else [f"best on dev at step {step:,}"]),
        ],
        verdict=verdict(content),
        notes=[*judgement.notes, *prepared.source.notes, prepared.facts["transformers"]],
        summary=content,
        primary=content["main_metric"],
        repeated=judgement.repeated,
        curves=curves.panels(),
        sections=[*judgement.sections, *sections_of_facts(prepared.facts)],
        settings=settings.model_dump(),
    )
    report.write(folder / "report.html", page)
    return content


def evaluate(
    run: str | Path,
    *,
    data: Any = None,
    split: str = "test",
    columns: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    force: bool = False,
    show: Callable[[Sequence[Section]], None] | None = None,
) -> dict[str, Any]:
    """Judge a run on a split of its own data, or on other data; returns the content of
    metrics.json. Of a pretraining run it is judged how well it predicts the text that was held out,
    or other text.

    The baseline is trained on the run's own training split; where that cannot be read any more it
    is left out and the result says so. Of other data the result also says how many texts stand in
    that split (`seen`). `out`: also write the result there as JSON.
    `show`: called with the sections of a report that are not in the result: scores by label,
    confusions, mistakes.
    """
    refuse_existing(out, force)
    recipe = read_recipe(Path(run) / "recipe.toml") if (Path(run) / "recipe.toml").is_file() else {}
    described = describe(run)
    if described.task is not None and "objective" in described.task:
        content = evaluate_language(described, recipe, data=data, split=split, columns=columns)
    else:
        content = _evaluate_task(run, recipe, data=data, split=split, columns=columns, show=show)
    if out is not None:
        write_json(Path(out), content)
    return content


def _evaluate_task(
    run: str | Path,
    recipe: Mapping[str, Any],
    *,
    data: Any,
    split: str,
    columns: Mapping[str, str] | None,
    show: Callable[[Sequence[Section]], None] | None,
) -> dict[str, Any]:
    model = load(run)
    if model.task is None:
        raise RunError(
            "the model has no task to evaluate",
            where=str(run),
            do="give a run of finetune or pretrain",
        )
    # Held and multiplied as in training, so that the numbers are those of its end.
    model.dtype = precision(recipe.get("train.precision", "auto"))
    if recipe.get("data.invalid") == "drop":  # what was dropped from its training is dropped here
        model.data = model.data.model_copy(update={"invalid": "drop"})
    best = recipe.get("train.best")
    if best is not None:
        model.task.choose_by(best)
    began = time.perf_counter()
    train = None
    try:
        source = _own(model, recipe, Path(run))
        if other := first_changed_split(Path(run), model.task, source):
            raise RunError(
                f"its {other} data is not what it was, so that today's test may hold what it was"
                " trained on",
                where=str(run),
                do="put the data back, or name texts that it has not seen with --data",
            )
        assert source.train is not None
        train = source.train, model.task.golds(source.train)
    except LangueError as error:
        if data is None:
            raise
        say(f"no baseline, and no look for texts of the training: {error.what}")
    if data is not None:
        named = columns or split_recipe(recipe)[1] or None
        source = read(
            data,
            columns=named,
            need=model.task.columns.required,
            optional=model.optional_columns(),
            split=False,
            invalid=model.data.invalid,
            synonyms=model.task.columns.synonyms,
        )
    table = getattr(source, split) if split in SPLITS else None
    if table is None or not len(table):
        there = [name for name in SPLITS if getattr(source, name) is not None]
        where = display_name(run if data is None else data)
        raise DataError(
            f"there is no split {split!r}", where=where, do=f"there are: {', '.join(there)}"
        )
    model.check_pairs("pair" in table.rows.column_names, table.origin)
    # of its own data they were told before it was trained
    notes = source.notes if data is not None else []
    if model.data.invalid == "drop" and data is not None:
        table = with_usable_targets(
            type(model.task), model.task, split, table, model.task.settings, notes
        )
    golds = model.task.golds(table)
    kept, encoded = model.task.encode(model.tokenizer, table, golds, model.data, model.config)
    if len(kept) < len(table):
        notes.append(dropped_note(table, kept))
        table = kept
    for note in notes:
        say(note)
    with bar(f"judging on {split}", len(encoded.examples)) as advance:
        predictions = model.apply(encoded, advance)
    seconds = time.perf_counter() - began
    judged = (table, encoded.golds)
    content, judgement = _judge(model.task, split, judged, predictions, train, seconds, best)
    if show is not None:
        show(judgement.sections)
    lost = encoded.examples.lost
    content["notes"] = [] if lost is None else lost.note()
    if data is not None and train is not None:
        content["seen"] = count_leaks(model.task, train[0], table)
    return content


def _own(model: Model, recipe: Mapping[str, Any], run: Path) -> Source:
    """The data that the run was trained on, split as it was then."""
    assert model.task is not None
    named, columns, settings = split_recipe(recipe)
    if named.get("data", ROWS) == ROWS:
        raise RunError(
            "the run does not say what data to judge on", where=str(run), do="give --data"
        )
    kind = type(model.task)
    chosen = resolve(settings, options=kind.Options, elsewhere=OPTIONS)
    return read_source(kind, named["data"], columns or None, chosen)


def _judge(
    task: Task,
    split: str,
    test: tuple[Table, Any],
    predictions: Any,
    train: tuple[Table, Any] | None,
    seconds: float,
    best: str | None,
) -> tuple[dict[str, Any], Judgement]:
    """What metrics.json keeps, and the judgement with the worst mistakes among its sections.

    test, train: rows and their golds. best: what the run's checkpoint was chosen by (`train.best`),
    which is its main metric; None: the run began before there was the setting, and is judged by the
    task's own main metric beside a baseline as it was then.
    """
    table, golds = test
    main = task.main_metric if best in (None, LOSS) else str(best)
    judgement = task.judge(golds, predictions, main)
    beside: dict[str, Any] | None = None
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
