"""`langue convert`: write a model in the Hub's layout or as a GGUF file."""

from typing import Annotated

import typer

from langue.cli import early
from langue.cli.options import Debug, Json, Named, Revision


def convert(
    model: Named,
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="The folder to write, or a file whose name ends in .gguf."
        ),
    ],
    dtype: Annotated[
        str | None,
        typer.Option(
            help=(
                "The number type of the weights. For a .gguf file: f16 (the default), q8_0"
                " or f32; for a folder: fp32 (the default) or bf16."
            ),
            show_default=False,
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge an adapter into the weights of its base model.")
    ] = False,
    widen: Annotated[
        bool,
        typer.Option(
            "--widen", help="Add rows to the embedding for tokens that were added to the tokenizer."
        ),
    ] = False,
    revision: Revision = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model in the Hub's layout, or as a file for llama.cpp.

    It reads what `langue.load` reads, and models in the format of llama2.c:

        langue convert stories260K.bin stories

    Llama, Mistral, Qwen2, Qwen3 and GPT-2 convert to GGUF and back; q8_0 takes
    a quarter of the space of f32:

        langue convert runs/story story.gguf --dtype q8_0

        langue convert story.gguf story

    A run with model.adapter, merged into a full model:

        langue convert runs/lora runs/merged --merge

    A run can be exported if llama.cpp has its architecture, such as one of
    langue pretrain --preset llama or --preset gpt2.
    """
    early.check_inputs(model=model, revision=revision)
    from langue.runs.show import print_json
    from langue.verbs.convert import convert as verb

    path = str(verb(model, out, dtype=dtype, revision=revision, merge=merge, widen=widen))
    if as_json:
        print_json({"out": path})
    else:
        print(path)
