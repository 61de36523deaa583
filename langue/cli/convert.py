"""What arrives: the words after `langue convert`. What leaves: the model as a folder in the Hub's layout."""

from typing import Annotated

import typer

from langue.cli.options import Debug, Named, Revision


def convert(
    model: Named,
    out: Annotated[str, typer.Argument(metavar="OUT", help="The folder to write.")],
    revision: Revision = None,
    debug: Debug = False,
) -> None:
    """Write a model in the Hub's layout, as `transformers` reads it.

    It takes what `langue.load` takes, and models in llama2.c's format:

        langue convert stories260K.bin stories
    """
    from langue.verbs.convert import convert as verb

    print(verb(model, out, revision=revision))
