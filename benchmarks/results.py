"""Summarise the rounds of peers as a table for people and as JSON for programs."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import spread

FOLDER = Path(__file__).parent / "results"
Answers = Mapping[str, list[dict[str, Any]]]


def summary(
    answers: Answers, against: str, floor_speed: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return one entry per peer: median speed, its spread, the ratio of `against`'s speed to it in
    each round, and the fraction of the floor.

    floor_speed: the speed of the matrix products alone, for the peers for which it is known.
    """
    lines = []
    base = [answer["speed"] for answer in answers[against]]
    for name, rounds in answers.items():
        speeds = [answer["speed"] for answer in rounds]
        ratios = [ours / theirs for ours, theirs in zip(base, speeds, strict=False)]
        median = statistics.median(speeds)
        lines.append(
            {
                "peer": name,
                "median": median,
                "unit": rounds[0]["unit"],
                "spread": spread(speeds),
                "rounds": speeds,
                "ratios": ratios,
                "ratio": statistics.median(ratios),
                "floor_share": median / floor_speed[name] if name in floor_speed else None,
                "others": max(answer["others"] for answer in rounds),
                "error": next((answer["error"] for answer in rounds if "error" in answer), None),
            }
        )
    return lines


def table(title: str, against: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the entries as a Markdown table."""
    rows = [
        f"### {title}",
        "",
        (
            f"| peer | median | spread | {against} is faster by | in each round | share of the"
            " floor | error | others |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        share = "" if line["floor_share"] is None else f"{line['floor_share']:.0%}"
        error = "" if line["error"] is None else f"{line['error']:.2g}"
        each = ", ".join(f"{ratio:.2f}" for ratio in line["ratios"])
        rows.append(
            f"| {line['peer']} | {line['median']:.1f} {line['unit']} | {line['spread']:.0%} |"
            f" {line['ratio']:.2f} | {each} | {share} | {error} | {line['others']:.0%} |"
        )
    return "\n".join(rows) + "\n"


def machine_text(facts: Mapping[str, Any], rates: Mapping[str, float]) -> str:
    sets = ", ".join(facts["instruction_sets"])
    measured = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
    return (
        f"{facts['processor']}, {facts['cores']} cores ({sets}; bf16"
        f" {'yes' if facts['bf16'] else 'no'}), torch {facts['torch']} on {facts['torch_threads']}"
        f" threads, Python {facts['python']}; load before: {facts['load_before']}\nmatrix products:"
        f" {measured}\n"
    )


def save(name: str, content: Mapping[str, Any], text: str) -> Path:
    FOLDER.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = FOLDER / f"{stamp}-{name}.json"
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    return path
