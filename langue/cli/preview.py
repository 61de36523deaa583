"""`langue data preview`: print what `langue finetune` would train on."""

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


def preview(
    context: typer.Context,
    settings: Words = None,
    task: Task = None,
    model: PretrainedModel = None,
    data: Data = None,
    train: Train = None,
    dev: Dev = None,
    test: Test = None,
    columns: Columns = None,
    recipe: Recipe = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what `langue finetune` would train on, without training.

    It takes the same options, and shows examples with their tokens, what is
    truncated or dropped, the label distribution, duplicates, steps and time:

        langue data preview --model sentence-transformers/all-MiniLM-L6-v2 \\
            --data reviews.csv --columns text=review,label=sentiment
    """
    named = parse_columns(columns)
    words = parse_settings(settings, context)
    read = data_or_splits(data, train, dev, test)
    given = {"task": task, "model": model, "data": read, "columns": named}
    early.check_training("FINETUNE", given, words, recipe=recipe)
    from langue.runs.show import preview_printer, print_json
    from langue.verbs.preview import preview as verb

    prepared = verb(task, model=model, data=read, columns=named, recipe=recipe, **words)
    if as_json:
        print_json(prepared.facts)
    else:
        preview_printer(False)(prepared)
