"""Charts as self-contained SVG: panels of lines and dots on straight or logarithmic axes.

Theory of operation. A chart is panels in a grid under one title and one legend. Every series has one colour
and one shape wherever it is shown, by its place among the names, the first being the thickest; a hollow mark
is the second of two cases of one series. Lines are cut off at the axes; a dot beyond is drawn at the edge,
with its value written there when it is above. The same figures give the same bytes.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

Point = tuple[float, float]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a05195", "#b8860b", "#666666", "#000000")
SHAPES = (0, 4, 3, -4, 5, 6, -3)
"""Corners; none is a circle, below 0 stands on its head or its point."""
PANEL_W, PANEL_H = 400, 278
LEFT, RIGHT, TOP, BOTTOM = 62, 30, 42, 46
HEAD, TITLES = 62, 80
"""Down to the legend, and to the first panels."""
LEGEND_EACH, LEGEND_SPACE = 6.6, 38
INK, FAINT, GRID = "#222222", "#666666", "#e2e2e2"


class Axis(NamedTuple):
    """From `low` to `high`, with words at its ticks."""

    words: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """From 0 at the low end to 1 at the high one. On a logarithmic axis nothing is below the low end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return (value - low) / (high - low)

    def within(self, value: float) -> float:
        """The value or the nearest end."""
        return min(max(value, self.low), self.high)


class Series(NamedTuple):
    """Points of one name, joined or not."""

    name: str
    points: Sequence[Point]
    line: bool = False
    hollow: bool = False


class Rule(NamedTuple):
    """A dashed line across at a value of an axis, with words."""

    value: float
    words: str
    upright: bool = False


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    rules: Sequence[Rule] = ()


class Picture(NamedTuple):
    """`names`: the series in the order of the legend; `note`: a line under the title."""

    title: str
    note: str
    names: Sequence[str]
    panels: Sequence[Panel]
    columns: int

    def svg(self) -> str:
        """The document."""
        columns = min(self.columns, len(self.panels))
        width, height = columns * PANEL_W, TITLES + -(-len(self.panels) // columns) * PANEL_H
        return "".join(f"{line}\n" for line in self._drawn(columns, width, height))

    def _drawn(self, columns: int, width: int, height: int) -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
            f' height="{height}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">'
        )
        yield f'<rect width="{width}" height="{height}" fill="white"/>'
        yield _text(14, 24, self.title, size=16, weight="bold")
        yield _text(14, 43, self.note, colour=FAINT)
        yield from self._legend()
        for at in range(len(self.panels)):
            yield from self._panel(at, at % columns * PANEL_W, TITLES + at // columns * PANEL_H)
        yield "</svg>"

    def _legend(self) -> Iterator[str]:
        x = 22.0
        for name in self.names:
            yield self._mark(name, x, HEAD + 4, hollow=False)
            yield _text(x + 11, HEAD + 8, name)
            x += LEGEND_SPACE + LEGEND_EACH * len(name)

    def _panel(self, at: int, left: float, top: float) -> Iterator[str]:
        panel = self.panels[at]
        frame = _Frame(panel, left + LEFT, top + TOP, PANEL_W - LEFT - RIGHT, PANEL_H - TOP - BOTTOM)
        yield from frame.drawn()
        yield f'<clipPath id="p{at}"><path d="{frame.outline}"/></clipPath>'
        for series in panel.series:
            rank = self.names.index(series.name)
            if series.line:
                way = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(frame.at, series.points))
                yield (
                    f'<polyline points="{way}" fill="none" stroke="{COLOURS[rank]}"'
                    f' stroke-width="{1.6 if rank else 3}" clip-path="url(#p{at})"/>'
                )
            else:
                yield from (
                    self._mark(series.name, *frame.at_edge(one), hollow=series.hollow)
                    for one in series.points
                )
        beyond: dict[Point, list[float]] = {}
        for series in panel.series:
            for point in series.points if not series.line else ():
                if point[1] > panel.y.high:
                    beyond.setdefault(frame.at_edge(point), []).append(point[1])
        for (x, y), values in beyond.items():
            words = ", ".join(f"{value:.3g}" for value in sorted(values))
            yield _text(x, y - 8, words, size=9, anchor="middle", colour=FAINT)

    def _mark(self, name: str, x: float, y: float, *, hollow: bool) -> str:
        rank = self.names.index(name)
        size, colour = (4.4 if rank else 5.6), COLOURS[rank]
        paint = f'fill="{"white" if hollow else colour}" stroke="{colour}" stroke-width="1.6"'
        corners = SHAPES[rank]
        if not corners:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" {paint}/>'
        turn = math.pi / 2 * (1 if corners < 0 else -1) + (math.pi / 4 if corners == 4 else 0)
        count = abs(corners)
        angles = [turn + 2 * math.pi * corner / count for corner in range(count)]
        way = " ".join(f"{x + size * math.cos(a):.1f},{y + size * math.sin(a):.1f}" for a in angles)
        return f'<polygon points="{way}" {paint}/>'


