"""Plots of loss and quality by step, for train and dev, from the lines of log.jsonl: as curves.png,
and as separate images for a page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from langue import files
from langue.evaluation.judge import LOWER_IS_BETTER, format_metric, named

TRAIN = "#2f6fdb"
DEV = "#e0702b"
INK = "#2b2f36"
QUIET = "#747d8a"
BASELINE = "#2b8a5b"
QUALITY = ("perplexity", "pearson", "f1_micro", "accuracy")
MAX_PASSES_MARKED = 12

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Curves:
    """The curves of a run's log, whose lines have `split` (train or dev), `step`, `loss` and
    metrics.
    """

    log: Sequence[Line]
    # metric of the right panel; None: the first of QUALITY that training steps log
    quality: str | None = None
    # whether the kept checkpoint has the lowest dev loss, rather than the best value of the metric
    by_loss: bool = False
    # metrics of the baseline, and the split they were measured on
    baseline: Mapping[str, float | None] = field(default_factory=dict)
    baseline_split: str = "test"

    def write(self, path: str | Path) -> None:
        """Write both panels side by side as one PNG file."""
        figure = new_figure(11, 4.4, 150)
        left, right = figure.subplots(1, 2)
        self._draw_loss(left)
        self._draw_quality(right)
        with files.atomic_file(Path(path)) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})

    def panels(self) -> list[bytes]:
        """Return each panel as a separate PNG file, which remains legible on a narrow page."""
        made = []
        for half in (self._draw_loss, self._draw_quality):
            figure = new_figure(4.3, 3.8, 220)
            half(figure.subplots())
            file = BytesIO()
            figure.savefig(file, format="png", transparent=True, metadata={"Software": None})
            made.append(file.getvalue())
        return made

    def kept_step(self) -> int | None:
        """Return the step with the best dev result; None if there was no evaluation on dev."""
        name = self.quality or _quality(self.log)
        losses = _points(self.log, "dev", "loss")
        lower = self.by_loss or name in LOWER_IS_BETTER
        points = losses if self.by_loss else _points(self.log, "dev", name)
        return int(_best(points, lower, dict(losses))[0]) if points else None

    def last_step(self) -> int:
        """Return the last logged step."""
        return int(max((step for step, _ in _points(self.log, None, "step")), default=0))

    def _draw_loss(self, axes: Any) -> None:
        _dress(axes, self.log, rising=False)
        raw = _points(self.log, "train", "loss")
        set_title(axes, "Loss")
        axes.plot(*_columns(raw), color=TRAIN, alpha=0.22, linewidth=1)
        smoothed = "train (smoothed)" if _reach(raw) else "train"
        axes.plot(*_columns(_smooth(raw)), color=TRAIN, linewidth=2, label=smoothed)
        _dev(axes, "loss", _points(self.log, "dev", "loss"), lower=True)
        self._draw_baseline(axes, "loss")
        _legend(axes)

    def _draw_quality(self, axes: Any) -> None:
        name = self.quality or _quality(self.log)
        lower = name in LOWER_IS_BETTER
        _dress(axes, self.log, rising=not lower)
        title = named(name, next((line for line in self.log if "positive" in line), {}))
        set_title(axes, title.capitalize() if title.islower() else title)
        train = _points(self.log, "train", name)
        if train:
            axes.plot(*_columns(_smooth(train)), color=TRAIN, linewidth=2, label="train")
        points = _points(self.log, "dev", name)
        losses = _points(self.log, "dev", "loss")
        if self.by_loss and losses:
            kept, _ = _best(losses, True, {})
            _dev(axes, name, points, lower=False, kept=kept)
        else:
            _dev(axes, name, points, lower=lower, losses=dict(losses))
        self._draw_baseline(axes, name)
        if name == "perplexity":
            _ratios(axes)
        _legend(axes)

    def _draw_baseline(self, axes: Any, name: str) -> None:
        """Draw a horizontal line at the baseline's value of this metric, if it has one."""
        value = self.baseline.get(name)
        if value is None or not math.isfinite(value):
            return
        told = f"baseline on {self.baseline_split}: {format_metric(name, value)}"
        axes.axhline(value, color=BASELINE, linewidth=1.6, linestyle=(0, (4, 2)), label=told)


