"""Opening: what is created, what is refused and in which words."""

import contextlib
import os
import shutil
from pathlib import Path

import apsw
import pytest
from tests.contract.journal_events import sized

from steersman.journal import SqliteJournal
from steersman.journal.anchor import read_anchor
from steersman.journal.chain import EMPTY_HEAD
from steersman.journal.files import OsFiles
from steersman.model.errors import HomeError, JournalCorrupt, JournalError, JournalNewer


def _fill(home: Path, appends: int = 3) -> None:
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        for number in range(appends):
            journal.append([sized(number)], at_ms=number)


def _edit(home: Path, *statements: str) -> None:
    with contextlib.closing(apsw.Connection(str(home / "journal.db"))) as connection:
        for statement in statements:
            connection.execute(statement)


def test_what_was_appended_is_there_after_opening_again(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    _fill(home)
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        assert [record.at_ms for record in journal.read()] == [0, 1, 2]
        assert journal.append([sized(4)], at_ms=4) == 4
        assert journal.verify().problems == ()


def test_only_the_owner_may_read_a_home_that_was_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _fill(home)
    assert home.stat().st_mode & 0o077 == 0
    for name in ("journal.anchor", "journal.lock"):
        assert (home / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"garbage " * 1_000, b"x", b"SQLite format 3\0" + b"\xff" * 5_000])
def test_garbage_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    _fill(tmp_path)
    (tmp_path / "journal.db").write_bytes(content)
    for opening in (SqliteJournal.open, SqliteJournal.open_reader):
        with pytest.raises(JournalError) as caught:
            opening(tmp_path)
        assert isinstance(caught.value, JournalCorrupt)
        assert caught.value.hint
    assert (tmp_path / "journal.db").read_bytes() == content


@pytest.mark.parametrize("left", [0, 1, 100, 4_096, 8_192, 20_000, -4_096, -1])
def test_a_journal_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([sized(number, 300) for number in range(200)], at_ms=1)
    path = tmp_path / "journal.db"
    size = path.stat().st_size
    os.truncate(path, left % size)
    with pytest.raises(JournalCorrupt) as caught:
        SqliteJournal.open(tmp_path)
    assert "backup" in caught.value.hint
    assert path.stat().st_size == left % size, "never silently made anew"


def test_a_missing_database_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path)
    (tmp_path / "journal.db").unlink()
    with pytest.raises(JournalCorrupt, match="missing; its anchor says it had 3 events"):
        SqliteJournal.open(tmp_path)
    with pytest.raises(JournalCorrupt, match="missing; its anchor says it had 3 events"):
        SqliteJournal.open_reader(tmp_path)


def test_a_log_without_its_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db-wal").write_bytes(b"frames")
    with pytest.raises(JournalCorrupt, match="write-ahead log is there"):
        SqliteJournal.open(tmp_path)


def test_an_empty_database_put_in_its_place_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path)
    (tmp_path / "journal.db").unlink()
    _edit(tmp_path, "PRAGMA user_version=0", "CREATE TABLE t(a)", "DROP TABLE t")
    with pytest.raises(JournalCorrupt, match="is empty; its anchor says it had 3 events"):
        SqliteJournal.open(tmp_path)
    with pytest.raises(JournalCorrupt, match="is empty"):
        SqliteJournal.open_reader(tmp_path)


def test_a_missing_anchor_is_refused_by_the_writer_and_told_by_the_reader(tmp_path: Path) -> None:
    _fill(tmp_path)
    (tmp_path / "journal.anchor").unlink()
    with pytest.raises(JournalCorrupt, match=r"anchor .* is missing"):
        SqliteJournal.open(tmp_path)
    with contextlib.closing(SqliteJournal.open_reader(tmp_path)) as reader:
        verification = reader.verify()
        assert verification.rows == 3
        assert "anchor" in verification.problems[0]
        with pytest.raises(JournalCorrupt, match="anchor"):
            reader.head()


