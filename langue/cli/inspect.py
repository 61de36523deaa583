"""`langue inspect`: print a model as a tree with its sizes."""

from typing import Annotated

import typer

from langue.cli import early
from langue.cli.options import Debug, Json, Named, Revision


def inspect(
    model: Named,
    length: Annotated[
        int,
        typer.Option(min=1, help="The sequence length, in tokens, for which memory is estimated."),
    ] = 512,
    revision: Revision = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a model: its parts and their shapes, its tokenizer, uses and memory.

    A published model, and a run, finished or not:

        langue inspect google-bert/bert-base-uncased --length 256
        langue inspect runs/reviews

    No weights are read. For an unfinished run, it shows how far it has come.
    """
    early.check_inputs(model=model, revision=revision)
    from langue.runs.show import print_result
    from langue.verbs.inspect import inspect as verb

    facts = verb(model, length=length, revision=revision)
    print_result(facts, as_json)
