"""Reading a home's journal without owning it: for `steer audit`, beside a running control plane or alone.

The reader takes no lock and writes nothing. It is the tool that looks into a damaged journal, so it opens
what the control plane would refuse (a lost tail, a damaged anchor) and leaves the finding to `verify`. It
yields only events that the anchor covers: what it shows was acknowledged.

SQLite needs the shared-memory file beside the database to read a write-ahead log, so the folder must be
writable even for reading; a home on a read-only medium is copied first.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw

from steersman.journal.anchor import read_anchor
from steersman.journal.chain import EMPTY_HEAD, Problems
from steersman.journal.connect import (
    DATABASE_NAME,
    is_empty,
    opening_failed,
    refuse_unknown_kinds,
    require_safe_engine,
)
from steersman.journal.files import Files, OsFiles
from steersman.journal.rows import Rows
from steersman.model.errors import HomeError, JournalCorrupt
from steersman.ports.journal import Head, Record, Verification


class SqliteReader:
    """A journal, read only. Threads may share it."""

    def __init__(self, rows: Rows, files: Files, folder: Path) -> None:
        self._rows = rows
        self._files = files
        self._folder = folder

    @classmethod
    def open(cls, folder: Path, *, vfs: str | None = None, files: Files | None = None) -> "SqliteReader":
        """Open a home's journal for reading.

        Raises HomeError when there is none or it cannot be read, JournalCorrupt when it is not a journal,
        JournalNewer when a newer build wrote it.
        """
        require_safe_engine(apsw.sqlite_lib_version())
        files = files or OsFiles()
        path = folder / DATABASE_NAME
        try:
            if files.size(path) is None:
                _refuse_missing(files, folder)
            rows = Rows(path, vfs)
            with contextlib.ExitStack() as stack:
                stack.callback(rows.close)
                _check_identity(rows, path)
                stack.pop_all()
        except (apsw.Error, UnicodeDecodeError, OSError) as error:
            raise opening_failed(error, path) from error
        return cls(rows, files, folder)

    def head(self) -> Head:
        """The end of what was acknowledged. Raises JournalCorrupt when the anchor cannot tell."""
        state = read_anchor(self._files, self._folder)
        if state is None:
            raise JournalCorrupt(
                f"the head anchor of the home {self._folder} is missing",
                hint="`steer audit --verify` reads what is there; restore the home from a backup",
            )
        return state.head

    def check_end(self) -> Head:
        """The end of what was acknowledged, found in the database as the anchor has it.

        Looks at that one row: `verify` reads all. Raises JournalCorrupt.
        """
        anchored = self.head()  # before the rows are read: events may be added meanwhile
        self._rows.check_end(anchored, "restore the home from a backup; `steer audit --verify` tells more")
        return anchored

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[Record]:
        """Acknowledged records after a position, in order; JournalCorrupt at the first altered one."""
        end = self.head().position
        return self._rows.checked(after, end if limit is None else min(end, after + limit))

    def verify(self) -> Verification:
        """Read every row and compare the end with the anchor; never raises for damage it can name."""
        problems = Problems()

        def anchored() -> Head | None:
            try:
                return self.head()
            except JournalCorrupt as error:
                problems.add(error.message)
                return None

        return self._rows.verify(anchored, problems)

    def close(self) -> None:
        self._rows.close()


def _check_identity(rows: Rows, path: Path) -> None:
    with rows.using() as connection:
        if is_empty(connection, path):
            raise JournalCorrupt(
                f"the journal {path} is empty", hint="it was cut short; restore the home from a backup"
            )
        refuse_unknown_kinds(connection)


def _refuse_missing(files: Files, folder: Path) -> None:
    state = read_anchor(files, folder)
    if state is not None and state.head != EMPTY_HEAD:
        raise JournalCorrupt(
            f"the journal of {folder} is missing; its anchor says it had {state.head.position} events",
            hint="restore the home from a backup",
        )
    raise HomeError(f"there is no journal in {folder}", hint="start with `steer up`, or give --home")
