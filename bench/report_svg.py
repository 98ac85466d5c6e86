"""Plots as SVG text: lines, bars along an axis, and ranges. Colours come from the page's style sheet, so that one
picture serves light and dark; there is no script in them.

A plot is 720 wide and scales with the page. Axes have round ticks, and units stand in their labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 30, 46
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    points: Points
    style: str
    """A class of the style sheet: c1 to c5 for colours; `dashed` may follow."""


@dataclass(frozen=True, slots=True)
class Axis:
    label: str
    low: float
    high: float
    tell: Callable[[float], str]
    ticks: Sequence[float] = ()
    log: bool = False

    def at(self, value: float) -> float:
        """0 at the low end, 1 at the high."""
        if self.log:
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / ((self.high - self.low) or 1)


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Ticks at 1, 2 or 5 times a power of ten."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-12) / most))
    step *= next(times for times in (1, 2, 5, 10) if (high - low) / (step * times) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round((first + n) * step, 12) for n in range(most + 2) if (first + n) * step <= high + step * 1e-9]


def lines(
    title: str,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    *,
    height: int = 300,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """`marks`: values of x to draw a line at, with what they are."""
    frame = _Frame(height)
    parts = frame.axes(x, y)
    for value, name in marks:
        at = frame.x(x.at(value))
        parts.append(f'<line class="mark" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{frame.floor}"/>')
        anchor = "end" if x.at(value) > 0.8 else "start"
        parts.append(
            f'<text class="small" x="{at + (-5 if anchor == "end" else 5):.1f}" y="{TOP + 12}" text-anchor="{anchor}">'
            f"{escape(name)}</text>"
        )
    for one in series:
        points = " ".join(f"{frame.x(x.at(a)):.1f},{frame.y(y.at(b)):.1f}" for a, b in one.points)
        parts.append(f'<polyline class="line {one.style}" points="{points}"/>')
        if len(one.points) <= 16 and "dashed" not in one.style:
            parts += [
                f'<circle class="dot {one.style}" cx="{frame.x(x.at(a)):.1f}" cy="{frame.y(y.at(b)):.1f}" r="2.6"/>'
                for a, b in one.points
            ]
    parts += _legend([(one.name, one.style) for one in series])
    return frame.svg(title, parts)


def stacks(
    title: str,
    x: Axis,
    y: Axis,
    columns: Sequence[tuple[float, float, Sequence[float]]],
    names: Sequence[tuple[str, str]],
    *,
    height: int = 240,
) -> str:
    """Columns from x to x, each a pile of values; `names` of the values with their style, the lowest first."""
    frame = _Frame(height)
    parts = frame.axes(x, y)
    for begin, end, values in columns:
        left, right = frame.x(x.at(begin)), frame.x(x.at(end))
        gap = 1.0 if right - left > 5 else 0.0
        below = 0.0
        for value, (_, style) in zip(values, names, strict=True):
            if value:
                top = frame.y(y.at(below + value))
                parts.append(
                    f'<rect class="bar {style}" x="{left:.1f}" y="{top:.1f}" '
                    f'width="{max(0.5, right - left - gap):.1f}" '
                    f'height="{max(0.0, frame.y(y.at(below)) - top):.1f}"/>'
                )
            below += value
    parts += _legend(names)
    return frame.svg(title, parts)


def ranges(title: str, x: Axis, rows: Sequence[tuple[str, Sequence[float], str]], names: Sequence[str]) -> str:
    """A row for each source: a bar from its least value to its largest, with a tick at each; `names` of the values."""
    left, step = 210, 24
    frame = _Frame(TOP + step * len(rows) + BOTTOM, left)
    parts = frame.axes(x, None)
    for number, (name, values, style) in enumerate(rows):
        y = TOP + step * (number + 0.5)
        ends = [frame.x(x.at(value)) for value in values]
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect class="bar {style} pale" x="{ends[0]:.1f}" y="{y - 5:.1f}" '
            f'width="{max(1.0, ends[-1] - ends[0]):.1f}" '
            'height="10" rx="2"/>'
        )
        for at, end in enumerate(ends):
            reach = 8 if at == 0 else 5
            parts.append(
                f'<rect class="bar {style}" x="{end - (1.5 if at == 0 else 0.75):.1f}" y="{y - reach:.1f}" '
                f'width="{3 if at == 0 else 1.5}" height="{2 * reach}"/>'
            )
    parts.append(f'<text class="small" x="{left}" y="{TOP - 14}">{escape(", ".join(names))}, from left to right</text>')
    return frame.svg(title, parts)


@dataclass(frozen=True, slots=True)
class _Frame:
    height: int
    left: int = LEFT

    @property
    def floor(self) -> int:
        return self.height - BOTTOM

    def x(self, share: float) -> float:
        return self.left + min(max(share, 0.0), 1.0) * (WIDTH - self.left - RIGHT)

    def y(self, share: float) -> float:
        return self.floor - min(max(share, 0.0), 1.0) * (self.floor - TOP)

    def axes(self, x: Axis, y: Axis | None) -> list[str]:
        parts = []
        for tick in y.ticks or round_ticks(y.low, y.high) if y else ():
            assert y is not None
            at = self.y(y.at(tick))
            parts.append(f'<line class="grid" x1="{self.left}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{self.left - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(y.tell(tick))}</text>')
        for tick in x.ticks or round_ticks(x.low, x.high, 8):
            at = self.x(x.at(tick))
            parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{self.floor + 4}"/>')
            anchor = "end" if at > WIDTH - 2 * RIGHT else "middle"  # the last would stand over the edge
            parts.append(
                f'<text x="{at:.1f}" y="{self.floor + 18}" text-anchor="{anchor}">{escape(x.tell(tick))}</text>'
            )
        parts.append(f'<line class="axis" x1="{self.left}" y1="{self.floor}" x2="{WIDTH - RIGHT}" y2="{self.floor}"/>')
        middle = (self.left + WIDTH - RIGHT) / 2
        parts.append(
            f'<text class="label" x="{middle:.0f}" y="{self.height - 8}" text-anchor="middle">{escape(x.label)}</text>'
        )
        if y:
            middle = (TOP + self.floor) / 2
            parts.append(
                f'<text class="label" transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">'
                f"{escape(y.label)}</text>"
            )
        return parts

    def svg(self, title: str, parts: Sequence[str]) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img"><title>{escape(title)}</title>'
            + "".join(parts)
            + "</svg>"
        )


def _legend(names: Sequence[tuple[str, str]]) -> list[str]:
    parts, at = [], float(LEFT)
    for name, style in names:
        parts.append(f'<line class="line {style} key" x1="{at:.0f}" y1="14" x2="{at + 20:.0f}" y2="14"/>')
        parts.append(f'<text class="small" x="{at + 26:.0f}" y="18">{escape(name)}</text>')
        at += 42 + 6.6 * len(name)
    return parts
