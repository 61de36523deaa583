"""`langue compress quantize`: write a model with fewer bits per weight, and print the costs."""

from typing import Annotated

import typer

from langue.cli.options import Columns, Debug, Json, Named, Revision, parse_columns


def quantize(
    model: Named,
    out: Annotated[str, typer.Option("--out", help="The folder to write.")],
    weights: Annotated[
        str, typer.Option(help="int8, or int4, which takes half the space and is less precise.")
    ] = "int8",
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Text on which a decoder's perplexity is measured before and after.",
            show_default=False,
        ),
    ] = None,
    columns: Columns = None,
    revision: Revision = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Quantize the linear layers of a model to 8 or 4 bits.

    32 numbers share a scale. Quantize, with the perplexity before and after,
    then use the result:

        langue compress quantize runs/story --weights int4 --out story-int4 \\
            --data held-out.txt

        langue generate story-int4 --prompt "Once upon a time"

    The error of each matrix is printed. The folder has the layout of
    compressed-tensors, which vLLM and `transformers` read too, except for
    GPT-2, which only langue reads. Embeddings and the output matrix are
    written in bf16.
    """
    from langue.runs.show import print_result
    from langue.verbs.quantize import quantize as verb

    content = verb(
        model,
        out,
        weights=weights,
        data=data or None,
        columns=parse_columns(columns),
        revision=revision,
    )
    print_result(content, as_json)
