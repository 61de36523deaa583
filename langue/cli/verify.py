"""What arrives: the words after `langue verify`.
What leaves: each check with its outcome; exit code 1 where one fails."""

import typer

from langue.cli.options import Debug, Json, Named, Revision


def verify(model: Named, revision: Revision = None, as_json: Json = False, debug: Debug = False) -> None:
    """Check that a model loads and means what was published.

    Every weight used once, none left over, all finite; tied or not as the
    config says; its tokenizer; and, where `transformers` is installed, tokens
    and logits beside it:

        langue verify google-bert/bert-base-uncased
    """
    from langue.cli.show import print_checks, print_json
    from langue.verbs.verify import verify as verb

    outcome = verb(model, revision=revision)
    if as_json:
        print_json(outcome)
    else:
        print_checks(outcome)
    if not outcome["ok"]:
        raise typer.Exit(1)