def test_an_anchor_of_another_home_is_refused(tmp_path: Path) -> None:
    for home in (tmp_path / "one", tmp_path / "two"):
        _fill(home)
    _edit(tmp_path / "two", "UPDATE events SET at_ms = 7")
    with contextlib.closing(SqliteJournal.open(tmp_path / "three")) as journal:
        journal.append([sized(1), sized(2), sized(5)], at_ms=9)
    shutil.copy(tmp_path / "three" / "journal.anchor", tmp_path / "one" / "journal.anchor")
    with pytest.raises(JournalCorrupt, match="row 3 differs"):
        SqliteJournal.open(tmp_path / "one")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    _fill(tmp_path)
    _edit(tmp_path, "PRAGMA user_version=2")
    for opening in (SqliteJournal.open, SqliteJournal.open_reader):
        with pytest.raises(JournalNewer, match="format 2; this build knows up to 1") as caught:
            opening(tmp_path)
        assert "later" in caught.value.hint


@pytest.mark.parametrize("kind", ["('reactor-lit', 1)", "('observed', 99)"])
def test_an_event_of_a_newer_build_is_refused(tmp_path: Path, kind: str) -> None:
    _fill(tmp_path)
    _edit(tmp_path, f"INSERT INTO kinds VALUES {kind}")
    for opening in (SqliteJournal.open, SqliteJournal.open_reader):
        with pytest.raises(JournalNewer, match="which this build does not know"):
            opening(tmp_path)


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    _edit(tmp_path, "CREATE TABLE recipes (name)", "PRAGMA application_id=5")
    before = (tmp_path / "journal.db").read_bytes()
    for opening in (SqliteJournal.open, SqliteJournal.open_reader):
        with pytest.raises(JournalCorrupt, match="not a Steersman journal"):
            opening(tmp_path)
    assert (tmp_path / "journal.db").read_bytes() == before


def test_a_creation_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    _fill(tmp_path, appends=0)
    (tmp_path / "journal.db").write_bytes(b"")
    _fill(tmp_path)
    (tmp_path / "two").mkdir()
    _fill(tmp_path / "two", appends=0)
    (tmp_path / "two" / "journal.db").unlink()
    _fill(tmp_path / "two")


def test_an_anchor_one_append_behind_is_rolled_forward(tmp_path: Path) -> None:
    _fill(tmp_path)
    older = (tmp_path / "journal.anchor").read_bytes()
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([sized(4), sized(5)], at_ms=4)
        head = journal.head()
    (tmp_path / "journal.anchor").write_bytes(older)
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        assert journal.head() == head
    state = read_anchor(OsFiles(), tmp_path)
    assert state is not None
    assert state.head == head


def test_rows_put_behind_the_anchor_must_fit_the_chain(tmp_path: Path) -> None:
    _fill(tmp_path)
    _edit(tmp_path, "INSERT INTO events SELECT 4, at_ms, type, version, body, digest FROM events LIMIT 1")
    with pytest.raises(JournalCorrupt, match="row 4"):
        SqliteJournal.open(tmp_path)


def test_a_home_that_is_a_file_or_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(HomeError) as caught:
            SqliteJournal.open(folder)
        assert caught.value.hint


def test_a_reader_where_there_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="there is no journal"):
        SqliteJournal.open_reader(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        assert journal.head() == EMPTY_HEAD


def test_a_failed_opening_gives_the_home_back(tmp_path: Path) -> None:
    _fill(tmp_path)
    good = (tmp_path / "journal.anchor").read_bytes()
    (tmp_path / "journal.anchor").write_bytes(b"\0" * len(good))
    with pytest.raises(JournalCorrupt, match="neither of its slots is whole"):
        SqliteJournal.open(tmp_path)
    (tmp_path / "journal.anchor").write_bytes(good)
    _fill(tmp_path)
