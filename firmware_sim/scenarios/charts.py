"""Lines, bands and bars over time as inline SVG, drawn to a common scale. Pure.

0      LEFT                               WIDTH - RIGHT   WIDTH
┌──────┬──────────────────────────────────────┬───────┐
│ y    │ plot: seconds from 0 to `span_s`      │       │
└──────┴──────────────────────────────────────┴───────┘
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import msgspec

WIDTH: Final = 1080
LEFT: Final = 58
RIGHT: Final = 14
PLOT: Final = WIDTH - LEFT - RIGHT
LINE_HEIGHT: Final = 18
"""Of a lane of the timeline."""
TEXT_WIDTH: Final = 6.4
"""Of a character, about, in 11 px."""

Points = Sequence[tuple[float, float | None]]
"""Seconds and value; None breaks the line."""


class Series(msgspec.Struct, frozen=True):
    name: str
    style: str
    """A class of the page: its colour, and whether the area below is filled."""
    points: list[tuple[float, float | None]]


class Bar(msgspec.Struct, frozen=True):
    """From `at_s` to `until_s`; a mark where both are the same."""

    at_s: float
    until_s: float
    text: str
    hint: str
    style: str


class Scale(msgspec.Struct, frozen=True):
    """Seconds to places."""

    span_s: float

    def x(self, at_s: float) -> float:
        return round(LEFT + PLOT * min(max(at_s / self.span_s, 0.0), 1.0), 1)


def chart(scale: Scale, series: Sequence[Series], bands: Iterable[Bar], *, height: int, unit: str = "") -> str:
    """Lines over bands, with a grid of round numbers."""
    top, bottom = 10, height - 6
    highest = max((value for line in series for _, value in line.points if value is not None), default=0.0)
    ticks = round_ticks(highest)
    limit = ticks[-1]

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * value / limit, 1)

    parts = [_svg(height, "chart")]
    parts += [_band(scale, band, top, bottom) for band in bands]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="y" x="{LEFT - 8}" y="{y(tick) + 4}">{_number(tick)}{unit}</text>')
    for line in series:
        for piece in _pieces(line.points):
            path = "L".join(f"{scale.x(at_s)} {y(value)}" for at_s, value in piece)
            if line.style.endswith("area"):
                first, last = scale.x(piece[0][0]), scale.x(piece[-1][0])
                parts.append(f'<path class="fill {line.style}" d="M{first} {bottom}L{path}L{last} {bottom}Z"/>')
            parts.append(f'<path class="line {line.style}" d="M{path}"/>')
    return "".join([*parts, "</svg>"])


def lanes(scale: Scale, named: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Bars in lanes, as many rows as they need so that none hides another's text; the time below them."""
    parts: list[str] = []
    row = 0
    for name, bars in named:
        parts.append(f'<text class="lane" x="0" y="{row * LINE_HEIGHT + 17}">{escape(name)}</text>')
        placed = _rows(scale, bars)
        parts += [_bar(scale, bar, (row + line) * LINE_HEIGHT + 5) for line, bar in placed]
        row += max((line for line, _ in placed), default=0) + 1
    height = row * LINE_HEIGHT + 26
    axis = [
        f'<path class="grid" d="M{scale.x(at_s)} 4V{height - 20}"/>'
        f'<text class="x" x="{scale.x(at_s)}" y="{height - 6}">{clock(at_s)}</text>'
        for at_s in _round_times(scale.span_s)
    ]
    return "".join([_svg(height, "lanes"), *axis, *parts, "</svg>"])


def strip(scale: Scale, name: str, bars: Sequence[Bar]) -> str:
    """One row that is full of states."""
    parts = [
        f'<rect class="{bar.style}" x="{scale.x(bar.at_s)}" y="3" height="10" '
        f'width="{max(scale.x(bar.until_s) - scale.x(bar.at_s), 0.6):.1f}">{_title(bar)}</rect>'
        for bar in bars
    ]
    return "".join([_svg(16, "strip"), f'<text class="lane" x="0" y="12">{escape(name)}</text>', *parts, "</svg>"])


def round_ticks(highest: float) -> list[float]:
    """From 0, in three to five steps of 1, 2 or 5 times a power of ten, to `highest` or just above."""
    if highest <= 0:
        return [0.0, 1.0]
    raw = highest / 4
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    if highest >= 4 and step < 1:
        step = 1.0
    return [round(step * number, 6) for number in range(math.ceil(highest / step - 1e-9) + 1)]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _svg(height: int, style: str) -> str:
    return f'<svg class="{style}" viewBox="0 0 {WIDTH} {height}" role="img">'


def _pieces(points: Points) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for at_s, value in points:
        if value is not None:
            pieces[-1].append((at_s, value))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _title(bar: Bar) -> str:
    return f"<title>{escape(bar.hint)}</title>"


def _band(scale: Scale, band: Bar, top: int, bottom: int) -> str:
    x, height = scale.x(band.at_s), bottom - top
    if band.until_s <= band.at_s:
        return f'<path class="mark {band.style}" d="M{x} {top}V{bottom}">{_title(band)}</path>'
    width = max(scale.x(band.until_s) - x, 1.0)
    return (
        f'<rect class="band {band.style}" x="{x}" y="{top}" width="{width:.1f}" height="{height}">{_title(band)}</rect>'
    )


def _bar(scale: Scale, bar: Bar, y: int) -> str:
    x = scale.x(bar.at_s)
    width = max(scale.x(bar.until_s) - x, 3.0)
    text = escape(bar.text)
    inside = width > TEXT_WIDTH * len(bar.text) + 8
    after = x + width + TEXT_WIDTH * len(bar.text) + 8 <= WIDTH
    place = (x + 5, "start") if inside else (x + width + 4, "start") if after else (x - 4, "end")
    return (
        f'<g>{_title(bar)}<rect class="bar {bar.style}" x="{x}" y="{y}" rx="2" width="{width:.1f}" '
        f'height="{LINE_HEIGHT - 4}"/><text class="bar" x="{place[0]:.1f}" y="{y + 11}" text-anchor="{place[1]}">{text}'
        "</text></g>"
    )


def _rows(scale: Scale, bars: Sequence[Bar]) -> list[tuple[int, Bar]]:
    """Each bar and the first row in which it and its text are free."""
    ends: list[float] = []
    placed = []
    for bar in sorted(bars, key=lambda bar: bar.at_s):
        x, width = scale.x(bar.at_s), scale.x(bar.until_s) - scale.x(bar.at_s)
        text = TEXT_WIDTH * len(bar.text) + 10
        end = x + (width if width > text else width + text)
        start = x if end <= WIDTH or width > text else x - text
        row = next((row for row, taken in enumerate(ends) if taken <= start), len(ends))
        if row == len(ends):
            ends.append(0.0)
        ends[row] = min(end, WIDTH)
        placed.append((row, bar))
    return placed


def _round_times(span_s: float) -> list[float]:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600)
    step = next((step for step in steps if span_s / step <= 12), 86_400)
    return [float(number * step) for number in range(int(span_s // step) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
