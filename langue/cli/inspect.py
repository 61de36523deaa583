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
    """Show what a model is: its parts with shapes, its tokenizer, what it can do, what memory it
    takes.

    No weight is read:

        langue inspect google-bert/bert-base-uncased --length 256
    """
    early.check_inputs(model=model, revision=revision)
    from langue.runs.show import print_json, print_model
    from langue.verbs.inspect import inspect as verb

    facts = verb(model, length=length, revision=revision)
    if as_json:
        print_json(facts)
    else:
        print_model(facts)
