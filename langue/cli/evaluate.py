"""What arrives: the words after `langue evaluate`. What leaves: scores with intervals, the baseline
beside, printed.
"""

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
    int | None, _option("Examples before each question; default: as the file says.", "N", min=0)
]
Limit = Annotated[int | None, _option("Ask the first so many rows only.", "N", min=1)]
Samples = Annotated[
    str | None,
    _option("Write there what each row was asked and answered, as JSON lines.", "FILE"),
]


def evaluate(
    run: Annotated[
        str,
        typer.Argument(
            help="A run directory; with --task-file any language model.", show_default=False
        ),
    ],
    other: Annotated[
        str | None,
        typer.Argument(help="Another run, to be compared with in pairs.", show_default=False),
    ] = None,
    data: Data = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, dev or test; else test, or dev where there is no other.",
            show_default=False,
        ),
    ] = None,
    columns: Columns = None,
    out: Annotated[
        str | None, typer.Option(help="Also write the scores there, as JSON.", show_default=False)
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
    """Judge a run on a split of its own data, or on other data.

    On its own test split, then on reviews of books:

        langue evaluate runs/reviews
        langue evaluate runs/reviews --data books.csv \\
            --columns text=body,label=opinion

    A language model on the text that was held out, and any on other text:

        langue evaluate runs/small --data other.txt
        langue evaluate openai-community/gpt2 --data other.txt

    Two runs of one task on the same rows, the difference tested in pairs:

        langue evaluate runs/a runs/b

    Any language model answers a task file of lm-evaluation-harness:

        langue evaluate runs/small --task-file lambada.yaml --data test.jsonl

    The baseline is trained on the run's own training split.
    """
    named = parse_columns(columns)
    early.check_inputs(model=run, data=data, out=out, force=force)
    from rich.console import Console

    from langue.evaluation.terminal import print_sections
    from langue.progress import quiet as quietly
    from langue.runs.show import print_json
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
    if as_json:
        print_json(content)
        return
    content.print(Console())
    print_sections(Console(), sections)
