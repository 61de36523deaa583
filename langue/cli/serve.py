"""What arrives: the words after `langue serve`. What leaves: a server, until it is told to end."""

from typing import Annotated

import typer

from langue.cli.options import Debug

LIMITS = "Limits"


Runs = Annotated[list[str], typer.Argument(metavar="RUN ...", help="Runs, folders or Hub names.")]
Host = Annotated[str, typer.Option(help="The address; others than loopback need keys.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Of all models that are loaded, with keys and values, such as 8GB; default: 80% of"
        " what is free.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="Hold matrices as fp32, bf16, int8, int4, or stored.",
        show_default=False,
    ),
]
ApiKeys = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="API keys, one a line; beside those of LANGUE_API_KEYS.",
        show_default=False,
    ),
]
Idle = Annotated[
    float, typer.Option(min=0, help="Unload a model after so many idle seconds; 0: never.")
]
Name = Annotated[
    list[str] | None,
    typer.Option(help="A further name of this server; repeat it.", show_default=False),
]
Cors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN", help="Pages that may call; repeat it for more.", show_default=False
    ),
]
MaxTokens = Annotated[
    int, typer.Option(min=1, rich_help_panel=LIMITS, help="New tokens of one answer.")
]
MaxBody = Annotated[int, typer.Option(min=1, rich_help_panel=LIMITS, help="Bytes of one call.")]
Concurrent = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=LIMITS,
        help="Calls at a time; of several keys, each has at most as many as are free beside.",
    ),
]
Rate = Annotated[
    int, typer.Option(min=0, rich_help_panel=LIMITS, help="Calls a minute and key; 0: any.")
]
Deadline = Annotated[
    float, typer.Option(min=0, rich_help_panel=LIMITS, help="Seconds of one answer; 0: any.")
]
Drain = Annotated[
    int,
    typer.Option(min=0, rich_help_panel=LIMITS, help="Seconds for open calls at the end."),
]


def serve(
    runs: Runs,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    memory: Memory = None,
    weights: Weights = None,
    api_keys: ApiKeys = None,
    idle: Idle = 600,
    name: Name = None,
    cors: Cors = None,
    max_tokens: MaxTokens = 4096,
    max_body: MaxBody = 8000000,
    concurrent: Concurrent = 256,
    rate: Rate = 0,
    deadline: Deadline = 600,
    drain: Drain = 60,
    debug: Debug = False,
) -> None:
    """Serve models over HTTP, with OpenAI's routes and routes of tasks.

    One model, or several behind keys:

        langue serve runs/chat
        langue serve runs/chat runs/reviews --port 9000 --memory 8GB \\
            --api-keys keys.txt

    A model's id is the name of its folder:

        curl http://127.0.0.1:8000/v1/chat/completions \\
            -H 'Content-Type: application/json' -d '{"model": "chat",
            "messages": [{"role": "user", "content": "Hello."}]}'

    It needs langue's extra of the name serve, and says so where it is missing.
    """
    from langue.serve.server import serve as start

    start(
        runs,
        host=host,
        port=port,
        memory=memory,
        weights=weights,
        api_keys=api_keys,
        idle=idle,
        names=name or (),
        cors=cors or (),
        drain=drain,
        limits={
            "tokens": max_tokens,
            "body": max_body,
            "concurrent": concurrent,
            "rate": rate,
            "seconds": deadline,
        },
        ready=_tell,
    )


def _tell(address: str) -> None:
    print(f"langue serves at {address}", flush=True)
