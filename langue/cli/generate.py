"""What arrives: the words after `langue generate`. What leaves: what the model writes, printed."""

import sys
from typing import Annotated

import typer

from langue.cli.options import Debug, Json, Named, Revision
from langue.errors import DataError


def generate(
    model: Named,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A beginning, or a source; repeat it for more."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Most tokens to write; default: 64.", show_default=False),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="0: always the likeliest token; default: 0.", show_default=False
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=0, help="Draw among so many of the likeliest; default: 0, all.", show_default=False
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Draw among those that hold so much; default: 1.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    source_language: Annotated[
        str | None,
        typer.Option(
            help="Of the sources, by a code of the model, such as en_XX.", show_default=False
        ),
    ] = None,
    target_language: Annotated[
        str | None,
        typer.Option(
            help="To write, by a code of the model, such as de_DE or deu.", show_default=False
        ),
    ] = None,
    revision: Revision = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let a model write on from a prompt, or translate or sum up a source.

        langue generate runs/small --prompt "ROMEO:" --max-tokens 200 --temperature 0.8
        langue generate Helsinki-NLP/opus-mt-en-de -p "Good morning."
        langue generate facebook/mbart-large-50-many-to-many-mmt -p "Good morning." \\
            --source-language en_XX --target-language de_DE

    Without --prompt it reads one from standard input.

    A model's generation_config.json replaces these defaults, and an option replaces both.
    """
    from langue.cli.show import print_json
    from langue.runs.model import load

    prompts = list(prompt) if prompt else [_read()]
    ready = load(model, revision, dtype="auto")
    written = ready.generate(
        prompts,
        max_tokens,
        temperature,
        top_k,
        top_p,
        seed,
        source_language=source_language,
        target_language=target_language,
    )
    if as_json:
        print_json(
            [{"prompt": given, "text": text} for given, text in zip(prompts, written, strict=True)]
        )
        return
    for given, text in zip(prompts, written, strict=True):
        continues = ready.config.architecture == "decoder"
        print(f"{given}{text}" if continues else text)


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        what = f"not {error.encoding}: {error.reason} at byte {error.start}"
        raise DataError(what, where="standard input", do="convert it, as with iconv") from None
