"""`langue finetune`: train on labelled text, write a run directory, print its metrics."""

import shlex
from typing import Annotated

import typer

from langue.cli import early
from langue.cli.options import (
    Columns,
    Data,
    Debug,
    Dev,
    Force,
    Json,
    KeepCheckpoints,
    PretrainedModel,
    Recipe,
    Resume,
    Task,
    Test,
    Train,
    Words,
    data_or_splits,
    parse_columns,
    parse_settings,
)
from langue.errors import SettingsError

Folds = Annotated[
    int | None,
    typer.Option(
        help="Cross-validate with this number of folds: one run per fold, evaluated on that fold.",
        show_default=False,
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(help="Repeat the run with this number of random seeds.", show_default=False),
]
Shares = Annotated[
    str | None,
    typer.Option(
        help="One run on each of these shares of the training rows, such as 0.1,0.3,1.",
        show_default=False,
    ),
]


def finetune(
    context: typer.Context,
    settings: Words = None,
    *,
    task: Task = None,
    model: PretrainedModel = None,
    data: Data = None,
    train: Train = None,
    dev: Dev = None,
    test: Test = None,
    out: Annotated[str, typer.Option(help="The run directory to write.", show_default=False)],
    columns: Columns = None,
    recipe: Recipe = None,
    force: Force = False,
    resume: Resume = False,
    keep_checkpoints: KeepCheckpoints = False,
    folds: Folds = None,
    seeds: Seeds = None,
    shares: Shares = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a pretrained model on labelled text, and evaluate it.

    Reviews in a CSV file with the columns review and sentiment:

        langue finetune --model sentence-transformers/all-MiniLM-L6-v2 \\
            --data reviews.csv --columns text=review,label=sentiment \\
            --out runs/reviews train.epochs=2

    It shows what it will train on, trains, and writes a run directory with
    the model, metrics.json, curves.png and report.html. Ctrl-C saves the
    state; the same command with --resume continues.

    To see how much a result varies, --folds 5 runs a cross-validation and
    --seeds 3 repeats the run with three random seeds. --shares 0.1,0.3,1 draws
    a learning curve, which tells whether more data would help. Each of these
    runs has a folder of its own in --out.
    """
    named = parse_columns(columns)
    words = parse_settings(settings, context)
    parts = _parse_shares(shares)
    read = data_or_splits(data, train, dev, test)
    given = {"task": task, "model": model, "data": read, "columns": named}
    is_one = folds is None and seeds is None and parts is None
    # a folder of several runs is no run: whether these can go on in it, they say themselves
    checked = out if is_one else None
    early.check_training(
        "FINETUNE", given, words, recipe=recipe, out=checked, force=force, resume=resume
    )
    from langue.runs.show import preview_printer, print_json, print_run
    from langue.verbs.finetune import finetune as verb

    run = verb(
        task,
        model=model,
        data=read,
        out=out,
        columns=named,
        recipe=recipe,
        force=force,
        resume=resume,
        keep_checkpoints=keep_checkpoints,
        folds=folds,
        seeds=seeds,
        shares=parts,
        show=preview_printer(as_json),
        **words,
    )
    if as_json:
        print_json(run.metrics)
        return
    print_run(run.metrics)
    if "runs" in run.metrics:
        print(f"Report: {run.folder / 'report.html'}")
        return
    print(run.facts["transformers"])
    print(f"Report: {run.folder / 'report.html'}")
    rows = ""
    if run.facts["verb"] == "predict":
        rows = ' --text "..."' if run.facts["reads_texts"] else " --data FILE"
        rows += ' --pair "..."' if run.facts.get("reads_two_texts") else ""
    print(f"Use it: langue {run.facts['verb']} {shlex.quote(str(run.folder))}{rows}")


def _parse_shares(written: str | None) -> list[float] | None:
    """`0.1,0.3,1` as numbers."""
    if written is None:
        return None
    try:
        return [float(part) for part in written.split(",")]
    except ValueError:
        raise SettingsError(
            f"--shares {written!r} are no numbers", do="write --shares 0.1,0.3,1"
        ) from None
