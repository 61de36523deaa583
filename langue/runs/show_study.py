"""Print what a search of settings found."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from langue.evaluation.study import sections_of_study
from langue.evaluation.terminal import print_sections
from langue.runs.show import print_metrics


def print_study(
    result: Mapping[str, Any], console: Console, lines: Sequence[Mapping[str, Any]]
) -> None:
    """The trials, the best settings and their test metrics; lines: of trials.jsonl."""
    print_sections(console, sections_of_study(result, lines))
    console.print(
        f"{result['trials']} trials: {result['complete']} completed, {result['pruned']} pruned,"
        f" {result['fail']} failed",
        highlight=False,
    )
    best = result["best"]
    chosen = " ".join(f"{key}={value}" for key, value in best["settings"].items())
    console.print(
        f"Best: trial {best['trial']}, dev {result['metric']} {best['dev']:.4f}: {chosen}",
        highlight=False,
        markup=False,
    )
    judged = result["test"] if isinstance(result["test"], list) else [result["test"]]
    for content in judged:
        print_metrics(content, console)
