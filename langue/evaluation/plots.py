"""Floor 5. What arrives: points of a section. What leaves: where they lie in a drawing, for a
template to draw as inline SVG that follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from langue.evaluation.cells import format_cell
from langue.tasks.judgement import Points

WIDTH = 430
HEIGHT = 330
# margins around the plane
LEFT = 48
RIGHT = 20
TOP = 12
BOTTOM = 40

Span = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    at: float  # pixels from the left, or from the top
    name: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    hint: str  # "" where a point says no more than where it lies


@dataclass(frozen=True)
class Plot:
    """A drawing in units of its own, WIDTH by HEIGHT."""

    across: list[Tick]
    up: list[Tick]
    dots: list[Dot]
    opacity: float  # of a dot: many of them show by their density
    line: str  # the `points` of a polyline; "" where the points are not joined
    diagonal: tuple[float, float, float, float] | None  # x1, y1, x2, y2


def plot(section: Points) -> Plot:
    """Lay out the points. With a diagonal both axes have the same span."""
    xs = [x for x, _ in section.points]
    ys = [y for _, y in section.points]
    if section.diagonal:
        across = up = _span([*xs, *ys], section.percent)
    else:
        across = _span(xs, section.percent)
        up = _span(ys, section.percent)
    places = [(_x(x, across), _y(y, up)) for x, y in section.points]
    radii = _radii(section)
    dots = [
        Dot(place[0], place[1], radius, _hint(section, index))
        for index, (place, radius) in enumerate(zip(places, radii, strict=True))
    ]
    ends = (_x(across[0], across), _y(up[0], up), _x(across[1], across), _y(up[1], up))
    return Plot(
        across=[Tick(_x(tick, across), _named(tick, section.percent)) for tick in _ticks(across)],
        up=[Tick(_y(tick, up), _named(tick, section.percent)) for tick in _ticks(up)],
        dots=dots,
        opacity=0.75 if section.sizes else max(0.3, min(0.8, 60 / max(1, len(dots)))),
        line=" ".join(f"{x:.1f},{y:.1f}" for x, y in places) if section.joined else "",
        diagonal=ends if section.diagonal else None,
    )


def _span(values: Sequence[float], percent: bool) -> Span:
    """From below the least value to above the largest; fractions of one reach up to it."""
    low = min(values, default=0.0)
    high = max(values, default=1.0)
    if percent:
        return min(0.9, math.floor(low * 10) / 10), 1.0
    if low == high:
        low = low - 0.5
        high = high + 0.5
    room = 0.03 * (high - low)
    return low - room, high + room


def _radii(section: Points) -> list[float]:
    if not section.sizes:
        return [2.6] * len(section.points)
    most = max(section.sizes)
    return [3 + 9 * math.sqrt(size / most) if most > 0 else 3.0 for size in section.sizes]


def _hint(section: Points, index: int) -> str:
    """What a sized point stands for, in words."""
    if not section.sizes:
        return ""
    x, y = section.points[index]
    counted = f"{section.sizes[index]:,.0f} {section.sizes_are}".rstrip()
    shown = (format_cell(float(value), section.percent) for value in (x, y))
    return f"{counted}: {section.x} {next(shown)}, {section.y} {next(shown)}"


def _named(tick: float, percent: bool) -> str:
    return f"{tick:.0%}" if percent else f"{tick:g}"


def _x(value: float, span: Span) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - span[0]) / (span[1] - span[0])


def _y(value: float, span: Span) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - span[0]) / (span[1] - span[0])


def _ticks(span: Span) -> list[float]:
    """Four to eight round numbers within the span."""
    step = 10.0 ** math.floor(math.log10((span[1] - span[0]) / 4))
    step *= next(
        (times for times in (1, 2, 5, 10) if (span[1] - span[0]) / (step * times) <= 7), 10
    )
    first = math.ceil(span[0] / step - 1e-9)
    last = math.floor(span[1] / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
