"""Tables and a learning curve for several runs of the same training.

They are for a terminal and report.html. A sentence tells whether more data would help.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue import files
from langue.evaluation import report
from langue.evaluation.curves import DEV, INK, QUIET, TRAIN, new_figure, set_title
from langue.evaluation.judge import LOWER_IS_BETTER, format_metric, named
from langue.tasks.judgement import Section, Table
from langue.wording import counted

WAYS = ("fold", "share", "seed")  # in which the runs can differ


def write_repeats(folder: Path, content: Mapping[str, Any]) -> None:
    """Write report.html and, for several training shares, curves.png.

    content: of the common metrics.json.
    """
    pictures = []
    if "shares" in content:
        picture = learning_curve(content)
        with files.atomic_file(folder / "curves.png") as temporary:
            temporary.write_bytes(picture)
        pictures = [picture]
    notes = [more_data_sentence(content)] if "more_data" in content else []
    page = report.Page(
        title=counted(len(content["runs"]), "run"),
        facts=[f"judged on {content['split']}"],
        notes=notes,
        curves=pictures,
        sections=sections_of_repeats(content),
    )
    report.write(folder / "report.html", page)


def sections_of_repeats(content: Mapping[str, Any]) -> list[Section]:
    """Return the sections: by training share if there are several, the spread of each metric, and
    the runs.
    """
    made: list[Section] = []
    if "shares" in content:
        made.append(_by_share(content))
    made += [_spreads(content), _runs(content)]
    return made


def _spreads(content: Mapping[str, Any]) -> Table:
    rows = []
    for name, found in content["metrics"].items():
        rows.append([named(name, content), *_spread_cells(name, found)])
    beside = content.get("baseline")
    main = content["main_metric"]
    if beside:
        called = f"{named(main, content)} of {beside['name']}"
        rows.append([called, *_spread_cells(main, beside["metrics"][main])])
        rows.append(["the model less it", *_spread_cells(main, beside["difference"])])
    title = "All runs"
    if "shares" in content:
        title = f"The runs on {content['shares'][-1]['rows']:,.0f} rows"
    return Table(
        title,
        ("metric", "mean", "deviation", "95% of the mean", "lowest", "highest"),
        rows,
        note="folds share rows, for which the interval is widened (Nadeau and Bengio 2003)"
        if any("fold" in run for run in content["runs"])
        else "",
    )


def _spread_cells(name: str, found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["undefined in a run", "–", "–", "–", "–"]
    interval = found["interval"]
    reach = "–"
    if interval is not None:
        reach = " to ".join(format_metric(name, end) for end in interval)
    ends = [format_metric(name, found[key]) for key in ("lowest", "highest")]
    return [
        format_metric(name, found["mean"]),
        format_metric(name, found["deviation"]),
        reach,
        *ends,
    ]


def _by_share(content: Mapping[str, Any]) -> Table:
    main = content["main_metric"]
    rows = []
    for part in content["shares"]:
        cells = _spread_cells(main, part["metrics"][main])[:3]
        beside = part.get("baseline")
        theirs = None if beside is None else beside["metrics"][main]
        mean = None if theirs is None else theirs["mean"]
        rows.append(
            [f"{part['share']:.4g}", f"{part['rows']:,.0f}", *cells, format_metric(main, mean)]
        )
    columns = ("share", "rows", named(main, content), "deviation", "95% of the mean", "baseline")
    note = more_data_sentence(content) if "more_data" in content else ""
    return Table("By training rows", columns, rows, note=note)


def _runs(content: Mapping[str, Any]) -> Table:
    main = content["main_metric"]
    ways = [way for way in WAYS if any(way in run for run in content["runs"])]
    rows = []
    for run in content["runs"]:
        beside = (run["baseline"] or {}).get("metrics", {})
        numbers = [run["metrics"].get(main), beside.get(main)]
        rows.append(
            [
                run["folder"],
                *(str(run.get(way, "")) for way in ways),
                f"{run['rows']:,}",
                f"{run['examples']:,}",
                *(format_metric(main, value) for value in numbers),
            ]
        )
    columns = ("run", *ways, "trained on", "judged on", named(main, content), "baseline")
    return Table("Each run", columns, rows)


# --- would more data help ---


def more_data_sentence(content: Mapping[str, Any]) -> str:
    """Describe `more_data` of a common metrics.json in a sentence."""
    found = content["more_data"]
    name = content["main_metric"]
    called = named(name, content)
    of = f"from {found['from']:,} to {found['to']:,} rows"
    if found["comparison"] is None:
        return f"Whether more data helped {of} cannot be said: {found['why']}."
    change = found["comparison"]["difference"]
    moved = format_metric(name, abs(change))
    way = "falls" if change < 0 else "rises"
    if found["outcome"] == "better":
        helped = "lower is better, " if name in LOWER_IS_BETTER else ""
        return (
            f"More data helped, and may go on to: {of} {called} {way} by {moved}"
            f" ({helped}p = {found['comparison']['p_value']:.2g})."
        )
    if found["outcome"] == "worse":
        return f"More data did not help: {of} {called} {way} by {moved}."
    return (
        f"Of more data no gain can be told: {of} {called} {way} by {moved}"
        f" (p = {found['comparison']['p_value']:.2g}); more of the same rows may not be worth it."
    )


def learning_curve(content: Mapping[str, Any]) -> bytes:
    """Return a PNG file of the main metric by number of training rows: the runs as points, their
    means joined by a line, and the baseline.
    """
    main = content["main_metric"]
    figure = new_figure(6.4, 4.2, 150)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=QUIET, labelsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    rows = [part["rows"] for part in content["shares"]]
    axes.set_xticks(rows, [f"{count:,.0f}" for count in rows])
    axes.set_xlabel("training rows", fontsize=9, color=QUIET)
    set_title(axes, named(main, content))
    runs = [run for run in content["runs"] if run["metrics"].get(main) is not None]
    axes.plot(
        [run["rows"] for run in runs],
        [run["metrics"][main] for run in runs],
        "o",
        color=TRAIN,
        markersize=4,
        alpha=0.6,
    )
    axes.plot(*_means(content["shares"], main), color=TRAIN, linewidth=2, label="model")
    beside = [
        part["baseline"] | {"rows": part["rows"]}
        for part in content["shares"]
        if part.get("baseline")
    ]
    if beside:
        axes.plot(
            *_means(beside, main), color=DEV, linewidth=1.5, linestyle=(0, (3, 2)), label="baseline"
        )
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _means(parts: Sequence[Mapping[str, Any]], main: str) -> tuple[list[float], list[float]]:
    defined = [part for part in parts if part["metrics"][main] is not None]
    return [part["rows"] for part in defined], [part["metrics"][main]["mean"] for part in defined]
