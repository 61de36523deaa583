"""Print what raters said of systems."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from langue.evaluation.terminal import print_sections
from langue.tasks.judgement import Table
from langue.wording import counted


def print_votes(found: Mapping[str, Any], console: Console) -> None:
    """Which system won, how surely, and whether raters agree."""
    votes = counted(found["votes"], "vote")
    items = counted(found["items"], "item")
    console.print(
        f"{votes} on {items} by {counted(len(found['raters']), 'rater')}", highlight=False
    )
    print_sections(console, [_pairs(found), *_others(found)])
    console.print(_position(found["position"]), highlight=False)


def _pairs(found: Mapping[str, Any]) -> Table:
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


def _others(found: Mapping[str, Any]) -> list[Table]:
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
