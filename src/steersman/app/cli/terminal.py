"""Tables on a terminal, with rich: still, or live while something is waited for.

Only loaded when stdout is a terminal. Cells are text objects: what they hold is never read as markup.

A table is fitted to the terminal's width before it is drawn, because a cell that wraps in mid-word cannot be
read, nor a table whose lines wrap: columns that matter less are left out, a progress of several parts keeps
its first ones, and the last column, the longest, is cut. `--json`, or a pipe, has everything.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steersman.app.cli.say import one_line

REFRESH_PER_SECOND = 4
DROPPED = (
    *("AGE", "PREEMPTED", "FAILED", "NODE", "RUN", "QUEUE", "PRIORITY"),
    *("ERR/S", "P50", "REVISION", "P95", "URL", "REQ/S"),
)
"""The columns that go when there is no room, the first one first."""
PARTED = "PROGRESS"
LAST_CELLS_MIN = 24
"""How much of the last column must be seen before others are left out for it."""
GAP_CELLS = 2
CUT = "…"
STYLES = {
    "running": "green",
    "succeeded": "green",
    "failed": "red",
    "stopped": "yellow",
    "stopping": "yellow",
    "removing": "yellow",
    "backoff": "yellow",
    "queued": "cyan",
    "declared": "cyan",
    "serving": "green",
    "rolling": "cyan",
    "starting": "cyan",
    "waiting": "cyan",
    "failing": "red",
}


Cells = list[list[str]]
"""A table's columns: of each its head, then its cells."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], foot: str = "") -> Table:
    """A table as wide as the terminal is at most; a cell that is a phase has its colour."""
    made = Table(box=None, pad_edge=False, header_style="bold", caption=Text(foot) if foot else None)
    made.caption_justify = "left"
    columns = fitted(head, rows, _console().width)
    for column in columns:
        made.add_column(Text(column[0]), overflow="ellipsis", no_wrap=True)
    for cells in zip(*(column[1:] for column in columns), strict=True):
        made.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
    return made


def stacked(tables: Sequence[Table]) -> Group:
    """Several tables, one below the other."""
    return Group(*(part for each in tables for part in (each, Text())))


def fitted(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Cells:
    """The columns that a terminal of this width has room for, on one line a row."""
    columns = [[one_line(cell) for cell in column] for column in zip(head, *rows, strict=True)]
    for name in DROPPED:
        if _room(columns, width) >= _least(columns[-1]):
            break
        columns = [column for column in columns if column[0] != name]
    if _room(columns, width) < _least(columns[-1]):
        columns = [_parted(column, columns, width) for column in columns]
    columns[-1] = [_cut(cell, _room(columns, width)) for cell in columns[-1]]
    return columns


def _width(column: Sequence[str]) -> int:
    return max(map(cell_len, column))


def _room(columns: Cells, width: int) -> int:
    """What is left for the last column; at least one cell."""
    return max(width - sum(_width(column) + GAP_CELLS for column in columns[:-1]), 1)


def _least(last: Sequence[str]) -> int:
    return min(_width(last), LAST_CELLS_MIN)


def _parted(column: list[str], columns: Cells, width: int) -> list[str]:
    """The progress without its last parts, as far as the last column needs the room."""
    if column[0] != PARTED:
        return column
    most = _width(column) - (_least(columns[-1]) - _room(columns, width))
    return [column[0], *(_fewer_parts(cell, most) for cell in column[1:])]


def _fewer_parts(cell: str, most: int) -> str:
    while cell_len(cell) > most and ", " in cell:
        cell = cell.rpartition(", ")[0]
    return cell


def _cut(cell: str, most: int) -> str:
    return cell if cell_len(cell) <= most else set_cell_size(cell, most - 1).rstrip() + CUT


def show(head: Sequence[str], rows: Sequence[Sequence[str]], foot: str = "") -> None:
    """Print a table."""
    _console().print(table(head, rows, foot))


@contextlib.contextmanager
def live() -> Iterator[Callable[[Table | Group], None]]:
    """A place on the terminal that shows the table it was given last."""
    with Live(console=_console(), refresh_per_second=REFRESH_PER_SECOND, transient=False) as screen:
        yield screen.update


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False)
