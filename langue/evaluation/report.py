"""Floor 5. What arrives: a page: its head, notes, metrics, curves and sections. What leaves:
report.html, whole without a network.

A report knows sections and no task. Labels and texts are hostile until escaped: no HTML is made
here but by the templates, which escape all that they are given, and the page forbids itself
scripts.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langue import __version__, files
from langue.evaluation import cells, highlights, plots
from langue.evaluation.judge import Verdict
from langue.evaluation.scores import scores_of
from langue.tasks.judgement import HighlightKind, Matrix, Points, Section, Table

if TYPE_CHECKING:
    from jinja2 import Environment

# What is larger gets the width of the page: labels of a matrix or columns of a table, rows of a
# table, and characters of its cells.
SIDE = 4
LOW = 20
NARROW = 30
MAX_LABELS = 20  # in a matrix; beyond, its largest counts are listed
MAX_PASSAGE = 3000  # characters shown of one text
# characters of a label, and of one beside a matrix
MAX_LABEL = 80
IN_MATRIX = 20
UPRIGHT = 4  # labels over a matrix; more of them are turned


@dataclass(frozen=True)
class Page:
    """What a report shows, in this order."""

    title: str
    facts: Sequence[str] = ()  # in one line beneath the title
    about: Mapping[str, str] = field(default_factory=dict)  # in lines of their own, by name
    verdict: Verdict | None = None
    notes: Sequence[str] = ()
    summary: Mapping[str, Any] | None = None  # the content of metrics.json
    primary: str | None = None  # the metric that is set apart
    repeated: Sequence[str] = ()  # metrics that are left out
    curves: Sequence[bytes] = ()  # PNG files, side by side where there is room
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def write(path: str | Path, page: Page) -> None:
    """Write the page; it is all in one file."""
    files.write_text(Path(path), render(page))


def render(page: Page) -> str:
    """The page as HTML."""
    scores = None
    if page.summary is not None:
        scores = scores_of(page.summary, page.primary, page.repeated)
    return (
        _environment()
        .get_template("report.html")
        .render(
            page=page,
            notes=list(dict.fromkeys(page.notes)),
            scores=scores,
            curves=[base64.b64encode(each).decode("ascii") for each in page.curves],
            groups=list(_groups(page.sections)),
            settings=list(_flat("", page.settings)),
            made=f"langue {__version__} · {time.strftime('%Y-%m-%d %H:%M')}",
        )
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("langue.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters |= {
        "cell": cells.format_cell,
        "clip": cells.clipped,
        "excerpt": lambda passage: highlights.excerpt(passage, MAX_PASSAGE),
        "kind": lambda section: type(section).__name__,
        "parts": cells.parts_of,
        "label": _label,
        "plot": plots.plot,
        "px": lambda value: f"{value:.1f}",
    }
    made.globals |= {
        "MEANING": highlights.MEANING,
        "SIGNS": highlights.SIGNS,
        "HEIGHT": plots.HEIGHT,
        "WIDTH": plots.WIDTH,
        "MARGIN": {
            "left": plots.LEFT,
            "right": plots.RIGHT,
            "top": plots.TOP,
            "bottom": plots.BOTTOM,
        },
        "IN_MATRIX": IN_MATRIX,
        "UPRIGHT": UPRIGHT,
        "bars": cells.bars,
        "kinds_of": _kinds_of,
        "number_columns": cells.number_columns,
    }
    return made


def _label(value: str, limit: int = MAX_LABEL) -> str:
    """A label, cut; beside a matrix its end is left to a hint."""
    if limit == IN_MATRIX and len(value) > limit:
        return f"{value[:limit]}…"
    return cells.clipped(value, limit)


def _finalize(value: Any) -> Any:
    """What a template is about to escape: any value as text without characters that cannot be
    shown. What a macro has made is escaped already.
    """
    return value if hasattr(value, "__html__") else cells.visible(str(value))


def _kinds_of(rows: Iterable[Any]) -> list[HighlightKind]:
    return highlights.kinds_of(passage for row in rows for passage in row.passages)


def _groups(sections: Iterable[Section]) -> Iterator[list[Section]]:
    """The sections in their order, small ones that follow each other in pairs, and empty ones left
    out.
    """
    waiting: Section | None = None
    for section in sections:
        if isinstance(section, Matrix) and len(section.rows) > MAX_LABELS:
            section = section.largest()
        if not _is_filled(section):
            continue
        if waiting is not None and _is_small(section):
            yield [waiting, section]
            waiting = None
            continue
        if waiting is not None:
            yield [waiting]
        waiting = section if _is_small(section) else None
        if waiting is None:
            yield [section]
    if waiting is not None:
        yield [waiting]


def _is_filled(section: Section) -> bool:
    return bool(section.points if isinstance(section, Points) else section.rows)


def _is_small(section: Section) -> bool:
    """Whether half the width of a page is enough."""
    if isinstance(section, Points):
        return True
    if isinstance(section, Table):
        cells = chain.from_iterable(section.rows)
        longest = max(len(str(cell)) for cell in cells)
        return len(section.columns) <= SIDE and len(section.rows) <= LOW and longest <= NARROW
    return isinstance(section, Matrix) and max(len(section.rows), len(section.columns)) <= SIDE


def _flat(prefix: str, branch: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings as `section.key`, however they are nested."""
    for name, value in branch.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value
