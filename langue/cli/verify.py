"""What arrives: the words after `langue verify`.
What leaves: each check with its outcome; exit code 1 where one fails.
"""

from typing import Annotated

import typer

from langue.cli import early
from langue.cli.options import Debug, Json, Named, Revision

Reference = Annotated[
    str | None,
    typer.Option(help="A file that --store wrote, to hold the model against.", show_default=False),
]
Store = Annotated[
    str | None,
    typer.Option(help="Keep this model's tokens and logits as a reference.", show_default=False),
]


def verify(
    model: Named,
    revision: Revision = None,
    reference: Reference = None,
    store: Store = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what --store names.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that a model loads and means what was published.

    Every weight used once, none left over, all finite; tied or not as the
    config says; its tokenizer; and, where `transformers` is installed, tokens
    and logits beside it:

        langue verify google-bert/bert-base-uncased

    What a good copy gives can be stored, and another copy held against it:

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
