"""`langue quickstart`: one complete example, and what to type next."""

import time
from typing import Annotated

import typer
from rich.console import Console

from langue.cli.options import Debug, Force, Json, Resume, Words, parse_settings

TEXTS = (
    "Schedule a callback on the event loop and return a handle that can be cancelled.",
    "Parse the Set-Cookie header and return the cookies of the response.",
    "Fail if the two objects are unequal, with a message that shows both.",
)
NEXT = """\
Next, from a shell where [bold]langue[/] is installed
([bold]. .venv/bin/activate[/] after make quickstart):

  film reviews from the Hub    [bold]langue finetune \
--model sentence-transformers/all-MiniLM-L6-v2 \
--data stanfordnlp/imdb --out runs/imdb[/]
  a folder of train/dev/test   [bold]langue finetune \
--model sentence-transformers/all-MiniLM-L6-v2 \
--data FOLDER --out runs/mine[/]
  your own CSV                 [bold]langue finetune \
--model sentence-transformers/all-MiniLM-L6-v2 \
--data FILE.csv --columns text=review,label=sentiment --out runs/mine[/]
"""


def quickstart(
    context: typer.Context,
    settings: Words = None,
    out: Annotated[str, typer.Option(help="The run directory to write.")] = "runs/quickstart",
    force: Force = False,
    resume: Resume = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run one complete example without a network: fine-tune, evaluate, predict.

    A small pretrained encoder (MiniLM, from a Python package) learns which
    package of Python's standard library a docstring belongs to. This takes a
    few minutes on two CPU cores:

        langue quickstart
    """
    from langue.runs.show import preview_printer, print_json, print_metrics, print_predictions
    from langue.verbs.quickstart import quickstart as verb

    began = time.monotonic()
    run = verb(
        out,
        force=force,
        resume=resume,
        show=preview_printer(as_json),
        **parse_settings(settings, context),
    )
    if as_json:
        print_json(run.metrics)
        return
    print_metrics(run.metrics)
    print("\nThree texts that it has not seen:")
    print_predictions(list(TEXTS), run.load().predict(list(TEXTS)))
    print(
        f"\n{run.folder} holds the model, metrics.json, curves.png and report.html: open the last"
        " in a browser."
    )
    print(
        f"All that took {time.monotonic() - began:.0f} s. Use the model: langue predict"
        f' {run.folder} --text "..."\n'
    )
    Console(soft_wrap=True, highlight=False).print(NEXT)
