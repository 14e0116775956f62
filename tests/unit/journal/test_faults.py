"""Disks that fail: every operation of an append, in turn, once and for a while."""

import contextlib
import errno
import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.contract.journal_disk import SimDisk, SimVfs
from tests.contract.journal_events import sized

from steersman.journal import SqliteJournal
from steersman.journal.anchor import ANCHOR_NAME, decode_anchor
from steersman.journal.chain import EMPTY_HEAD
from steersman.journal.files import OsFiles
from steersman.model.errors import HomeError, JournalCorrupt, JournalError, JournalWriteError

OPERATIONS_MAX = 60
"""More than any append with its recovery makes here."""


@pytest.fixture
def vfs() -> Iterator[SimVfs]:
    vfs = SimVfs("faults")
    yield vfs
    vfs.unregister()


class Failing:
    """Fails operations number `first` to `last`, counted from when it was set."""

    def __init__(self, first: int, last: int, error: type[apsw.Error], only: str = "") -> None:
        self.first, self.last, self.error, self.only = first, last, error, only
        self.count = 0
        self.failed: list[tuple[str, str]] = []

    def __call__(self, operation: str, name: str) -> None:
        if self.only and not name.startswith(self.only):
            return
        self.count += 1
        if self.first <= self.count <= self.last:
            self.failed.append((operation, name))
            if name == ANCHOR_NAME or name.endswith((".tmp", ".image")):
                raise OSError(errno.ENOSPC, "No space left on device")
            raise self.error("planted")


def _open(vfs: SimVfs, home: Path) -> SqliteJournal:
    return SqliteJournal.open(home, vfs=vfs.name, files=vfs.disk.files)


def _bodies(journal: SqliteJournal) -> list[int]:
    return [record.at_ms for record in journal.read()]


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError])
@pytest.mark.parametrize("length", [1, 6])
@pytest.mark.parametrize("checkpoint", [1, 1_000])
def test_an_append_fails_whole_or_is_acknowledged_whole(
    vfs: SimVfs, tmp_path: Path, error: type[apsw.Error], length: int, checkpoint: int
) -> None:
    refused = 0
    for first in range(1, OPERATIONS_MAX):
        home = tmp_path / str(first)
        vfs.disk = SimDisk(random.Random(first))
        with contextlib.closing(_open(vfs, home)) as journal:
            journal._writer.pragma("wal_autocheckpoint", checkpoint)
            journal.append([sized(1)], at_ms=1)
            vfs.disk.fault = failing = Failing(first, first + length - 1, error)
            acknowledged = [1]
            for at_ms in range(2, 8):
                with contextlib.suppress(JournalWriteError):
                    journal.append([sized(at_ms, 3_000), sized(at_ms)], at_ms)
                    acknowledged += [at_ms, at_ms]
            vfs.disk.fault = None
            refused += len(acknowledged) < 13
            assert _bodies(journal) == acknowledged, failing.failed
            journal.append([sized(9)], at_ms=9)
            assert _bodies(journal) == [*acknowledged, 9], failing.failed
            assert journal.verify().problems == ()
        with contextlib.closing(_open(vfs, home)) as journal:
            assert _bodies(journal) == [*acknowledged, 9], failing.failed
    assert refused > 5, "the faults must have hit"


def test_a_process_that_dies_after_a_commit_of_unknown_outcome(vfs: SimVfs, tmp_path: Path) -> None:
    """The frames may be in the log; whoever opens next finds all of the call or nothing."""
    for first in range(1, 12):
        vfs.disk = SimDisk(random.Random(first))
        home = tmp_path / str(first)
        journal = _open(vfs, home)
        journal.append([sized(1)], at_ms=1)
        vfs.disk.fault = Failing(first, 10**9, apsw.IOError, only="journal.db")
        with contextlib.suppress(JournalWriteError):
            journal.append([sized(2), sized(3)], at_ms=2)
        vfs.disk.cut()
        vfs.disk.fault = None
        with contextlib.suppress(apsw.Error):
            journal.close()
        for path in home.glob("journal.db*"):
            path.unlink()
        vfs.disk = vfs.disk.rebooted()
        with contextlib.closing(_open(vfs, home)) as journal:
            assert _bodies(journal) in ([1], [1, 2, 2])


