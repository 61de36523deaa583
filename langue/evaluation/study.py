"""Writes study.png and report.html for a hyperparameter search: how the best trial was found, and
which settings mattered.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue import files
from langue.evaluation import report
from langue.evaluation.curves import DEV, INK, QUIET, TRAIN, new_figure, set_title
from langue.evaluation.judge import LOWER_IS_BETTER, verdict
from langue.tasks.judgement import Cell, Section, Table
from langue.wording import counted

ACROSS = 3  # number of panels in a row
SIZE = (4.2, 3.3)  # size of a panel in inches

Row = Mapping[str, Any]


def write_study(
    folder: Path, result: Mapping[str, Any], rows: Sequence[Row], space: Mapping[str, str]
) -> None:
    """Write study.png and report.html.

    result: the content of result.json. rows: one record for each trial, as in trials.jsonl. space:
    the search space as the user wrote it.
    """
    picture = _draw(result, rows, list(space))
    with files.atomic_file(folder / "study.png") as temporary:
        temporary.write_bytes(picture)
    first = result["test"][0] if isinstance(result["test"], list) else result["test"]
    page = report.Page(
        title=f"search over {', '.join(space)}",
        facts=[
            counted(result["trials"], "trial"),
            f"{result['complete']:,} completed",
            f"{result['pruned']:,} pruned",
            f"{result['fail']:,} failed",
            f"best on dev: trial {result['best']['trial']}",
        ],
        verdict=verdict(first),
        notes=[f"Trials were compared on dev; {first['split']} was looked at once, for the best."],
        curves=[picture],
        sections=sections_of_study(result, rows),
        settings=space,
    )
    report.write(folder / "report.html", page)


def sections_of_study(result: Mapping[str, Any], rows: Sequence[Row]) -> list[Section]:
    """Return the importances of the settings, and the trials from best to worst."""
    made: list[Section] = []
    if result["importances"]:
        made.append(
            Table(
                "What mattered",
                ("setting", "importance"),
                list(result["importances"].items()),
                shares=(1,),
                bar=1,
                note="the share of the differences between complete trials that a setting explains",
            )
        )
    made.append(trials_table(result, rows))
    return made


def trials_table(result: Mapping[str, Any], rows: Sequence[Row], most: int | None = None) -> Table:
    """Return the trials from best to worst, followed by pruned and failed ones; `most` limits their
    number.
    """
    lower = result["metric"] in LOWER_IS_BETTER
    names = list(result["best"]["settings"])

    def order(row: Row) -> tuple[bool, float, int]:
        value = row["value"]
        done = row["state"] == "complete"
        return not done, (value if lower else -value) if done else 0.0, row["trial"]

    cells: list[list[Cell]] = []
    for row in sorted(rows, key=order)[:most]:
        shown = [_cell(row["settings"].get(name)) for name in names]
        value = row["value"] if row["state"] == "complete" else None
        state = row["state"] if "error" not in row else f"failed: {row['error']}"
        cells.append([str(row["trial"]), value, *shown, row["seconds"], state])
    left = len(rows) - len(cells)
    columns = ("trial", f"dev {result['metric']}", *names, "seconds", "state")
    return Table("Trials", columns, cells, note=f"{left} more in trials.jsonl" if left else "")


def _by_number(written: str) -> tuple[float, str]:
    """Return the sort key of a choice: numbers by value, after all non-numeric choices."""
    try:
        return float(written), written
    except ValueError:
        return -math.inf, written


def _cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, str) else f"{value:.4g}"


# --- the picture ---


def _draw(result: Mapping[str, Any], rows: Sequence[Row], names: list[str]) -> bytes:
    """Return a PNG file with the history of the trials, the importances, and the result by each
    setting.
    """
    panels = 2 + len(names)
    deep = -(-panels // ACROSS)
    figure = new_figure(SIZE[0] * ACROSS, SIZE[1] * deep, 150)
    grid = figure.subplots(deep, ACROSS, squeeze=False).ravel()
    complete = [row for row in rows if row["state"] == "complete"]
    _history(grid[0], result, rows)
    _importances(grid[1], result["importances"])
    for axes, name in zip(grid[2:panels], names, strict=True):
        _by_setting(axes, result, complete, name)
    for axes in grid[panels:]:
        axes.set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _dress(axes: Any, title: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=QUIET, labelsize=8)
    axes.set_axisbelow(True)
    set_title(axes, title)


def _history(axes: Any, result: Mapping[str, Any], rows: Sequence[Row]) -> None:
    from matplotlib.ticker import MaxNLocator

    _dress(axes, f"dev {result['metric']} by trial")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    pick = min if result["metric"] in LOWER_IS_BETTER else max
    numbers: list[int] = []
    values: list[float] = []
    best: list[float] = []
    for row in rows:
        if row["state"] == "complete":
            numbers.append(row["trial"])
            values.append(row["value"])
            best.append(pick(values))
    axes.plot(numbers, values, "o", color=TRAIN, markersize=4, label="complete")
    axes.step(numbers, best, where="post", color=DEV, linewidth=1.5, label="best so far")
    pruned = [(row["trial"], row["dev"][-1]) for row in rows if row["state"] == "pruned"]
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "x", color=QUIET, markersize=5, label="pruned")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def _importances(axes: Any, found: Mapping[str, float] | None) -> None:
    _dress(axes, "What mattered")
    if not found:
        axes.set_xticks([])
        axes.set_yticks([])
        middle = {"ha": "center", "va": "center", "color": QUIET, "transform": axes.transAxes}
        axes.text(0.5, 0.5, "too few complete trials\nthat differ", **middle)
        return
    names = list(found)[::-1]
    axes.barh(names, [found[name] for name in names], color=TRAIN, height=0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _by_setting(axes: Any, result: Mapping[str, Any], rows: Sequence[Row], name: str) -> None:
    """Plot the result of each complete trial against its value of a setting."""
    _dress(axes, name)
    values = [row["settings"][name] for row in rows]
    results = [row["value"] for row in rows]
    if any(isinstance(value, str) for value in values):
        choices = sorted(set(values), key=_by_number)
        axes.set_xticks(range(len(choices)), choices)
        axes.set_xlim(-0.5, len(choices) - 0.5)
        values = [choices.index(value) for value in values]
    elif values and min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
    axes.plot(values, results, "o", color=TRAIN, markersize=4, alpha=0.7)
    best = next(row for row in rows if row["trial"] == result["best"]["trial"])
    at = values[rows.index(best)]
    ring = {"color": "white", "markeredgecolor": DEV, "markeredgewidth": 2, "markersize": 8}
    axes.plot([at], [best["value"]], "o", **ring)
