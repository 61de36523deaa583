"""What arrives: the words after `langue finetune`. What leaves: a run directory, its scores
printed.
"""

import shlex
from typing import Annotated

import typer

from langue.cli.options import (
    Columns,
    Data,
    Debug,
    Force,
    Json,
    PretrainedModel,
    Recipe,
    Task,
    Words,
    parse_columns,
    parse_settings,
)


def finetune(
    context: typer.Context,
    settings: Words = None,
    *,
    task: Task = None,
    model: PretrainedModel = None,
    data: Data = None,
    out: Annotated[str, typer.Option(help="The run directory to write.", show_default=False)],
    columns: Columns = None,
    recipe: Recipe = None,
    force: Force = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, exactly.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a pretrained model on labelled text, and judge it.

    Reviews in a CSV file, in columns named review and sentiment:

        langue finetune --model sentence-transformers/all-MiniLM-L6-v2 \\
            --data reviews.csv --columns text=review,label=sentiment \\
            --out runs/reviews train.epochs=2

    It shows what will be trained, trains, and writes the run: the model,
    metrics.json, curves.png and report.html. Ctrl-C saves; the same command
    with --resume goes on.
    """
    from langue.cli.show import preview_printer, print_json, print_metrics
    from langue.verbs.finetune import finetune as verb

    run = verb(
        task,
        model=model,
        data=data,
        out=out,
        columns=parse_columns(columns),
        recipe=recipe,
        force=force,
        resume=resume,
        show=preview_printer(as_json),
        **parse_settings(settings, context),
    )
    if as_json:
        print_json(run.metrics)
        return
    print_metrics(run.metrics)
    print(run.facts["transformers"])
    print(f"Report: {run.folder / 'report.html'}")
    pair = ' --pair "..."' if run.facts.get("reads_two_texts") else ""
    print(f'Use it: langue predict {shlex.quote(str(run.folder))} --text "..."{pair}')
