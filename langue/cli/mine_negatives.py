"""`langue data mine`: write pairs with hard negatives to a file."""

import shlex
from typing import Annotated

import typer

from langue.cli.options import Columns, Debug, Force, Json, parse_columns


def mine_negatives(
    *,
    model: Annotated[
        str, typer.Option(help="The encoder: a Hub name, a folder or a run.", show_default=False)
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Pairs in the columns text and pair; --columns maps other names.",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option(help="The .jsonl file to write.", show_default=False)],
    documents: Annotated[
        str | None,
        typer.Option(help="More texts to search, in a column called text.", show_default=False),
    ] = None,
    columns: Columns = None,
    number: Annotated[int, typer.Option(help="The number of negatives per pair.")] = 3,
    skip: Annotated[int, typer.Option(help="Skip this number of the nearest texts.")] = 0,
    margin: Annotated[
        float,
        typer.Option(
            help="Skip texts whose similarity to the query is within this fraction of the"
            " answer's similarity, since they may be correct answers too."
        ),
    ] = 0.05,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find hard negatives: texts that a model mistakes for answers.

    Turn pairs of a query and its answer into rows to train embeddings on:

        langue data mine --model runs/embed --data pairs.jsonl --out mined.jsonl
        langue finetune --task embed --model runs/embed --data mined.jsonl \\
            --out runs/harder

    Texts that are almost as similar as the answer are skipped (--margin): many
    of them are correct answers that nobody has labelled.
    """
    from langue.runs.show import print_json
    from langue.verbs.mine_negatives import mine_negatives as verb

    found = verb(
        model=model,
        data=data,
        out=out,
        documents=documents,
        columns=parse_columns(columns),
        number=number,
        skip=skip,
        margin=margin,
        force=force,
    )
    if as_json:
        print_json(found)
        return
    print(
        f"{found['negatives']:,} negatives of {found['pairs']:,} pairs, from"
        f" {found['documents']:,} documents; {found['too_near']:,} times one was passed over as too"
        " near the answer."
    )
    if found["short"]:
        print(
            f"{found['short']:,} pairs have fewer than {number}, {found['without']:,} of them none:"
            " give --documents, or a lower --margin."
        )
    print(f"Use it: langue finetune --task embed --data {shlex.quote(str(out))} --out RUN")
