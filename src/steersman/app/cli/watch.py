"""Waiting for workloads, with progress: a live table on a terminal, a line per change elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from steersman.app.cli import load, table
from steersman.app.cli.patient import PatientClient
from steersman.app.cli.say import note
from steersman.app.client import path
from steersman.app.wire import Row, StatusView

WAIT_MS = 1_000
"""How long one question to the server waits for news."""
PROGRESS_SECONDS = 5.0
"""How often a line tells the progress of one workload."""

Show = Callable[[Sequence[Row]], None]
Done = Callable[[Mapping[str, Row]], bool]


def watch(client: PatientClient, names: Collection[str], done: Done, *, quiet: bool) -> dict[str, Row]:
    """Wait until `done` says so of the rows of these names; the rows. A workload that is gone has none."""
    wanted = set(names)
    after: int | None = None
    with _shown(quiet=quiet) as show:
        while True:
            query = {"after": after, "wait_ms": WAIT_MS if after is not None else 0}
            status = client.get(path("status"), StatusView, query)
            mine = tuple(row for row in status.workloads if row.name in wanted)
            show(mine)
            rows = {row.name: row for row in mine}
            if done(rows):
                return rows
            after = status.position


@contextlib.contextmanager
def _shown(*, quiet: bool) -> Iterator[Show]:
    if quiet:
        yield lambda _: None
    elif sys.stdout.isatty():
        terminal = load("terminal")
        with terminal.live() as update:
            yield lambda rows: update(terminal.table(table.STATUS_HEAD, table.status_rows(rows)))
    else:
        yield Lines().show


class Lines:
    """One line when a workload's phase, run or reason changed, and now and then for its progress."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str | None, str]] = {}
        self._progress: dict[str, tuple[float, str]] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """Say what is new."""
        now = time.monotonic()
        for row in rows:
            key = (table.phase(row), row.run, row.code)
            words = table.progress(row)
            last_at, last_words = self._progress.get(row.name, (now, ""))
            if self._last.get(row.name) != key:
                self._last[row.name] = key
                note(f"{row.name}: {table.phase_and_reason(row)}")
                self._progress[row.name] = (now, words)
            elif words != last_words and now - last_at >= PROGRESS_SECONDS:
                self._progress[row.name] = (now, words)
                note(f"{row.name}: {words}")