def new_figure(width: float, height: float, dpi: int) -> Any:
    """Return an empty figure; width and height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def set_title(axes: Any, words: str) -> None:
    axes.set_title(words, loc="left", fontsize=13, fontweight="bold", color=INK, parse_math=False)


def _legend(axes: Any) -> None:
    """Draw the legend below the axes, where no curve crosses it; say so if nothing was logged."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False,
            fontsize=10,
            labelcolor=INK,
            handlelength=1.3,
            labelspacing=0.3,
            loc="upper left",
            bbox_to_anchor=(-0.12, -0.21),
            borderaxespad=0,
        )
        return
    axes.set_yticks([])
    middle = {"ha": "center", "va": "center", "color": QUIET, "transform": axes.transAxes}
    axes.text(0.5, 0.5, "nothing logged", **middle)


def _ratios(axes: Any) -> None:
    """Set a logarithmic scale with plain numbers, since perplexity falls by factors."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _dev(
    axes: Any,
    name: str,
    points: list[tuple[float, float]],
    lower: bool,
    losses: Mapping[float, float] = MappingProxyType({}),
    kept: float | None = None,
) -> None:
    """Draw the dev curve, with its best point (or the point at step `kept`) ringed and listed in
    the legend.
    """
    if not points:
        return
    axes.plot(*_columns(points), color=DEV, linewidth=2, marker="o", markersize=4, label="dev")
    told = "best:"
    step, value = _best(points, lower, losses)
    if kept is not None:
        told = "lowest loss:"
        step, value = next((point for point in points if point[0] == kept), (step, value))
    ring = {"color": "white", "markeredgecolor": DEV, "markeredgewidth": 2, "markersize": 9}
    label = f"{told} {format_metric(name, value)} at step {step:,.0f}"
    axes.plot([step], [value], "o", **ring, label=label)


def _best(
    points: list[tuple[float, float]], lower: bool, losses: Mapping[float, float]
) -> tuple[float, float]:
    """Return the point whose weights are kept; the lowest loss breaks ties, as in the trainer."""
    return min(
        points, key=lambda point: (point[1] if lower else -point[1], losses.get(point[0], math.inf))
    )


def _dress(axes: Any, log: Sequence[Line], rising: bool) -> None:
    """Style the axes, and draw a thin line at the end of each pass over the data, labelled at the
    end of the axes that is away from the curves.
    """
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c9ced6")
    axes.grid(axis="y", color="#e8ebef", linewidth=0.8)
    axes.tick_params(colors=QUIET, labelsize=10.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_xlabel("step", fontsize=10.5, color=QUIET)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    last = max((step for step, _ in _points(log, None, "step")), default=1.0)
    axes.set_xlim(-0.02 * last, 1.03 * last)  # the same range of steps in both panels
    ends = _pass_ends(log)
    if len(ends) <= MAX_PASSES_MARKED:
        for number, step in enumerate(ends, start=1):
            axes.axvline(step, color="#c9ced6", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate(
                f"pass {number}",
                (step, 0 if rising else 1),
                xycoords=("data", "axes fraction"),
                xytext=(-3, 2 if rising else -2),
                textcoords="offset points",
                ha="right",
                va="bottom" if rising else "top",
                rotation=90,
                fontsize=9,
                color=QUIET,
            )


def _pass_ends(log: Sequence[Line]) -> list[float]:
    """Return the first logged step at or after the end of each complete pass."""
    ends: list[float] = []
    for step, epoch in _points(log, None, "epoch"):
        while epoch >= len(ends) + 1 - 1e-6:
            ends.append(step)
    return ends


def _quality(log: Sequence[Line]) -> str:
    """Return the metric of the right panel: the one that selects the best step, which training
    steps log too.
    """
    there = {name for line in log if line.get("split") == "train" for name in line}
    return next((name for name in QUALITY if name in there), "accuracy")


def _points(log: Sequence[Line], split: str | None, name: str) -> list[tuple[float, float]]:
    """Return (step, value) of all lines of a split with a finite value, sorted by step."""
    found = [
        (float(line["step"]), float(line[name]))
        for line in log
        if split in (None, line.get("split"))
        and isinstance(line.get(name), int | float)
        and "step" in line
    ]
    return sorted(point for point in found if math.isfinite(point[1]))


def _reach(points: list[tuple[float, float]]) -> int:
    return len(points) // 30


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the moving average over a fifteenth of the run.

    The window is centred, since a trailing average would lie above the dev curve.
    """
    reach = _reach(points)
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    result = []
    for i, (step, _) in enumerate(points):
        first = max(0, i - reach)
        last = min(len(points), i + reach + 1)
        result.append((step, (sums[last] - sums[first]) / (last - first)))
    return result


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