def test_rows_of_a_failed_commit_are_taken_out_before_the_next(vfs: SimVfs, tmp_path: Path) -> None:
    """Recovery finds rows beyond the acknowledged head: SQLite kept what it reported as failed."""
    with contextlib.closing(_open(vfs, tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        acknowledged = journal._head
        journal.append([sized(2), sized(3)], at_ms=2)
        journal._head, journal._in_doubt = acknowledged, True
        journal._anchor.write(acknowledged)
        assert _bodies(journal) == [1], "an unacknowledged event is never yielded"
        assert journal.append([sized(4)], at_ms=4) == 2
        assert _bodies(journal) == [1, 4]
        assert journal.verify().problems == ()


def test_stored_truth_that_is_another_is_refused(vfs: SimVfs, tmp_path: Path) -> None:
    with contextlib.closing(_open(vfs, tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        journal._writer.execute("UPDATE events SET digest = zeroblob(32)")
        journal._in_doubt = True
        for _ in range(2):
            with pytest.raises(JournalCorrupt, match="altered"):
                journal.append([sized(2)], at_ms=2)


def test_somebody_elses_row_is_not_taken_for_ours(vfs: SimVfs, tmp_path: Path) -> None:
    with contextlib.closing(_open(vfs, tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        journal._writer.execute("INSERT INTO events SELECT 2, 5, type, version, body, digest FROM events")
        with pytest.raises(JournalWriteError):
            journal.append([sized(2)], at_ms=2)
        assert journal.append([sized(3)], at_ms=3) == 2
        assert _bodies(journal) == [1, 3]


def test_a_full_disk_says_what_to_do(vfs: SimVfs, tmp_path: Path) -> None:
    with contextlib.closing(_open(vfs, tmp_path)) as journal:
        vfs.disk.fault = Failing(1, 10**9, apsw.FullError)
        with pytest.raises(JournalWriteError) as caught:
            journal.append([sized(1)], at_ms=1)
        assert "free space" in caught.value.hint
        with pytest.raises(JournalWriteError, match="state image"):
            journal.save_image(0, "build", b"image")
        vfs.disk.fault = None
        assert journal.append([sized(1)], at_ms=1) == 1


def test_an_anchor_that_cannot_be_written_is_never_two_appends_behind(vfs: SimVfs, tmp_path: Path) -> None:
    with contextlib.closing(_open(vfs, tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        vfs.disk.fault = Failing(1, 10**9, apsw.IOError, only=ANCHOR_NAME)
        assert journal.append([sized(2)], at_ms=2) == 2, "durable, and the anchor one append behind"
        with pytest.raises(JournalWriteError, match="head anchor"):
            journal.append([sized(3)], at_ms=3)
        assert _bodies(journal) == [1, 2]
        vfs.disk.fault = None
        anchored = decode_anchor(vfs.disk.files.read(tmp_path / ANCHOR_NAME) or b"")
        assert anchored is not None
        assert anchored.head.position == 1
        assert journal.append([sized(4)], at_ms=4) == 3
        assert journal.verify().problems == ()


def _hint_of_failed_opening(vfs: SimVfs, home: Path) -> str | None:
    try:
        _open(vfs, home).close()
    except (JournalError, HomeError) as error:
        return error.hint
    return None


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError, apsw.CantOpenError])
def test_opening_fails_in_clear_words_and_works_when_the_disk_does(
    vfs: SimVfs, tmp_path: Path, error: type[apsw.Error]
) -> None:
    failures = 0
    for first in range(1, OPERATIONS_MAX):
        home = tmp_path / str(first)
        vfs.disk = SimDisk(random.Random(first))
        vfs.disk.fault = failing = Failing(first, 10**9, error)
        hint = _hint_of_failed_opening(vfs, home)
        assert hint is None or hint, failing.failed
        failures += hint is not None
        vfs.disk.fault = None
        with contextlib.closing(_open(vfs, home)) as journal:
            assert journal.head() == EMPTY_HEAD
            assert journal.append([sized(1)], at_ms=1) == 1
    assert failures > 10


def test_reading_fails_in_clear_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        reader = SqliteJournal.open_reader(tmp_path)
        reader._rows._connection.execute("PRAGMA query_only=1")
        reader._rows._connection.set_progress_handler(lambda: True, 1)
        with pytest.raises(JournalError, match="cannot be read"):
            list(reader.read())
        reader.close()
        with pytest.raises(JournalError, match="closed"):
            list(reader.read())
        monkeypatch.setattr(journal._rows, "_path", tmp_path / "absent" / "journal.db")
        with pytest.raises(HomeError, match="cannot be opened"):
            journal.verify()


def test_a_parent_folder_that_cannot_be_synced_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = OsFiles.sync_folder

    def refuse_parent(files: OsFiles, folder: Path) -> None:
        if folder == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        sync(files, folder)

    monkeypatch.setattr(OsFiles, "sync_folder", refuse_parent)
    SqliteJournal.open(tmp_path / "home").close()


def test_a_commit_that_met_another_transaction_is_in_doubt(vfs: SimVfs, tmp_path: Path) -> None:
    with contextlib.closing(_open(vfs, tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        journal._writer.execute("BEGIN")
        with pytest.raises(JournalWriteError):
            journal.append([sized(2)], at_ms=2)
        assert journal._in_doubt
        assert journal.append([sized(3)], at_ms=3) == 2
        assert _bodies(journal) == [1, 3]


@pytest.mark.parametrize("rollback_fails", [False, True])
def test_what_sqlite_refuses_is_rolled_back(vfs: SimVfs, tmp_path: Path, rollback_fails: bool) -> None:
    def authorize(operation: int, action: str | None, *_: str | None) -> int:
        refused = operation == apsw.SQLITE_TRANSACTION and action == "ROLLBACK"
        return apsw.SQLITE_DENY if refused else apsw.SQLITE_OK

    with contextlib.closing(_open(vfs, tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        journal._writer.limit(apsw.SQLITE_LIMIT_LENGTH, 2_000)
        journal._writer.authorizer = authorize if rollback_fails else None
        with pytest.raises(JournalWriteError):
            journal.append([sized(2), sized(3, 3_000)], at_ms=2)
        assert journal._in_doubt is rollback_fails
        assert _bodies(journal) == [1]
        assert journal.append([sized(4)], at_ms=4) == 2
        assert _bodies(journal) == [1, 4]
        assert journal.verify().problems == ()


def test_a_database_held_by_another_program_may_be_tried_again(tmp_path: Path) -> None:
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        journal._writer.set_busy_timeout(0)
        other = apsw.Connection(str(tmp_path / "journal.db"))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalWriteError, match="cannot be written") as caught:
            journal.append([sized(2)], at_ms=2)
        assert "tried again" in caught.value.hint
        other.execute("ROLLBACK")
        other.close()
        assert journal.append([sized(2)], at_ms=2) == 2


def test_recovery_that_cannot_empty_the_log_acknowledges_nothing(tmp_path: Path) -> None:
    """A reader in the middle of the log keeps it from being written through; its end lets it go on."""
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        other = apsw.Connection(str(tmp_path / "journal.db"))
        reading = other.execute("SELECT * FROM events")
        next(reading)
        journal.append([sized(2)], at_ms=2)
        journal._in_doubt = True
        with pytest.raises(JournalWriteError):
            journal.append([sized(3)], at_ms=3)
        assert _bodies(journal) == [1, 2]
        reading.close()
        other.close()
        assert journal.append([sized(4)], at_ms=4) == 3
        assert _bodies(journal) == [1, 2, 4]
