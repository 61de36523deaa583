"""`langue evaluate`: metrics with confidence intervals, beside the baseline."""

from typing import Annotated, Any

import typer

from langue.cli import early
from langue.cli.options import (
    BatchTokens,
    Columns,
    Data,
    Debug,
    Device,
    Force,
    Json,
    Quiet,
    parse_columns,
)

HARNESS = "Task files"


def _option(help: str, metavar: str, **limits: Any) -> Any:
    return typer.Option(
        help=help, metavar=metavar, rich_help_panel=HARNESS, show_default=False, **limits
    )


TaskFile = Annotated[str | None, _option("A task of lm-evaluation-harness, YAML or JSON.", "FILE")]
FewShot = Annotated[
    int | None,
    _option("The number of examples before each question. Default: as in the file.", "N", min=0),
]
Limit = Annotated[int | None, _option("Use only this number of rows.", "N", min=1)]
Samples = Annotated[
    str | None,
    _option("Write each row's prompt and answer to this file, as JSON lines.", "FILE"),
]


Run = Annotated[
    str,
    typer.Argument(
        help="A run directory; with --task-file or --data, any language model.",
        show_default=False,
    ),
]
Other = Annotated[
    str | None,
    typer.Argument(
        help="Another run, to compare with the first by a paired test.", show_default=False
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        help="train, dev or test. Default: test, or dev if there is no test split.",
        show_default=False,
    ),
]


def evaluate(
    run: Run,
    other: Other = None,
    data: Data = None,
    split: Split = None,
    columns: Columns = None,
    out: Annotated[
        str | None,
        typer.Option(help="Also write the scores to this file, as JSON.", show_default=False),
    ] = None,
    task_file: TaskFile = None,
    few_shot: FewShot = None,
    limit: Limit = None,
    samples: Samples = None,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a run on a split of its own data, or on other data.

    On its own test split, then on book reviews:

        langue evaluate runs/reviews
        langue evaluate runs/reviews --data books.csv \\
            --columns text=body,label=opinion

    A run of pretraining, and any published language model, on other text:

        langue evaluate runs/small --data other.txt
        langue evaluate openai-community/gpt2 --data other.txt

    Two runs of one task on the same rows, with a paired test:

        langue evaluate runs/a runs/b

    Any language model on a task file of lm-evaluation-harness:

        langue evaluate runs/small --task-file lambada.yaml --data test.jsonl

    The baseline is trained on the run's own training split.
    """
    named = parse_columns(columns)
    early.check_inputs(model=run, data=data, out=out, force=force)
    from rich.console import Console

    from langue.evaluation.terminal import print_sections
    from langue.progress import quiet as quietly
    from langue.runs.show import print_result
    from langue.tasks.judgement import Section
    from langue.verbs.evaluate import evaluate as verb

    sections: list[Section] = []
    with quietly(quiet):
        content = verb(
            run,
            other,
            data=data,
            split=split,
            columns=named,
            out=out,
            force=force,
            show=sections.extend,
            task_file=task_file,
            few_shot=few_shot,
            limit=limit,
            samples=samples,
            batch_tokens=batch_tokens,
            device=device,
        )
    print_result(content, as_json)
    if as_json:
        return
    print_sections(Console(), sections)
