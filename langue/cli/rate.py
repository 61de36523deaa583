"""What arrives: the words after `langue rate`. What leaves: a page to vote on, and what the votes
say, printed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langue.cli.options import Debug, Json

if TYPE_CHECKING:
    from langue.tasks.judgement import Table


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
    from langue.runs.show import print_json
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
    if as_json:
        print_json(found)
        return
    _print(found)


def _print(found: Mapping[str, Any]) -> None:
    from rich.console import Console

    from langue.evaluation.terminal import print_sections
    from langue.wording import counted

    votes = counted(found["votes"], "vote")
    items = counted(found["items"], "item")
    print(f"{votes} on {items} by {counted(len(found['raters']), 'rater')}")
    print_sections(Console(), [_pairs(found), *_others(found)])
    print(_position(found["position"]))


def _pairs(found: Mapping[str, Any]) -> "Table":
    from langue.tasks.judgement import Table

    rows = []
    for pair in found["pairs"]:
        ends = pair["interval"]
        rows.append(
            [
                pair["system"],
                pair["against"],
                pair["wins"],
                pair["losses"],
                pair["ties"],
                pair["both_bad"],
                _share(pair["win_rate"]),
                "–" if ends is None else " – ".join(map(_share, ends)),
                f"{pair['p_value']:.2g}",
            ]
        )
    columns = ("system", "against", "wins", "losses", "ties", "both bad", "won", "95%", "p")
    note = "won: of the votes that decided; the interval is Wilson's, p that of the sign test"
    return Table("Pairs", columns, rows, note=note)


def _others(found: Mapping[str, Any]) -> "list[Table]":
    from langue.tasks.judgement import Table

    tables = []
    if found["bradley_terry"]:
        ranked = [
            [row["system"], f"{row['elo']:+.0f}", " to ".join(f"{e:+.0f}" for e in row["interval"])]
            for row in found["bradley_terry"]
        ]
        note = "Bradley-Terry in points of Elo about their mean; 95% over items drawn anew"
        tables.append(Table("Ranking", ("system", "Elo", "95%"), ranked, note=note))
    agreed = found["agreement"]
    if agreed:
        rows = [
            [" and ".join(each["raters"]), each["items"], _number(each["kappa"]), "Cohen's kappa"]
            for each in agreed["cohen"]
        ]
        alpha = _number(agreed["krippendorff"])
        rows.append(["all raters", agreed["items"], alpha, "Krippendorff's alpha"])
        tables.append(Table("Agreement", ("raters", "items", "agreement", ""), rows))
    if found["both_orders"]:
        orders = [
            [name, each["of"], _share(each["agreed"] / each["of"])]
            for name, each in found["both_orders"].items()
        ]
        columns = ("rater", "pairs", "said the same")
        note = "where the two orders disagree, the vote is a tie"
        tables.append(Table("Both orders", columns, orders, note=note))
    return tables


def _position(found: Mapping[str, Any]) -> str:
    if not found["of"]:
        return "No vote was for a side."
    ends = " – ".join(map(_share, found["interval"]))
    said = (
        "more than chance explains: the side decides"
        if found["p_value"] < 0.05
        else "no more than chance explains"
    )
    return (
        f"The left was chosen in {_share(found['share'])} of {found['of']:,} votes for a side"
        f" (95%: {ends}; p = {found['p_value']:.2g}), {said}."
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
