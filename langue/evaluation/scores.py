"""Converts the content of a metrics.json into rows of metrics, which HTML pages and terminals show
alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langue.evaluation.judge import LOWER_IS_BETTER, OF_POSITIVE, format_metric, metric_label
from langue.statistics.metrics import OF_HUNDRED


@dataclass(frozen=True)
class Track:
    """The position of a metric on the scale that all metrics share, in percent of its length."""

    at: float
    start: float | None  # start of the interval
    width: float
    baseline: float | None


@dataclass(frozen=True)
class Score:
    """One metric, formatted for display."""

    name: str
    label: str | None  # the label that the metric refers to, if there are two
    lower_is_better: bool
    is_primary: bool
    value: str
    interval: tuple[str, ...]  # both ends, or empty
    baseline: str
    track: Track | None


@dataclass(frozen=True)
class Scores:
    """All metrics, with the name and time of the baseline and the scale that they share."""

    rows: list[Score]
    has_intervals: bool
    baseline: str | None  # name of the baseline
    baseline_seconds: float
    low: float  # the start of the shared scale, which ends at 1
    has_scale: bool


def scores_of(
    summary: Mapping[str, Any], primary: str | None = None, repeated: Sequence[str] = ()
) -> Scores:
    """Return the metrics of `summary` except the `repeated` ones, each beside that of
    the baseline.
    """
    baseline: Mapping[str, Any] = summary.get("baseline") or {}
    theirs: Mapping[str, float | None] = baseline.get("metrics") or {}
    intervals: Mapping[str, Sequence[float] | None] = summary["intervals"]
    metrics = {name: n for name, n in summary["metrics"].items() if name not in repeated}
    low = _least(metrics, intervals, theirs)
    rows = [
        Score(
            name=metric_label(name),
            label=summary.get("positive") if name in OF_POSITIVE else None,
            lower_is_better=name in LOWER_IS_BETTER,
            is_primary=name == primary,
            value=format_metric(name, value),
            interval=tuple(format_metric(name, end) for end in intervals.get(name) or ()),
            baseline=format_metric(name, theirs.get(name)),
            track=_track(name, value, intervals.get(name), theirs.get(name), low),
        )
        for name, value in metrics.items()
    ]
    return Scores(
        rows=rows,
        has_intervals=bool(intervals),
        baseline=str(baseline["name"]) if baseline else None,
        baseline_seconds=float(baseline.get("seconds") or 0.0),
        low=low,
        has_scale=any(row.track is not None for row in rows),
    )


def _least(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float] | None],
    theirs: Mapping[str, float | None],
) -> float:
    """Return the start of the shared scale: a round number below all values, so that close values
    can be distinguished.
    """
    least = math.inf
    for name, value in metrics.items():
        if name not in LOWER_IS_BETTER:
            for number in (value, theirs.get(name), *(intervals.get(name) or ())):
                if number is not None:
                    least = min(least, _of_one(name, number))
    if math.isinf(least):
        return 0.0
    below = math.floor(10 * least - 0.5) / 10
    return max(0.0 if least >= 0 else -1.0, below)


def _of_one(name: str, value: float) -> float:
    """Convert the value to the scale that ends at 1."""
    return value / 100 if name in OF_HUNDRED else value


def _track(
    name: str,
    value: float | None,
    interval: Sequence[float] | None,
    other: float | None,
    low: float,
) -> Track | None:
    """Return the positions of the model, its interval and the baseline on the scale from `low` to
    1; None for a metric that does not fit on it.
    """
    numbers = [number for number in (value, other, *(interval or ())) if number is not None]
    if value is None or name in LOWER_IS_BETTER or _of_one(name, max(numbers)) > 1:
        return None

    def at(number: float) -> float:
        return 100 * (_of_one(name, number) - low) / (1 - low)

    return Track(
        at=at(value),
        start=at(interval[0]) if interval else None,
        width=at(interval[1]) - at(interval[0]) if interval else 0.0,
        baseline=at(other) if other is not None else None,
    )
