"""Layout of the points of a section in a plot, which a template draws as inline SVG that adapts to
light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from langue.evaluation.cells import format_cell
from langue.tasks.judgement import Points

WIDTH = 430
HEIGHT = 330
# margins around the plotting area
LEFT = 58
RIGHT = 22
TOP = 12
BOTTOM = 46

Span = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    at: float  # in pixels from the left edge, or from the top
    name: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    hint: str  # "" if there is no information beyond the position


@dataclass(frozen=True)
class Plot:
    """A plot in its own coordinates, WIDTH by HEIGHT."""

    across: list[Tick]
    up: list[Tick]
    dots: list[Dot]
    opacity: float  # of a dot: with many dots, overlaps show the density
    line: str  # the `points` attribute of a polyline; "" if the points are not joined
    diagonal: tuple[float, float, float, float] | None  # x1, y1, x2, y2
    left_out: int  # number of points that are not finite


def plot(section: Points) -> Plot:
    """Lay out the points; with a diagonal, both axes have the same range."""
    section, left_out = _finite(section)
    xs = [x for x, _ in section.points]
    ys = [y for _, y in section.points]
    if section.diagonal:
        across = up = _span([*xs, *ys], section.percent)
    else:
        across = _span(xs, section.percent)
        up = _span(ys, section.percent)
    pixels = [(_x(x, across), _y(y, up)) for x, y in section.points]
    dots = []
    for index, radius in enumerate(_radii(section)):
        x, y = pixels[index]
        dots.append(Dot(x, y, radius, _hint(section, index)))
    x_ticks = []
    for value in _ticks(across):
        x_ticks.append(Tick(_x(value, across), _named(value, section.percent)))
    y_ticks = []
    for value in _ticks(up):
        y_ticks.append(Tick(_y(value, up), _named(value, section.percent)))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    return Plot(
        across=x_ticks,
        up=y_ticks,
        dots=dots,
        opacity=_opacity(section),
        line=line if section.joined else "",
        diagonal=_corners(across, up) if section.diagonal else None,
        left_out=left_out,
    )


def _opacity(section: Points) -> float:
    """Return the opacity of a dot, which is lower the more dots there are."""
    if section.sizes:
        return 0.75
    crowded = 60 / max(1, len(section.points))
    return max(0.3, min(0.8, crowded))


def _corners(across: Span, up: Span) -> tuple[float, float, float, float]:
    """Return the coordinates of the corner where both axes begin and of the one where both end."""
    x_low, x_high = across
    y_low, y_high = up
    return _x(x_low, across), _y(y_low, up), _x(x_high, across), _y(y_high, up)


def _finite(section: Points) -> tuple[Points, int]:
    """Return the section without non-finite points, and the number of these."""
    kept = []
    for index, (x, y) in enumerate(section.points):
        if math.isfinite(x) and math.isfinite(y):
            kept.append(index)
    points = [section.points[i] for i in kept]
    sizes = None
    if section.sizes:
        sizes = [section.sizes[i] for i in kept]
    left_out = len(section.points) - len(kept)
    return replace(section, points=points, sizes=sizes), left_out


def _span(values: Sequence[float], percent: bool) -> Span:
    """Return the range of an axis: from below the minimum to above the maximum; shares end at 1."""
    low = min(values, default=0.0)
    high = max(values, default=1.0)
    if percent:
        tenth_below = math.floor(low * 10) / 10
        return min(0.9, tenth_below), 1.0
    if low == high:
        low = low - 0.5
        high = high + 0.5
    room = 0.03 * (high - low)
    return low - room, high + room


def _radii(section: Points) -> list[float]:
    if not section.sizes:
        return [2.6] * len(section.points)
    most = max(section.sizes)
    if most <= 0:
        return [3.0] * len(section.sizes)
    return [3 + 9 * math.sqrt(size / most) for size in section.sizes]


def _hint(section: Points, index: int) -> str:
    """Describe a sized point in words."""
    if not section.sizes:
        return ""
    x, y = section.points[index]
    counted = f"{section.sizes[index]:,.0f} {section.sizes_are}".rstrip()
    shown_x = format_cell(float(x), section.percent)
    shown_y = format_cell(float(y), section.percent)
    return f"{counted}: {section.x} {shown_x}, {section.y} {shown_y}"


def _named(tick: float, percent: bool) -> str:
    return f"{tick:.0%}" if percent else f"{tick:g}"


def _x(value: float, span: Span) -> float:
    low, high = span
    width = WIDTH - LEFT - RIGHT
    return LEFT + width * (value - low) / (high - low)


def _y(value: float, span: Span) -> float:
    low, high = span
    height = HEIGHT - TOP - BOTTOM
    return HEIGHT - BOTTOM - height * (value - low) / (high - low)


def _ticks(span: Span) -> list[float]:
    """Return about four to eight round numbers within the range."""
    low, high = span
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = power * 10
    for times in (1, 2, 5):
        if (high - low) / (power * times) <= 7:
            step = power * times
            break
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
