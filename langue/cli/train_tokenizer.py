"""`langue tokenizer train`: write a tokenizer folder and print its fertility."""

import shlex
from typing import Annotated

import typer

from langue.cli.options import Columns, Debug, Force, Json, parse_columns
from langue.cli.sources import Document, Sources, apart, check_document


def train_tokenizer(
    context: typer.Context,
    sources: Sources = None,
    *,
    out: Annotated[str, typer.Option(help="The folder to write.", show_default=False)],
    columns: Columns = None,
    document: Document = "file",
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a tokenizer on text, and show how it splits that text.

    The default is byte-level BPE:

        langue tokenizer train books/ reviews.jsonl --out tokenizer \\
            tokenizer.kind=wordpiece tokenizer.vocab_size=16000

    Kinds: bpe, wordpiece, unigram, characters, bytes. The folder also loads in
    transformers.
    """
    from langue.runs.show import print_result
    from langue.runs.train_tokenizer import train_tokenizer as verb

    named, settings = apart(sources, context)
    report = verb(
        named,
        out=out,
        columns=parse_columns(columns),
        document=check_document(document),
        force=force,
        **settings,
    )
    print_result(report, as_json)
    if not as_json:
        print(
            f"Use it: langue data tokenize SOURCE --tokenizer {shlex.quote(str(out))} --out corpus"
        )
