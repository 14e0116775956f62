"""Reading rows: in chunks, each its own short transaction, each row checked against the chain.

A long read transaction would pin the write-ahead log and let it grow. The journal only grows at its end,
so a chunk read later is as consistent as one read now. `verify` alone reads in one transaction, on a
connection of its own, so that nothing about the file is taken on trust.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from steersman.journal.chain import ZERO_DIGEST, ChainChecker, Problems, RawRow, lost_tail, verify_rows
from steersman.journal.connect import DAMAGED, connect, opening_failed
from steersman.model.errors import JournalCorrupt, JournalError
from steersman.ports.journal import Head, Record, Verification

CHUNK_ROWS = 512
CHUNK_BYTES = 8 * 1024 * 1024
"""A chunk ends after this many rows or bytes of bodies, whichever comes first."""

_COLUMNS = "SELECT position, at_ms, type, version, body, digest FROM events"


class Rows:
    """A read-only connection that several threads may use in turn."""

    def __init__(self, path: Path, vfs: str | None) -> None:
        self._path = path
        self._vfs = vfs
        self._lock = threading.Lock()
        self._connection = connect(path, vfs, "read")

    @contextlib.contextmanager
    def using(self) -> Iterator[apsw.Connection]:
        """The connection, with damage and closing told in the journal's words."""
        try:
            with self._lock:
                yield self._connection
        except DAMAGED as error:
            raise JournalCorrupt(
                f"the journal {self._path} is damaged: {error}", hint="restore the home from a backup"
            ) from error
        except apsw.ConnectionClosedError as error:
            raise JournalError("the journal is closed") from error
        except apsw.Error as error:
            raise JournalError(
                f"the journal {self._path} cannot be read: {error}",
                hint="check the disk and the mode of the folder; a home on a read-only medium: copy it first",
            ) from error

    def end(self) -> int:
        """The position of the last stored row, acknowledged or not; 0 when there is none."""
        with self.using() as connection:
            found = connection.execute("SELECT max(position) FROM events").get
        if not isinstance(found, int | None):
            raise JournalCorrupt(f"the end of the journal {self._path} was altered")
        return found or 0

    def digest_at(self, position: int) -> bytes | None:
        """The stored digest of a row; None when there is no such row."""
        if position == 0:
            return ZERO_DIGEST
        with self.using() as connection:
            found = connection.execute("SELECT digest FROM events WHERE position = ?", (position,)).get
        return found if isinstance(found, bytes) else None

    def check_end(self, anchored: Head, hint: str) -> int:
        """The position of the last row, if the anchored head is among the rows. Raises JournalCorrupt."""
        end = self.end()
        if end < anchored.position:
            raise JournalCorrupt(
                f"the journal {self._path} is cut short: {lost_tail(end, anchored.position)}", hint=hint
            )
        if self.digest_at(anchored.position) != anchored.digest:
            raise JournalCorrupt(
                f"the journal {self._path} is not the one its anchor is of: row {anchored.position} differs",
                hint=hint,
            )
        return end

    def checked(self, after: int, upto: int) -> Iterator[Record]:
        """Rows after a position, up to one, in order. Raises JournalCorrupt at the first altered row."""
        if after >= upto:
            return
        digest = self.digest_at(after)
        if digest is None:
            raise JournalCorrupt(f"row {after} of the journal {self._path} is missing")
        checker = ChainChecker(Head(position=after, digest=digest))
        while checker.head.position < upto:
            before = checker.head.position
            for raw in self._chunk(before, upto):
                record, problem = checker.feed(raw)
                if record is None or problem is not None:
                    raise JournalCorrupt(
                        f"the journal {self._path} was altered: {problem}",
                        hint="`steer audit --verify` lists every altered row; restore the home from a backup",
                    )
                yield record
            if checker.head.position == before:
                raise JournalCorrupt(f"rows {before + 1} to {upto} of the journal {self._path} are missing")

    def _chunk(self, after: int, upto: int) -> list[RawRow]:
        rows: list[RawRow] = []
        size = 0
        with self.using() as connection:
            cursor = connection.execute(
                f"{_COLUMNS} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
                (after, upto, CHUNK_ROWS),
            )
            for row in cursor:
                rows.append(row)
                size += len(row[4]) if isinstance(row[4], bytes) else 0
                if size >= CHUNK_BYTES:
                    break
            cursor.close()
        return rows

    def verify(self, read_anchor: Callable[[], Head | None], problems: Problems) -> Verification:
        """Read every row as stored. The anchor is read first: events may be added meanwhile."""
        anchor = read_anchor()
        try:
            connection = connect(self._path, self._vfs, "read")
        except apsw.Error as error:
            raise opening_failed(error, self._path) from error
        with contextlib.closing(connection):
            return verify_rows(self._scan(connection, problems), anchor, problems)

    def _scan(self, connection: apsw.Connection, problems: Problems) -> Iterator[RawRow]:
        """Every row in stored order; then what stopped the reading, and whether `kinds` is whole."""
        seen: set[tuple[object, object]] = set()
        try:
            for row in connection.execute(_COLUMNS):
                seen.add((row[2], row[3]))
                yield row
            listed = set(connection.execute("SELECT type, version FROM kinds"))
        except (apsw.Error, UnicodeDecodeError) as error:
            problems.cut_off = True
            problems.add(f"the database cannot be read further: {error}")
            return
        if seen != listed:
            problems.add("the list of event kinds is not that of the events stored")

    def close(self) -> None:
        with self._lock:
            self._connection.close()
