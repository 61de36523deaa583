"""What arrives: the words after `langue inspect`. What leaves: a model as a tree, with its sizes,
printed.
"""

from typing import Annotated

import typer

from langue.cli import early
from langue.cli.options import Debug, Json, Named, Revision


def inspect(
    model: Named,
    length: Annotated[
        int, typer.Option(min=1, help="Tokens of the text that memory is reckoned for.")
    ] = 512,
    revision: Revision = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a model: its parts with shapes, tokenizer, uses and memory.

    A published model, and a run, finished or stopped:

        langue inspect google-bert/bert-base-uncased --length 256
        langue inspect runs/reviews

    No weight is read. Of a stopped run it says how far that has come.
    """
    early.check_inputs(model=model, revision=revision)
    from rich.console import Console

    from langue.runs.show import print_json
    from langue.verbs.inspect import inspect as verb

    facts = verb(model, length=length, revision=revision)
    if as_json:
        print_json(facts)
    else:
        facts.print(Console())
