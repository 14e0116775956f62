"""Tables on a terminal, with rich: still, or live while something is waited for.

Only loaded when stdout is a terminal. Cells are text objects: what they hold is never read as markup.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steersman.app.cli.say import one_line

REFRESH_PER_SECOND = 4
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
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]], foot: str = "") -> Table:
    """A table; a cell that is a phase has its colour."""
    made = Table(box=None, pad_edge=False, header_style="bold", caption=Text(foot) if foot else None)
    made.caption_justify = "left"
    for name in head:
        made.add_column(Text(name), overflow="fold", no_wrap=name in {"NAME", "PHASE", "AGE", "RUN"})
    for row in rows:
        made.add_row(*(Text(one_line(cell), style=STYLES.get(cell, "")) for cell in row))
    return made


def show(head: Sequence[str], rows: Sequence[Sequence[str]], foot: str = "") -> None:
    """Print a table."""
    _console().print(table(head, rows, foot))


@contextlib.contextmanager
def live() -> Iterator[Callable[[Table], None]]:
    """A place on the terminal that shows the table it was given last."""
    with Live(console=_console(), refresh_per_second=REFRESH_PER_SECOND, transient=False) as screen:
        yield screen.update


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False)
