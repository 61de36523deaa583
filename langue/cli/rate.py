"""`langue rate`: a page for blind votes, and a report on the votes."""

from typing import Annotated

import typer

from langue.cli.options import Debug, Json


def rate(
    systems: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SYSTEM...",
            help="Files of outputs (.jsonl or .txt), or models that answer the prompts of --data.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The prompts, as JSON lines.", show_default=False)
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="The file to which votes are appended, such as votes.jsonl.", show_default=False
        ),
    ] = None,
    rater: Annotated[
        str | None, typer.Option(help="The name of the rater. Default: 1.", show_default=False)
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A model as the judge; it sees each pair in both orders.", show_default=False
        ),
    ] = None,
    judge_prompt: Annotated[
        str | None,
        typer.Option(
            help="A file with the judge's prompt, in which {question}, {left} and {right}"
            " are replaced.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        str | None, typer.Option(help="Only report the result of these votes.", show_default=False)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="The maximum number of tokens per answer.", min=1, show_default=False),
    ] = None,
    repeat: Annotated[
        float,
        typer.Option(help="The share of pairs that are shown again at the end with sides swapped."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="The random seed of each rater's order and sides.")] = 0,
    port: Annotated[
        int, typer.Option(help="The port of the page; 0 selects a free one.", min=0)
    ] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two or more systems by blind votes.

    Two files of outputs, one JSON line per item, and their prompts:

        langue rate a.jsonl b.jsonl --data prompts.jsonl --out votes.jsonl

    This opens a page on this machine that shows two answers side by side, in
    random order and on random sides for each rater. Keys: 1 or 2 for the better
    answer, 3 for a tie, 0 if both are bad, Backspace to go back. Each vote is
    written to disk at once; the same command continues where you stopped.

    Let models answer first; let a model judge; report the votes:

        langue rate runs/a runs/b --data prompts.jsonl --out votes.jsonl
        langue rate a.jsonl b.jsonl --judge MODEL --out votes.jsonl
        langue rate --report votes.jsonl
    """
    from langue.runs.show import print_result
    from langue.verbs.rate import rate as verb

    found = verb(
        systems,
        data=data,
        out=out,
        rater=rater,
        judge=judge,
        judge_prompt=judge_prompt,
        report=report,
        max_tokens=max_tokens,
        repeat=repeat,
        seed=seed,
        port=port,
    )
    print_result(found, as_json)
