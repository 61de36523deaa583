"""The result of an evaluation: `Judgement` holds metrics with intervals, and sections that any
report can show.

Sections are independent of tasks, and reports only know sections, so that a new task needs no HTML
of its own. Every section is frozen and JSON-able (`dataclasses.asdict`). Texts and labels are
stored unescaped, hostile ones too; whoever renders a section escapes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Metrics = dict[str, float | None]
Interval = tuple[float, float]  # lower and upper end of a 95% interval
Cell = str | int | float | None  # None is an undefined value, shown as a dash
MAX_POINTS = 1500  # maximum number of points of a scatter plot
HighlightKind = Literal["plain", "right", "wrong", "missed", "given"]


@dataclass(frozen=True)
class Table:
    """Rows of cells: integers are counts, floats are measurements, strings are shown as they
    are.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    shares: Sequence[int] = ()  # columns that are fractions of one, shown as percentages
    bar: int | None = None  # column whose numbers also get a bar
    note: str = ""


@dataclass(frozen=True)
class Matrix:
    """Counts (rows, columns); if both have the same labels, the diagonal holds the correct ones."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    counts: Sequence[Sequence[int]]
    rows_are: str = "true"
    columns_are: str = "predicted"
    note: str = ""

    @property
    def is_square(self) -> bool:
        """Whether counts on the diagonal are correct and all others are confusions."""
        return list(self.rows) == list(self.columns)

    def largest(self, limit: int = 15) -> Table:
        """Return the largest counts, without a correct diagonal, for a matrix that is too big to
        show.
        """
        found = []
        for i, row in enumerate(self.counts):
            for j, count in enumerate(row):
                is_correct = self.is_square and i == j
                if count and not is_correct:
                    found.append((count, i, j))
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
    """Points in a plane: a scatter plot, a calibration plot or, if they are joined, a curve."""

    title: str
    x: str  # names of the axes
    y: str
    points: Sequence[tuple[float, float]]
    sizes: Sequence[float] | None = None  # areas of the points; None: all the same
    sizes_are: str = ""  # what `sizes` counts, e.g. "answers"
    diagonal: bool = False  # both axes have the same range, and x = y is drawn
    joined: bool = False  # a line connects the points
    percent: bool = False  # both axes are fractions of one, shown as percentages
    note: str = ""


@dataclass(frozen=True)
class Highlight:
    """Characters `start` to `end` of a passage; highlights of one passage may overlap.

    right: predicted and true; wrong: predicted only; missed: true only; plain: neither is known;
    given: the model's input, shown less prominently than its output.
    """

    start: int
    end: int
    label: str = ""
    kind: HighlightKind = "plain"


@dataclass(frozen=True)
class Passage:
    """A text and its highlights."""

    text: str
    highlights: Sequence[Highlight] = ()


@dataclass(frozen=True)
class Example:
    """One row of `Examples`: its texts (two for a pair) and a cell for every column."""

    passages: Sequence[Passage]
    cells: Sequence[Cell] = ()


@dataclass(frozen=True)
class Examples:
    """Texts with annotations: worst mistakes, samples, longest documents."""

    title: str
    columns: Sequence[str]  # of the cells; the texts precede them, under the heading `texts_are`
    rows: Sequence[Example]
    texts_are: str = "text"
    shares: Sequence[int] = ()  # columns that are fractions of one, shown as percentages
    note: str = ""


def scatter(true: NDArray[Any], predicted: NDArray[Any], seed: int) -> Points:
    """Return a scatter plot of predicted against true values, both (N,), or of a random sample if
    there are many.
    """
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
    """The quality of predictions.

    A metric of None is undefined, an interval of None unknown; `notes` say why.
    """

    examples: int
    metrics: Metrics
    intervals: Mapping[str, Interval | None]
    primary_metric: str
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    # with two labels, the one that `precision`, `recall` and `f1` refer to
    positive: str | None = None
    # metrics that always equal another one, which reports omit
    repeated: Sequence[str] = ()
    # additional content of metrics.json, such as a threshold chosen on dev
    settled: Mapping[str, Any] = field(default_factory=dict)

    def as_json(
        self, split: str, baseline: Mapping[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        """Return the content of metrics.json."""
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
