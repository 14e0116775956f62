"""The journal on SQLite: the default, and the truth of a home.

What an acknowledgement means. `append` returns after (1) the transaction's frames were synced to the
write-ahead log and (2) the head anchor was written and synced. A power cut before (1) leaves nothing of
the call, between (1) and (2) all of it, unacknowledged; the next open finds the database one append ahead
of the anchor and rolls the anchor forward. A database behind its anchor, or with another digest at the
anchored position, has lost or altered acknowledged events and is refused.

When something fails:
* The disk is full, the file busy or read-only: SQLite rolled the transaction back, nothing of the call is
  there, JournalWriteError, and the next append may be tried.
* The commit failed in any other way (a failed sync among them): whether its frames are in the log cannot be
  known, and after a failed sync the kernel may show pages that are not on the disk. Nothing is
  acknowledged until the journal has gone back to the stored truth: it re-opens the database, writes the
  whole log through into the database file and truncates it (so no unsynced frame can lie beneath a later
  one), removes rows beyond the acknowledged head, and compares the head's digest.
* The commit succeeded and the anchor could not be written: the events are durable, the call is
  acknowledged, and the anchor is one append behind, as the contract allows. The next append writes the
  anchor first and fails, storing nothing, if it still cannot.

Creation: the anchor is made first, whole and durable, at position 0; then the tables in one transaction.
So a database without an anchor was never ours to begin, and an empty database is created again only while
the anchor says that nothing was ever acknowledged.

One writer connection behind a lock; reading uses another connection and does not wait for a sync.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from steersman.journal.anchor import ANCHOR_NAME, Anchor, AnchorState, read_anchor
from steersman.journal.chain import EMPTY_HEAD, make_records
from steersman.journal.connect import (
    DATABASE_NAME,
    connect,
    create_tables,
    is_empty,
    make_durable,
    opening_failed,
    refuse_unknown_kinds,
    require_safe_engine,
)
from steersman.journal.files import Files, OsFiles
from steersman.journal.images import ImageFiles
from steersman.journal.lock import HomeLock
from steersman.journal.reader import SqliteReader
from steersman.journal.rows import Rows
from steersman.model.errors import JournalCorrupt, JournalError, JournalWriteError
from steersman.model.events import Event
from steersman.ports.journal import Head, Record, Verification

OPEN_CHECK_ROWS = 256
"""Rows before the anchor that opening checks; `read` and `verify` check the rest."""

_ROLLED_BACK = (apsw.FullError, apsw.BusyError, apsw.ReadOnlyError, apsw.TooBigError)
"""Errors after which SQLite has certainly stored nothing of the transaction."""

_RESTORE = "restore the home from a backup; `steer audit --verify` tells what is readable"


class SqliteJournal:
    """A home's journal, open for writing. Threads may share it; see the module's text."""

    def __init__(self, folder: Path, vfs: str | None, files: Files, held: contextlib.ExitStack) -> None:
        """Use `open`. Whatever must be closed is pushed on `held`."""
        self._path = folder / DATABASE_NAME
        self._vfs = vfs
        self._held = held
        self._lock = threading.Lock()
        self._in_doubt = False
        self._closed = False
        self._writer, self._anchor = self._open_or_create(folder, files)
        held.callback(self._close_writer)
        held.callback(self._anchor.close)
        self._rows = Rows(self._path, vfs)
        held.callback(self._rows.close)
        self._reader = SqliteReader(self._rows, files, folder)
        self._images = ImageFiles(files, folder)
        self._head = self._check_end()
        found = self._writer.execute("SELECT type, version FROM kinds")
        self._kinds = {(str(name), version) for name, version in found}

    @classmethod
    def open(cls, folder: Path, *, vfs: str | None = None, files: Files | None = None) -> "SqliteJournal":
        """Open or create the journal of a home and own it until `close`.

        `vfs` and `files` name another file system than the operating system's, for simulated power cuts.
        Raises JournalLocked, JournalNewer, JournalCorrupt, HomeError, and JournalError for an SQLite that
        is not safe.
        """
        require_safe_engine(apsw.sqlite_lib_version())
        files = files or OsFiles()
        with contextlib.ExitStack() as held:
            try:
                files.make_folder(folder)
                held.callback(HomeLock.acquire(folder).release)
                journal = cls(folder, vfs, files, held)
            except (apsw.Error, UnicodeDecodeError, OSError) as error:
                raise opening_failed(error, folder / DATABASE_NAME) from error
            journal._held = held.pop_all()
        return journal

    @classmethod
    def open_reader(cls, folder: Path, *, vfs: str | None = None, files: Files | None = None) -> SqliteReader:
        """Open a home's journal for reading only, owned or not. See SqliteReader.open."""
        return SqliteReader.open(folder, vfs=vfs, files=files)

    def append(self, events: Sequence[Event], at_ms: int) -> int:
        with self._lock:
            self._require_open()
            records = make_records(self._head, events, at_ms)
            if records:
                self._settle()
                self._commit(records)
                self._head = Head(position=records[-1].position, digest=records[-1].digest)
                # The events are durable. If the anchor is not, it is one append behind, which the contract
                # allows, and the next append settles it before it stores anything.
                with contextlib.suppress(OSError):
                    self._anchor.write(self._head)
            return self._head.position

    def head(self) -> Head:
        self._require_open()
        return self._head

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[Record]:
        self._require_open()
        end = self._head.position
        return self._rows.checked(after, end if limit is None else min(end, after + limit))

    def verify(self) -> Verification:
        self._require_open()
        return self._reader.verify()

    def save_image(self, position: int, build: str, image: bytes) -> None:
        self._require_open()
        assert 0 <= position <= self._head.position, "an image is of a state that the journal has reached"
        digest = self._rows.digest_at(position)
        if digest is None:
            raise JournalCorrupt(f"row {position} of the journal {self._path} is missing", hint=_RESTORE)
        self._images.save(Head(position=position, digest=digest), build, image)

    def load_image(self, build: str) -> tuple[int, bytes] | None:
        self._require_open()
        return self._images.load(build, self._head, self._rows.digest_at)

    def close(self) -> None:
        """Give the home up. Closing twice is closing once."""
        with self._lock:
            self._closed = True
            self._held.close()

    def _require_open(self) -> None:
        if self._closed:
            raise JournalError("the journal is closed")

    # Opening.

    def _open_or_create(self, folder: Path, files: Files) -> tuple[apsw.Connection, Anchor]:
        state = read_anchor(files, folder)
        size = files.size(self._path)
        if state is None and size is None:
            state = self._begin_anchor(folder, files)
        if state is not None and not size and state.head != EMPTY_HEAD:
            raise JournalCorrupt(
                f"the journal {self._path} is {'missing' if size is None else 'empty'};"
                f" its anchor says it had {state.head.position} events",
                hint=_RESTORE,
            )
        if size is None and self._vfs is None:
            self._path.touch(mode=0o600)  # SQLite would follow the umask; its other files follow this one
        connection = connect(self._path, self._vfs, "write" if size else "create")
        with contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            self._require_journal(connection, state, files)
            assert state is not None
            anchor = Anchor.resume(files, folder, state)
            undo.pop_all()
        return connection, anchor

    def _begin_anchor(self, folder: Path, files: Files) -> AnchorState:
        if files.size(self._path.with_name(DATABASE_NAME + "-wal")) is not None:
            raise JournalCorrupt(
                f"the journal {self._path} and its anchor are missing, but its write-ahead log is there",
                hint=_RESTORE,
            )
        with contextlib.suppress(PermissionError):  # a parent that only root may read was not made by us
            files.sync_folder(folder.parent)
        Anchor.create(files, folder, EMPTY_HEAD).close()
        return AnchorState(sequence=0, head=EMPTY_HEAD)

    def _require_journal(self, connection: apsw.Connection, state: AnchorState | None, files: Files) -> None:
        empty = is_empty(connection, self._path)
        if state is None:
            raise JournalCorrupt(
                f"the head anchor {self._path.with_name(ANCHOR_NAME)} is missing,"
                " so it cannot be told whether acknowledged events are",
                hint="put it back from the same backup as the database",
            )
        if empty and state.head != EMPTY_HEAD:
            raise JournalCorrupt(
                f"the journal {self._path} is empty; its anchor says it had {state.head.position} events",
                hint=_RESTORE,
            )
        if empty:
            create_tables(connection)
        make_durable(connection)
        if empty:
            files.sync_folder(self._path.parent)
        refuse_unknown_kinds(connection)

    def _check_end(self) -> Head:
        """Compare the end with the anchor, check the rows around it, and bring the anchor to the end."""
        anchored = self._anchor.head
        end = self._rows.check_end(anchored, _RESTORE)
        head = anchored
        for record in self._rows.checked(max(0, anchored.position - OPEN_CHECK_ROWS), end):
            head = Head(position=record.position, digest=record.digest)
        if head != anchored:
            self._anchor.write(head)
        return head

    # Writing.

    def _settle(self) -> None:
        """Put right what an earlier append left behind, before anything new is stored."""
        if self._in_doubt:
            self._return_to_stored_truth()
        if self._anchor.head != self._head:
            try:
                self._anchor.write(self._head)
            except OSError as error:
                raise JournalWriteError(
                    f"the head anchor beside {self._path} cannot be written: {error.strerror}",
                    hint="nothing of this call was stored; check the disk, then try again",
                ) from error

    def _commit(self, records: Sequence[Record]) -> None:
        """Store rows in one durable transaction, or leave nothing and raise JournalWriteError."""
        new_kinds = {(record.type, record.version) for record in records} - self._kinds
        rows = [
            (record.position, record.at_ms, record.type, record.version, record.body, record.digest)
            for record in records
        ]
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            writer.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
            writer.executemany("INSERT OR IGNORE INTO kinds VALUES (?, ?)", sorted(new_kinds))
            writer.execute("COMMIT")
        except apsw.Error as error:
            self._in_doubt = not (isinstance(error, _ROLLED_BACK) and _roll_back(writer))
            raise _write_failed(error, self._path) from error
        self._kinds |= new_kinds

    def _return_to_stored_truth(self) -> None:
        """Re-open after a commit of unknown outcome; see the module's text. Raises JournalWriteError."""
        try:
            self._close_writer()
            self._writer = connect(self._path, self._vfs, "write")
            make_durable(self._writer)
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute("DELETE FROM events WHERE position > ?", (self._head.position,))
            self._writer.execute("COMMIT")
        except apsw.Error as error:
            raise _write_failed(error, self._path) from error
        if self._rows.digest_at(self._head.position) != self._head.digest:
            raise JournalCorrupt(f"the end of the journal {self._path} was altered", hint=_RESTORE)
        self._in_doubt = False

    def _close_writer(self) -> None:
        # What was acknowledged is durable already; the log that could not be tidied away is read next time.
        with contextlib.suppress(apsw.Error):
            self._writer.close()


def _roll_back(writer: apsw.Connection) -> bool:
    """End a failed transaction; False when even that failed."""
    try:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
    except apsw.Error:
        return False
    return True


def _write_failed(error: apsw.Error, path: Path) -> JournalWriteError:
    hint = "nothing of this call was acknowledged; it may be tried again"
    if isinstance(error, apsw.FullError):
        hint = "free space on the disk of the home; " + hint
    return JournalWriteError(f"the journal {path} cannot be written: {error}", hint=hint)
