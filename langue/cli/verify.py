"""`langue verify`: print each check and its outcome; exit code 1 if one fails."""

from typing import Annotated

import typer

from langue.cli import early
from langue.cli.options import Debug, Json, Named, Revision

Reference = Annotated[
    str | None,
    typer.Option(help="A file written by --store, to compare the model with.", show_default=False),
]
Store = Annotated[
    str | None,
    typer.Option(
        help="Store this model's tokens and logits in this file, as a reference.",
        show_default=False,
    ),
]


def verify(
    model: Named,
    revision: Revision = None,
    reference: Reference = None,
    store: Store = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file of --store if it exists.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that a model loads and computes what was published.

    Every weight is used once, none is left over, all are finite, and weights
    are tied as the config says; the tokenizer is complete; and, if
    `transformers` is installed, tokens and logits equal its own:

        langue verify google-bert/bert-base-uncased

    The outputs of a good copy can be stored, and another copy compared to them:

        langue verify google-bert/bert-base-uncased --store bert.safetensors
        langue verify ./copied-bert --reference bert.safetensors
    """
    early.check_inputs(model=model, revision=revision)
    from langue.runs.show import print_checks, print_json
    from langue.verbs.verify import verify as verb

    outcome = verb(model, revision=revision, reference=reference, store=store, force=force)
    if as_json:
        print_json(outcome)
    else:
        print_checks(outcome)
    if not outcome["ok"]:
        raise typer.Exit(1)
