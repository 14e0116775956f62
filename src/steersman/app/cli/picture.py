"""A comparison of policies as a picture: one HTML file with inline SVG, no script, no network.

Theory of operation. Three parts, each with axes and units: bars of the figures that policies are chosen by,
each on a scale of its own that begins at 0; leased cores over time; the waits of jobs as a distribution, on a
logarithmic scale. A policy is one colour and one dash throughout (Okabe and Ito's colours, which people who
see few colours tell apart; the dash is for those who see none, and for print). Colours of text and ground
follow the reader's choice of light or dark. Every text of a user's is escaped.
"""

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10

from steersman.sim.replay.policies import Column, Comparison

WIDTH = 960
LEFT, RIGHT = 84, 24
PLOT = WIDTH - LEFT - RIGHT
BOTTOM, HIGH = 276, 256
COLOURS = ("#8a8a8a", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b8a900")
DASHES = ("2 3", "none", "8 4", "12 3 3 3", "5 2", "1 2", "14 5", "3 6")
HOUR_S = 3600.0
WAIT_S_LEAST = 1.0
TICKS = 6

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --text: #1b1b1b; --faint: #5c5c5c; --line: #d4d4d4; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181c; --text: #ececec; --faint: #b0b0b0; --line: #3c4048; }
}
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif;
  max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 2em; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--text); font: 13px system-ui, sans-serif; }
svg .faint { fill: var(--faint); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--faint); stroke-width: 1; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2em .8em; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.key { display: flex; flex-wrap: wrap; gap: .3em 1.6em; padding: 0; list-style: none; }
.key svg { display: inline-block; width: 40px; height: 12px; vertical-align: middle; margin-right: .4em; }
p.faint, li.faint { color: var(--faint); }
"""

BARS: tuple[tuple[str, str, float], ...] = (
    ("wait_s_mean", "mean wait, s", 1),
    ("wait_s_p99", "99th percentile of waits, s", 1),
    ("completion_s_mean", "mean completion, s", 1),
    ("core_utilisation", "cores leased, % of capacity", 100),
    ("device_utilisation", "devices leased, % of capacity", 100),
    ("evictions", "evictions", 1),
    ("lost_core_h", "lost work, core-hours", 1),
    ("lost_device_h", "lost work, device-hours", 1),
    ("cost_usd", "cost of nodes in use, USD", 1),
    ("service_short_share", "services short of replicas, % of time", 100),
)
"""Metric, words with the unit, factor into that unit."""


def page(found: Comparison) -> str:
    """The whole file."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>Policies side by side</title>",
        f"<style>{STYLE}</style></head><body>",
        "<h1>One history under several policies</h1>",
        _lead(found),
        _key(found.columns),
        "<h2>Figures</h2>",
        _bars(found.columns),
        "<h2>Leased cores over time</h2>",
        _cores(found.columns),
        "<h2>How long jobs wait</h2>",
        _waits(found.columns),
        "<h2>All figures</h2>",
        _table(found.columns),
        *_dropped(found),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _lead(found: Comparison) -> str:
    return (
        f"<p>{found.jobs:,} jobs that ended by themselves, {found.events:,} events, "
        f"{_number(found.span_s / HOUR_S)} hours of a journal. <b>recorded</b> is what happened; every other "
        "column is the live engine over the same history. How far <b>as it was</b>, the recorded policy run "
        "again, is from <b>recorded</b> is how far the simulation is to be trusted.</p>"
    )


