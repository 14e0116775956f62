"""A table to whoever reads: rich on a terminal, aligned columns elsewhere."""

import sys
from collections.abc import Sequence

from steersman.app.cli import load
from steersman.app.cli.say import columns, say


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """Print a table, or what to say when it is empty."""
    if not rows:
        say(nothing)
    elif sys.stdout.isatty():
        load("terminal").show(head, rows)
    else:
        say(columns(head, rows))
