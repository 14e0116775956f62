"""Waiting for workloads, with progress: a live table on a terminal, a line per change elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from steersman.app.cli import load, table
from steersman.app.cli.patient import PatientClient
from steersman.app.cli.say import note
from steersman.app.client import path
from steersman.app.wire import Row, ServiceRow, StatusView

WAIT_MS = 1_000
"""How long one question to the server waits for news."""
PROGRESS_SECONDS = 5.0
"""How often a line tells the progress of one workload."""

Either = Row | ServiceRow
Show = Callable[[Sequence[Either]], None]
Done = Callable[[Mapping[str, Either]], bool]


def watch(client: PatientClient, names: Collection[str], done: Done, *, quiet: bool) -> dict[str, Either]:
    """Wait until `done` says so of the rows of these names; the rows. What is gone has none."""
    wanted = set(names)
    after: int | None = None
    with _shown(quiet=quiet) as show:
        while True:
            query = {"after": after, "wait_ms": WAIT_MS if after is not None else 0}
            status = client.get(path("status"), StatusView, query)
            both: tuple[Either, ...] = (*status.workloads, *status.services)
            mine = tuple(row for row in both if row.name in wanted)
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
            yield lambda rows: update(_tables(terminal, rows))
    else:
        yield Lines().show


def _tables(terminal: Any, rows: Sequence[Either]) -> Any:
    jobs = [row for row in rows if isinstance(row, Row)]
    services = [row for row in rows if isinstance(row, ServiceRow)]
    found = []
    if jobs:
        found.append(terminal.table(table.STATUS_HEAD, table.status_rows(jobs)))
    if services:
        found.append(terminal.table(table.SERVICE_HEAD, table.service_rows(services)))
    return terminal.stacked(found)


class Lines:
    """One line when a workload's phase, run or reason changed, and now and then for its progress."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str | None, str]] = {}
        self._progress: dict[str, tuple[float, str]] = {}

    def show(self, rows: Sequence[Either]) -> None:
        """Say what is new."""
        now = time.monotonic()
        for row in rows:
            if isinstance(row, ServiceRow):
                self._show_service(row)
            else:
                self._show_job(row, now)

    def _show_service(self, row: ServiceRow) -> None:
        key = (table.service_phase(row), f"{table.ready(row)} {table.revision(row)}", row.code)
        if self._last.get(row.name) != key:
            self._last[row.name] = key
            note(f"{row.name}: {table.service_line(row)}")

    def _show_job(self, row: Row, now: float) -> None:
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