def _look(index: int) -> tuple[str, str]:
    return COLOURS[index % len(COLOURS)], DASHES[(index + index // len(COLOURS)) % len(DASHES)]


def _key(columns: Sequence[Column]) -> str:
    items = []
    for index, column in enumerate(columns):
        colour, dash = _look(index)
        stroke = f'stroke="{colour}" stroke-width="4" stroke-dasharray="{dash}"'
        line = f'<line x1="1" y1="6" x2="39" y2="6" {stroke}/>'
        drawn = f'<svg viewBox="0 0 40 12" aria-hidden="true">{line}</svg>'
        items.append(f"<li>{drawn}{escape(column.name)}</li>")
    return f'<ul class="key" aria-label="legend">{"".join(items)}</ul>'


def _svg(height: float, title: str, body: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{chosen}>{escape(words)}</text>'


def _bars(columns: Sequence[Column]) -> str:
    """Small panels, two in a row, a bar a policy."""
    chosen = [bar for bar in BARS if any(column.metrics.get(bar[0]) is not None for column in columns)]
    step, across = 20, WIDTH / 2
    high = 34 + step * len(columns)
    drawn = []
    for place, (metric, words, factor) in enumerate(chosen):
        x, y = (place % 2) * across, (place // 2) * high
        drawn.append(_text(x, y + 16, words))
        values = [column.metrics.get(metric) for column in columns]
        most = max((value for value in values if value is not None), default=0) or 1
        for index, (column, value) in enumerate(zip(columns, values, strict=True)):
            top = y + 24 + index * step
            drawn.append(_text(x + 118, top + 12, _cut(column.name, 17), "end", "faint"))
            wide = 0 if value is None else max(value / most * (across - 240), 0)
            drawn.append(
                f'<rect x="{x + 126:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{step - 5}" '
                f'fill="{_look(index)[0]}"/>'
            )
            shown = "unknown" if value is None else _number(value * factor)
            drawn.append(_text(x + 132 + wide, top + 12, shown))
    rows = ceil(len(chosen) / 2)
    return _svg(rows * high, "Figures by policy; each panel begins at 0", "".join(drawn))


def _cores(columns: Sequence[Column]) -> str:
    end_s = max((column.cores[-1][0] for column in columns if column.cores), default=0.0) or 1.0
    unit_s, unit = _time_unit(end_s)
    most = max((rate for column in columns for _, rate in column.cores), default=0.0) or 1.0
    step = _ceiling(most / TICKS)
    top = ceil(most / step) * step
    drawn = [*_grid_y(top, "leased cores")]
    drawn += [
        _text(LEFT + tick * unit_s / end_s * PLOT, 296, _number(tick), "middle", "faint")
        for tick in _ticks(end_s / unit_s)
    ]
    drawn.append(_text(LEFT + PLOT / 2, 318, f"time since the begin of the journal, {unit}", "middle"))
    for index, column in enumerate(columns):
        points = [(LEFT + at_s / end_s * PLOT, _y_of(rate, top)) for at_s, rate in column.cores]
        drawn.append(_line(index, points))
    return _svg(326, "Leased cores over time by policy", "".join(drawn))


def _waits(columns: Sequence[Column]) -> str:
    longest = max((wait for column in columns for wait in column.waits_s[-1:]), default=0.0)
    decades = log10(max(longest, 10 * WAIT_S_LEAST)) + 0.02

    def x_of(wait_s: float) -> float:
        return LEFT + log10(max(wait_s, WAIT_S_LEAST)) / decades * PLOT

    drawn = [*_grid_y(100, "jobs that waited no longer, %")]
    for decade in range(floor(decades) + 1):
        words = f"≤ {10**decade}" if decade == 0 else f"{10**decade:,}"
        x = x_of(10.0**decade)
        drawn.append(f'<line class="grid" x1="{x:.1f}" y1="20" x2="{x:.1f}" y2="{BOTTOM}"/>')
        drawn.append(_text(x, 296, words, "middle", "faint"))
    drawn.append(_text(LEFT + PLOT / 2, 318, "wait from declaration to begin, s (logarithmic)", "middle"))
    for index, column in enumerate(columns):
        count = len(column.waits_s)
        points = [(x_of(wait), _y_of(100 * (at + 1) / count, 100)) for at, wait in enumerate(column.waits_s)]
        drawn.append(_line(index, points))
    return _svg(326, "Distribution of waits by policy", "".join(drawn))


def _y_of(value: float, top: float) -> float:
    return BOTTOM - value / top * HIGH


def _grid_y(top: float, words: str) -> Iterator[str]:
    for tick in _ticks(top):
        y = _y_of(tick, top)
        yield f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        yield _text(LEFT - 8, y + 4, _number(tick), "end", "faint")
    yield f'<line class="axis" x1="{LEFT}" y1="{BOTTOM}" x2="{WIDTH - RIGHT}" y2="{BOTTOM}"/>'
    yield f'<text transform="translate(18 148) rotate(-90)" text-anchor="middle">{escape(words)}</text>'


def _line(index: int, points: Sequence[tuple[float, float]]) -> str:
    colour, dash = _look(index)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dash}" stroke-linejoin="round"/>'
    )


def _ceiling(most: float) -> float:
    """The next round number."""
    size = 10.0 ** floor(log10(most))
    return next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= most)


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 to the top, about TICKS of them."""
    step = _ceiling(top / TICKS)
    return [at * step for at in range(floor(top / step + 1e-9) + 1)]


def _time_unit(end_s: float) -> tuple[float, str]:
    for unit_s, words in ((86_400.0, "days"), (HOUR_S, "hours"), (60.0, "minutes")):
        if end_s >= 2 * unit_s:
            return unit_s, words
    return 1.0, "seconds"


def _number(value: float) -> str:
    """Three digits that matter, without an exponent."""
    if value == 0:
        return "0"
    digits = max(2 - floor(log10(abs(value))), 0)
    text = f"{value:,.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _table(columns: Sequence[Column]) -> str:
    head = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    rows = []
    for metric in columns[0].metrics:
        cells = (column.metrics[metric] for column in columns)
        shown = "".join(f"<td>{'–' if value is None else _number(value)}</td>" for value in cells)
        rows.append(f"<tr><td>{escape(metric)}</td>{shown}</tr>")
    table = f"<table><thead><tr><th>metric</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _dropped(found: Comparison) -> Iterator[str]:
    if found.dropped:
        yield "<h2>What could not be replayed as it was</h2><ul>"
        yield from (
            f'<li class="faint">{count:,} {escape(reason)}</li>' for reason, count in found.dropped.items()
        )
        yield "</ul>"
