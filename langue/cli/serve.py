"""`langue serve`: an HTTP server that runs until it is stopped."""

from typing import Annotated

import typer

from langue.cli.options import Debug

LIMITS = "Limits"


Runs = Annotated[
    list[str], typer.Argument(metavar="RUN ...", help="The models: runs, folders or Hub names.")
]
Host = Annotated[
    str,
    typer.Option(
        help="The address to listen on. Any address other than loopback requires API keys."
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 selects a free one.")]
Memory = Annotated[
    str | None,
    typer.Option(
        help="The memory for all loaded models and their key-value caches, such as 8GB."
        " Default: 80% of the free memory.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="The number type of the weight matrices: fp32, bf16, int8, int4, or stored.",
        show_default=False,
    ),
]
ApiKeys = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A file of API keys, one per line, in addition to those in the environment"
        " variable LANGUE_API_KEYS.",
        show_default=False,
    ),
]
Idle = Annotated[
    float,
    typer.Option(min=0, help="Unload a model after this number of idle seconds; 0 means never."),
]
Name = Annotated[
    list[str] | None,
    typer.Option(
        help="Another host name of this server, accepted in the Host header. Repeatable.",
        show_default=False,
    ),
]
Cors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="An origin whose pages may call this server. Repeatable.",
        show_default=False,
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(
        min=1, rich_help_panel=LIMITS, help="The maximum number of new tokens per answer."
    ),
]
MaxBody = Annotated[
    int,
    typer.Option(
        min=1, rich_help_panel=LIMITS, help="The maximum size of a request body, in bytes."
    ),
]
Concurrent = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=LIMITS,
        help="The maximum number of concurrent requests. With several API keys, each key has at"
        " most as many of them as are still free.",
    ),
]
Rate = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=LIMITS,
        help="The maximum number of requests per minute and key; 0 means unlimited.",
    ),
]
Deadline = Annotated[
    float,
    typer.Option(
        min=0,
        rich_help_panel=LIMITS,
        help="The time limit for one answer, in seconds; 0 means unlimited.",
    ),
]
Drain = Annotated[
    int,
    typer.Option(
        min=0,
        rich_help_panel=LIMITS,
        help="The time that open requests have to finish at shutdown, in seconds.",
    ),
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

    One model, or several with API keys:

        langue serve runs/chat
        langue serve runs/chat runs/reviews --port 9000 --memory 8GB \\
            --api-keys keys.txt

    A model's id is the name of its folder:

        curl http://127.0.0.1:8000/v1/chat/completions \\
            -H 'Content-Type: application/json' -d '{"model": "chat",
            "messages": [{"role": "user", "content": "Hello."}]}'

    The extra called serve must be installed.
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
