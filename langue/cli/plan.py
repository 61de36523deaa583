"""`langue plan`: print what a training run would take."""

from typing import Annotated

import typer

from langue.cli.options import Debug, Json

Vocabulary = Annotated[
    int | None,
    typer.Option(
        help="The size of the vocabulary. Default: 32768, or 8192 for a small model.",
        show_default=False,
    ),
]
Share = Annotated[
    float | None,
    typer.Option(
        help="The model FLOPs utilisation (MFU): the fraction of peak performance that"
        " is reached. Default: 0.4, an assumption.",
        show_default=False,
    ),
]
Building = Annotated[
    float,
    typer.Option(
        help="The power usage effectiveness (PUE) of the data centre: its total energy"
        " over that of its computers."
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help="The number of parameters of a new model, such as 124M.", show_default=False),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="The architecture of a new model: langue, gpt2, llama, gpt2-xl, ...",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="An existing model: a Hub name, a folder or a run.", show_default=False),
]
Tokens = Annotated[
    str | None,
    typer.Option(
        help="The number of training tokens, such as 10B. Default: 20 per parameter.",
        show_default=False,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="The compute budget in floating-point operations, such as 1e21, or as '8"
        " h100 for 3 days'.",
        show_default=False,
    ),
]
Length = Annotated[
    int | None,
    typer.Option(help="The number of tokens per sequence. Default: 1024.", show_default=False),
]
BatchTokens = Annotated[
    str | None,
    typer.Option(
        help="The number of tokens per step. Default: a usual value for the model's size.",
        show_default=False,
    ),
]


def plan(
    size: Size = None,
    preset: Preset = None,
    model: Model = None,
    tokens: Tokens = None,
    budget: Budget = None,
    hardware: Annotated[
        str, typer.Option(help="h100, a100, rtx4090, ..., or here for this machine.")
    ] = "here",
    devices: Annotated[
        int | None, typer.Option(help="The number of devices. Default: 1.", show_default=False)
    ] = None,
    length: Length = None,
    vocabulary: Vocabulary = None,
    batch_tokens: BatchTokens = None,
    mfu: Share = None,
    pue: Building = 1.56,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure some training steps on this machine.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Estimate what a pretraining run takes before you start it.

    Parameters, operations, memory per device, days and energy, and the model
    size and number of tokens on which this budget is best spent:

        langue plan --size 124M --tokens 10B --hardware h100 --devices 8
        langue plan --budget 1e21 --hardware a100 --devices 64
        langue plan --budget "8 h100 for 3 days"
        langue plan --size 10M --measure
        langue plan --model runs/small --tokens 1B
    """
    from langue.runs.show import print_result
    from langue.verbs.plan import plan as verb

    content = verb(
        size=size,
        preset=preset,
        model=model,
        tokens=tokens,
        budget=budget,
        hardware=hardware,
        devices=devices,
        length=length,
        vocabulary=vocabulary,
        batch_tokens=batch_tokens,
        mfu=mfu,
        pue=pue,
        measure=measure,
    )
    print_result(content, as_json)
