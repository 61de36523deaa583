"""Renders report.html, a self-contained page with head, notes, metrics, curves and sections.

The report knows sections only, and no task. Labels and texts are untrusted: only the templates
create HTML, they escape everything that is passed to them, and the page forbids scripts.
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

# Sections beyond these limits take the full width of the page: number of labels of a matrix or of
# columns of a table, number of rows of a table, and characters in its cells.
SIDE = 4
LOW = 20
NARROW = 30
MAX_LABELS = 20  # in a matrix; for a larger one, its largest counts are listed
MAX_PASSAGE = 3000  # maximum number of characters of one text
# characters of a label, in general and beside a matrix
MAX_LABEL = 80
IN_MATRIX = 20
UPRIGHT = 4  # maximum number of horizontal labels over a matrix; more labels are rotated


@dataclass(frozen=True)
class Page:
    """The contents of a report, in order."""

    title: str
    facts: Sequence[str] = ()  # in one line below the title
    about: Mapping[str, str] = field(default_factory=dict)  # in separate lines, by name
    verdict: Verdict | None = None
    notes: Sequence[str] = ()
    summary: Mapping[str, Any] | None = None  # the content of metrics.json
    primary: str | None = None  # the highlighted metric
    repeated: Sequence[str] = ()  # omitted metrics
    curves: Sequence[bytes] = ()  # PNG files, side by side if there is room
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def write(path: str | Path, page: Page) -> None:
    """Write the page as a single file."""
    files.write_text(Path(path), render(page))


def render(page: Page) -> str:
    """Return the page as HTML."""
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
    """Truncate a label; beside a matrix, the full label is left to a tooltip."""
    if limit == IN_MATRIX and len(value) > limit:
        return f"{value[:limit]}…"
    return cells.clipped(value, limit)


def _finalize(value: Any) -> Any:
    """Convert a value to text without undisplayable characters before the template escapes it; the
    output of macros is already escaped.
    """
    return value if hasattr(value, "__html__") else cells.visible(str(value))


def _kinds_of(rows: Iterable[Any]) -> list[HighlightKind]:
    return highlights.kinds_of(passage for row in rows for passage in row.passages)


def _groups(sections: Iterable[Section]) -> Iterator[list[Section]]:
    """Yield the sections in order: consecutive small ones in pairs, without empty ones."""
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
    """Return whether a section fits into half the width of a page."""
    if isinstance(section, Points):
        return True
    if isinstance(section, Table):
        cells = chain.from_iterable(section.rows)
        longest = max(len(str(cell)) for cell in cells)
        return len(section.columns) <= SIDE and len(section.rows) <= LOW and longest <= NARROW
    return isinstance(section, Matrix) and max(len(section.rows), len(section.columns)) <= SIDE


def _flat(prefix: str, branch: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield nested settings as `section.key`."""
    for name, value in branch.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value