class _Frame:
    """The axes of one panel on the page."""

    def __init__(self, panel: Panel, left: float, top: float, width: float, height: float) -> None:
        self._panel, self._left, self._top, self._width, self._height = panel, left, top, width, height

    def at(self, point: Point) -> Point:
        return self._x(point[0]), self._y(point[1])

    def at_edge(self, point: Point) -> Point:
        """Where it is, or at the nearest edge."""
        return self.at((self._panel.x.within(point[0]), self._panel.y.within(point[1])))

    @property
    def outline(self) -> str:
        """The rectangle of the axes."""
        return (
            f"M{self._left:.1f},{self._top:.1f} h{self._width:.1f} v{self._height:.1f} h-{self._width:.1f} z"
        )

    def _x(self, value: float) -> float:
        return self._left + self._panel.x.place(value) * self._width

    def _y(self, value: float) -> float:
        return self._top + (1 - self._panel.y.place(value)) * self._height

    def drawn(self) -> Iterator[str]:
        panel, right, bottom = self._panel, self._left + self._width, self._top + self._height
        for value, words in panel.x.ticks:
            x = self._x(value)
            yield _line(x, self._top, x, bottom)
            yield _text(x, bottom + 15, words, size=11, anchor="middle", colour=FAINT)
        for value, words in panel.y.ticks:
            y = self._y(value)
            yield _line(self._left, y, right, y)
            yield _text(self._left - 7, y + 4, words, size=11, anchor="end", colour=FAINT)
        yield (
            f'<path d="M{self._left:.1f},{self._top:.1f} V{bottom:.1f} H{right:.1f}"'
            f' fill="none" stroke="{INK}"/>'
        )
        yield _text(self._left, self._top - 22, panel.title, size=13, weight="bold")
        yield _text((self._left + right) / 2, bottom + 33, panel.x.words, anchor="middle")
        tilt = f' transform="rotate(-90 {self._left - 46:.1f} {(self._top + bottom) / 2:.1f})"'
        yield _text(self._left - 46, (self._top + bottom) / 2, panel.y.words, anchor="middle", more=tilt)
        for rule in panel.rules:
            yield from self._rule(rule, right, bottom)

    def _rule(self, rule: Rule, right: float, bottom: float) -> Iterator[str]:
        if rule.upright:
            x = self._x(rule.value)
            yield _line(x, self._top, x, bottom, colour=FAINT, dashed=True)
            yield _text(x + 3, self._top + 9, rule.words, size=10, colour=FAINT)
        else:
            y = self._y(rule.value)
            yield _line(self._left, y, right, y, colour=FAINT, dashed=True)
            yield _text(right, y - 4, rule.words, size=10, anchor="end", colour=FAINT)


def _line(x: float, y: float, to_x: float, to_y: float, *, colour: str = GRID, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}"{dash}/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    anchor: str = "start",
    colour: str = INK,
    weight: str = "normal",
    more: str = "",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
        f' font-weight="{weight}"{more}>{escape(words)}</text>'
    )
