"""What arrives: numbers and texts that a task has judged.
What leaves: a `Judgement`: metrics with intervals, and sections that any report can show.

A section knows nothing of tasks, and a report knows nothing but sections: a new task fills these
and needs no HTML. Every section is frozen and JSON-able (`dataclasses.asdict`). Texts and labels
are kept as they are, hostile ones too; whoever shows a section escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Metrics = dict[str, float | None]
Interval = tuple[float, float]  # lower and upper end, of 95%
Cell = str | int | float | None  # None stands for what is undefined and is shown as a dash
MAX_POINTS = 1500  # of a scatter plot
HighlightKind = Literal["plain", "right", "wrong", "missed", "given"]


@dataclass(frozen=True)
class Table:
    """Rows of cells. Integers are counts and floats measurements; strings are shown as they are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    shares: Sequence[int] = ()  # columns of fractions of one, shown in percent
    bar: int | None = None  # the column whose numbers also get a bar
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """Counts (rows, columns). Where both have the same labels, the diagonal is what is right."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    rows_are: str = "true"
    columns_are: str = "predicted"
    note: str = ""

    @property
    def is_square(self) -> bool:
        """Whether a count on the diagonal is right, and any other a confusion."""
        return list(self.rows) == list(self.columns)

    def largest(self, limit: int = 15) -> Table:
        """The largest counts, off the diagonal where that is what is right: for a matrix that does
        not fit where it is shown.
        """
        found = [
            (count, i, j)
            for i, row in enumerate(self.counts)
            for j, count in enumerate(row)
            if count and not (self.is_square and i == j)
        ]
        found.sort(key=lambda one: (-one[0], one[1:]))
        return Table(
            title="Commonest confusions" if self.is_square else f"{self.title}: largest counts",
            columns=(self.rows_are, self.columns_are, "times", f"of the {self.rows_are}"),
            rows=[
                (self.rows[i], self.columns[j], count, count / sum(self.counts[i]))
                for count, i, j in found[:limit]
            ],
            shares=(3,),
            note=self.note,
        )


@dataclass(frozen=True)
class Points:
    """Points of a plane: a scatter plot, a calibration plot or, where they are joined, a curve."""

    title: str
    x: str  # names of the axes
    y: str
    points: Sequence[tuple[float, float]]
    sizes: Sequence[float] | None = None  # a point's area; None: all are alike
    sizes_are: str = ""  # what is counted by `sizes`: "answers"
    diagonal: bool = False  # both axes have one span, and x = y is drawn
    joined: bool = False  # a line goes from point to point
    percent: bool = False  # both axes are fractions of one, shown in percent
    note: str = ""


@dataclass(frozen=True)
class Highlight:
    """Characters `start` to `end` of a passage. Highlights of one passage may overlap.

    right: predicted and true; wrong: predicted only; missed: true only; plain: neither is known;
    given: what a model was given, shown more quietly than what it made of it.
    """

    start: int
    end: int
    label: str = ""
    kind: HighlightKind = "plain"


@dataclass(frozen=True)
class Passage:
    """A text and what is highlighted in it."""

    text: str
    highlights: Sequence[Highlight] = ()


@dataclass(frozen=True)
class Example:
    """One row of `Examples`: its texts (two of a pair) and a cell for every column."""

    passages: Sequence[Passage]
    cells: Sequence[Cell] = ()


@dataclass(frozen=True)
class Examples:
    """Texts with what was said of them: the worst mistakes, samples, the longest documents."""

    title: str
    columns: Sequence[str]  # of the cells; the texts come first, under `texts_are`
    rows: Sequence[Example]
    texts_are: str = "text"
    shares: Sequence[int] = ()  # columns of fractions of one, shown in percent
    note: str = ""


def scatter(true: NDArray[Any], predicted: NDArray[Any], seed: int) -> Points:
    """What was predicted of examples against what is true, both (N,); of many a random part."""
    shown = np.arange(len(true))
    if len(true) > MAX_POINTS:
        shown = np.random.default_rng(seed).choice(len(true), MAX_POINTS, replace=False)
    told = (
        f"{len(shown):,} of {len(true):,} examples, drawn at random"
        if len(shown) < len(true)
        else "Every example"
    )
    return Points(
        title="Predicted against true",
        x="true",
        y="predicted",
        points=[(float(true[i]), float(predicted[i])) for i in shown],
        diagonal=True,
        note=f"{told}; on the diagonal the prediction is exact.",
    )


Section = Table | Matrix | Points | Examples


@dataclass(frozen=True)
class Judgement:
    """How good predictions are. `None` stands for what is undefined, and `notes` says why, or for
    no interval.
    """

    examples: int
    metrics: Metrics
    intervals: Mapping[str, Interval | None]
    primary_metric: str
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    # with two labels: which of them `precision`, `recall` and `f1` are of
    positive: str | None = None
    # metrics that always equal another one, which reports leave out
    repeated: Sequence[str] = ()
    # what metrics.json has besides: a threshold that was chosen on dev
    settled: Mapping[str, Any] = field(default_factory=dict)

    def as_json(
        self, split: str, baseline: Mapping[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        """The content of metrics.json."""
        return {
            "split": split,
            "examples": self.examples,
            "metrics": dict(self.metrics),
            **({"positive": self.positive} if self.positive is not None else {}),
            "intervals": {
                name: list(pair) if pair else None for name, pair in self.intervals.items()
            },
            "baseline": dict(baseline) if baseline else None,
            "seconds": round(seconds, 3),
            "main_metric": self.primary_metric,
            **self.settled,
        }
