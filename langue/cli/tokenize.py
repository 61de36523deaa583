"""`langue data tokenize`: write a corpus folder and print its sizes."""

import shlex
from typing import Annotated

import typer

from langue.cli.options import Columns, Debug, Force, Json, parse_columns
from langue.cli.sources import Dedup, Document, Sources, apart, check_document


def tokenize(
    context: typer.Context,
    sources: Sources = None,
    *,
    tokenizer: Annotated[str, typer.Option(help="A folder or a Hub name.", show_default=False)],
    out: Annotated[str, typer.Option(help="The corpus folder to write.", show_default=False)],
    columns: Columns = None,
    document: Document = "file",
    dedup: Dedup = False,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Tokenize raw text into shards for pretraining.

    Sources can be mixed; here documents of the second are seen twice as often:

        langue data tokenize web/ books.jsonl@2 --tokenizer tokenizer --out corpus

    A fraction of the documents is held out (data.dev_fraction). After an
    interrupt, the same command continues where it stopped.
    """
    from langue.runs.show import print_result
    from langue.verbs.tokenize import tokenize as verb

    named, settings = apart(sources, context)
    result = verb(
        named,
        tokenizer=tokenizer,
        out=out,
        columns=parse_columns(columns),
        document=check_document(document),
        dedup=dedup,
        force=force,
        **settings,
    )
    print_result(result, as_json)
    if not as_json:
        print(f"Use it: langue pretrain --data {shlex.quote(str(out))} --out runs/NAME")
