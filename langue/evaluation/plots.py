"""Floor 5. What arrives: numbers of a judgement. What leaves: drawings as inline SVG that follow
light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH = 430
HEIGHT = 330
LEFT = 48
RIGHT = 20
TOP = 12
BOTTOM = 40  # margins around the plane

Span = tuple[float, float]


def calibration(bins: Sequence[Mapping[str, float]]) -> str:
    """Accuracy over confidence, one point a bin, its area the share of the answers in it."""
    least = min(min(one["confidence"], one["accuracy"]) for one in bins)
    span = (min(0.9, math.floor(least * 10) / 10), 1.0)
    most = max(one["count"] for one in bins)
    at = [(_x(one["confidence"], span), _y(one["accuracy"], span)) for one in bins]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    dots = ""
    for (x, y), one in zip(at, bins, strict=True):
        told = (
            f"{one['count']:,.0f} answers: confidence {one['confidence']:.1%}, right"
            f" {one['accuracy']:.1%}"
        )
        radius = 3 + 9 * math.sqrt(one["count"] / most)
        circle = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="var(--accent)"'
            ' fill-opacity=".75">'
        )
        dots += f"{circle}<title>{told}</title></circle>"
    line = f'<polyline points="{line}" fill="none" stroke="var(--accent)" stroke-width="2"/>'
    return _plane(span, "confidence", "share that is right", line + dots, percent=True)


def scatter(points: Sequence[Span]) -> str:
    """Predicted over true, one dot an example."""
    values = [value for point in points for value in point]
    low = min(values)
    high = max(values)
    if low == high:
        low = low - 0.5
        high = high + 0.5
    span = (low - 0.03 * (high - low), high + 0.03 * (high - low))
    opacity = max(0.3, min(0.8, 60 / len(points)))
    dots = "".join(
        f'<circle cx="{_x(true, span):.1f}" cy="{_y(said, span):.1f}" r="2.6"/>'
        for true, said in points
    )
    return _plane(
        span,
        "true",
        "predicted",
        f'<g fill="var(--accent)" fill-opacity="{opacity:.2f}">{dots}</g>',
    )


def _x(value: float, span: Span) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - span[0]) / (span[1] - span[0])


def _y(value: float, span: Span) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - span[0]) / (span[1] - span[0])


def _plane(span: Span, across: str, up: str, inside: str, percent: bool = False) -> str:
    """A plane with the same span on both axes, its diagonal, and `inside` drawn on it."""
    grid = []
    for tick in _ticks(span):
        name = f"{tick:.0%}" if percent else f"{tick:g}"
        x = _x(tick, span)
        y = _y(tick, span)
        grid.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
            ' stroke="var(--line)"/>'
        )
        grid.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        grid.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{name}</text>'
        )
    middle = (HEIGHT - BOTTOM + TOP) / 2
    grid.append(
        f'<line x1="{_x(span[0], span):.1f}" y1="{_y(span[0], span):.1f}"'
        f' x2="{_x(span[1], span):.1f}" y2="{_y(span[1], span):.1f}" stroke="var(--quiet)"'
        ' stroke-dasharray="4 4"/>'
    )
    grid.append(
        f'<text x="{(WIDTH + LEFT - RIGHT) / 2}" y="{HEIGHT - 6}"'
        f' text-anchor="middle">{across}</text>'
    )
    grid.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12'
        f' {middle})">{up}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{up} over'
        f' {across}">{"".join(grid)}{inside}</svg>'
    )


def _ticks(span: Span) -> list[float]:
    """Four to eight round numbers within the span."""
    step = 10.0 ** math.floor(math.log10((span[1] - span[0]) / 4))
    step *= next(
        (times for times in (1, 2, 5, 10) if (span[1] - span[0]) / (step * times) <= 7), 10
    )
    first = math.ceil(span[0] / step - 1e-9)
    last = math.floor(span[1] / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
