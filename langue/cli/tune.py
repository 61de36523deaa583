"""`langue tune`: search settings in a study and print its best trial."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from langue.cli import early
from langue.cli.options import (
    Columns,
    Data,
    Debug,
    Dev,
    Json,
    PretrainedModel,
    Recipe,
    Task,
    Test,
    Train,
    Words,
    data_or_splits,
    parse_columns,
    parse_settings,
)


def tune(
    context: typer.Context,
    settings: Words = None,
    *,
    task: Task = None,
    model: PretrainedModel = None,
    data: Data = None,
    train: Train = None,
    dev: Dev = None,
    test: Test = None,
    out: Annotated[str, typer.Option(help="The folder of the study to write.", show_default=False)],
    trials: Annotated[
        int, typer.Option(help="The total number of trials, including those before --resume.")
    ] = 20,
    seeds: Annotated[
        int, typer.Option(help="The number of runs per trial; their mean is its score.")
    ] = 1,
    columns: Columns = None,
    recipe: Recipe = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study in --out.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search for the best settings of fine-tuning, with Optuna.

    The learning rate and the batch size:

        langue tune --model sentence-transformers/all-MiniLM-L6-v2 \\
            --data reviews.csv --out runs/study --trials 20 \\
            train.lr=1e-5..1e-3 train.batch_tokens=2048,4096 train.epochs=2

    LOW..HIGH is a range. It is searched on a logarithmic scale if both ends
    are positive and differ by a factor of ten; :log and :linear after it
    select the scale. Commas list values; for a setting with several numbers,
    write [0.9,0.95],[0.9,0.999].

    Trials are compared on dev, and a trial that falls behind is stopped. The
    best one is evaluated on test. The study's folder holds this run, best.toml
    for langue finetune --recipe, study.png and report.html. After an interrupt,
    the same command with --resume continues.
    """
    named = parse_columns(columns)
    words = parse_settings(settings, context)
    read = data_or_splits(data, train, dev, test)
    given = {"task": task, "model": model, "data": read, "columns": named}
    early.check_training("FINETUNE", given, {}, recipe=recipe)  # of ranges the search has to say
    from langue.runs.show import print_result
    from langue.verbs.tune import tune as verb

    result = verb(
        task,
        model=model,
        data=read,
        out=out,
        trials=trials,
        seeds=seeds,
        columns=named,
        recipe=recipe,
        resume=resume,
        **words,
    )
    print_result(result, as_json)
    if as_json:
        return
    print(f"Report: {Path(out) / 'report.html'}")
    print(f"Use it: langue finetune --recipe {shlex.quote(result['recipe'])} --out RUN")
