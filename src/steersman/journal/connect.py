"""Connections to the journal's database: which engine, which settings, whose file.

Settings, and why:
* write-ahead log with synchronous=FULL: a commit returns after its frames were synced;
* normal locking, not exclusive, so that `steer audit` can read while the control plane writes. That there
  is one writer is ensured by the home's lock, not by SQLite;
* no memory mapping: a stray write or a truncated file would become a fault instead of an error;
* a defensive connection, no trusted schema, cell sizes checked: the file may have been altered.

An SQLite with the WAL-reset bug (3.7.0 to 3.51.2: two connections that write or checkpoint at once can
lose committed frames) is refused, for a reader of ours beside the writer would be the second connection.

The table is WITHOUT ROWID on purpose: every byte of a stored row then belongs to a column that the digest
covers. In a rowid table the header byte of the key column may change and nothing would read differently.
"""

import re
from pathlib import Path
from typing import Literal

import apsw

from steersman.model.codec import EVENT_VERSIONS, FORMAT_VERSION
from steersman.model.errors import HomeError, JournalCorrupt, JournalError, JournalNewer

DATABASE_NAME = "journal.db"
APPLICATION_ID = 0x53544A4C  # "STJL"
BUSY_TIMEOUT_MS = 1_000
WAL_BYTES_KEPT = 64 * 1024 * 1024
"""What the write-ahead log is cut back to after a slow reader made it grow."""

SCHEMA = {
    "events": (
        "CREATE TABLE events (position INTEGER NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL,"
        " type TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL)"
        " STRICT, WITHOUT ROWID"
    ),
    # Which kinds of event are in the journal, so that opening need not read every row to know.
    "kinds": (
        "CREATE TABLE kinds (type TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (type, version))"
        " STRICT, WITHOUT ROWID"
    ),
}

DAMAGED = (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError)
"""What reading raises when the bytes are not a database's, or text is not text."""

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:\.\d+)?")
_FIXED = (3, 51, 3)
_BACKPORTS = {(3, 44): 6, (3, 50): 7}


def engine_is_safe(version: str) -> bool:
    """Whether a journal may be kept with an SQLite of this version: it has the WAL-reset fix.

    Versions before 3.7.0 have no write-ahead log and are refused with the rest.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        return False
    major, minor, patch = (int(part) for part in match.groups())
    backport = _BACKPORTS.get((major, minor))
    return (major, minor, patch) >= _FIXED or (backport is not None and patch >= backport)


def require_safe_engine(version: str) -> None:
    """Raise JournalError unless the engine is safe."""
    if not engine_is_safe(version):
        raise JournalError(
            f"SQLite {version} can lose committed events (the WAL-reset bug, fixed in 3.51.3)",
            hint="install apsw-sqlite3mc 3.51.3 or later, which brings its own SQLite",
            code="journal-engine",
        )


def connect(path: Path, vfs: str | None, mode: Literal["read", "write", "create"]) -> apsw.Connection:
    """A connection whose settings change nothing in the file yet. Raises apsw.Error."""
    flags = {
        "read": apsw.SQLITE_OPEN_READONLY,
        "write": apsw.SQLITE_OPEN_READWRITE,
        "create": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
    }[mode]
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    # A reader that is the last to leave must not try to move the log into a file it may not write.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(mode == "read"))
    connection.pragma("mmap_size", 0)
    connection.pragma("cell_size_check", 1)
    return connection


def is_empty(connection: apsw.Connection, path: Path) -> bool:
    """Whether the database holds nothing at all; False when it is a journal this build can use.

    Raises JournalCorrupt for any other database and JournalNewer for a newer journal.
    """
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    schema = dict(connection.execute("SELECT name, sql FROM sqlite_schema"))
    if not schema and application == 0 and version == 0:
        return True
    if application != APPLICATION_ID:
        raise JournalCorrupt(
            f"{path} is a database, but not a Steersman journal",
            hint="move it away, or choose another home with --home",
        )
    if version > FORMAT_VERSION:
        raise JournalNewer(
            f"the journal {path} has format {version}; this build knows up to {FORMAT_VERSION}",
            hint="start the Steersman version that wrote it, or a later one",
        )
    if version != FORMAT_VERSION or schema != SCHEMA:
        raise JournalCorrupt(
            f"the tables of the journal {path} were altered",
            hint="restore the home from a backup",
        )
    return False


def create_tables(connection: apsw.Connection) -> None:
    """Make an empty database a journal, in one transaction. Raises apsw.Error."""
    # EXTRA syncs the folder after the rollback journal is removed: it must not come back and undo this.
    connection.pragma("synchronous", 3)
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.values():
        connection.execute(statement)
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", FORMAT_VERSION)
    connection.execute("COMMIT")


def make_durable(connection: apsw.Connection) -> None:
    """Settings of the writer, read back, for SQLite answers a refused pragma with the old value."""
    mode = connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 2)
    connection.pragma("journal_size_limit", WAL_BYTES_KEPT)
    if mode != "wal" or connection.pragma("synchronous") != 2:
        raise JournalError(
            f"SQLite would not keep the journal durable (journal mode {mode})",
            hint="the home must be on a local file system that supports shared memory files",
        )


def refuse_unknown_kinds(connection: apsw.Connection) -> None:
    """Raise JournalNewer when the journal holds a kind of event that this build does not know."""
    for name, version in connection.execute("SELECT type, version FROM kinds ORDER BY type, version"):
        if version > EVENT_VERSIONS.get(name, 0):
            raise JournalNewer(
                f"the journal holds an event {name!r} of version {version}, which this build does not know",
                hint="start the Steersman version that wrote it, or a later one",
            )


def opening_failed(error: Exception, path: Path) -> JournalError | HomeError:
    """The error to raise when opening met an engine's or the system's error."""
    if isinstance(error, DAMAGED):
        return JournalCorrupt(
            f"the journal {path} is damaged: {error}",
            hint="restore the home from a backup; `steer audit --verify` tells what is readable",
        )
    return HomeError(
        f"the journal {path} cannot be opened: {error}",
        hint="check that the disk has room and that you own the home folder and may write to it",
    )
