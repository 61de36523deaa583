"""`langue data inspect`: print what a text or corpus contains."""

from typing import Annotated

import typer

from langue.cli.options import Columns, Debug, Force, Json, parse_columns
from langue.cli.sources import Document, Sources, apart, check_document


def inspect_data(
    context: typer.Context,
    sources: Sources = None,
    *,
    columns: Columns = None,
    document: Document = "file",
    out: Annotated[
        str | None, typer.Option(help="Also write an HTML report to this file.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what raw text or a corpus contains.

    Documents, lengths, scripts, duplicates and examples:

        langue data inspect books/ --out books.html

    Languages are guessed from the script and the most frequent words.
    """
    from langue.runs.show import print_result
    from langue.verbs.inspect_data import inspect_data as verb

    named, settings = apart(sources, context)
    facts = verb(
        named,
        columns=parse_columns(columns),
        document=check_document(document),
        out=out,
        force=force,
        **settings,
    )
    print_result(facts, as_json)
    if out and not as_json:
        print(f"Page: {out}")
