"""The doctor looks at the journal: what a control plane would refuse is told before it is started."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from steersman.app import doctor
from steersman.app.doctor import examine
from steersman.app.settings import Settings, prepare_home
from steersman.app.wire import CheckView
from steersman.engine.restore import restore
from steersman.journal.anchor import ANCHOR_NAME
from steersman.journal.connect import DATABASE_NAME
from steersman.journal.sqlite import SqliteJournal
from steersman.model.errors import JournalCorrupt
from steersman.model.events import HomeCreated, Observed

EVENTS = 3


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose journal holds some events, closed."""
    home = tmp_path / "home"
    prepare_home(home)
    journal = SqliteJournal.open(home)
    journal.append([HomeCreated(home_id="a"), *(Observed(now_ms=now) for now in range(1, EVENTS))], 1)
    journal.close()
    return home


def check(home: Path, name: str) -> CheckView:
    (found,) = [each for each in examine(Settings(home=home)).checks if each.name == name]
    return found


def _delete_last(home: Path) -> None:
    with sqlite3.connect(home / DATABASE_NAME) as database:
        database.execute("DELETE FROM events WHERE position = ?", (EVENTS,))
    database.close()


def _replace_last(home: Path) -> None:
    with sqlite3.connect(home / DATABASE_NAME) as database:
        database.execute("UPDATE events SET digest = ? WHERE position = ?", (bytes(32), EVENTS))
    database.close()


def _foreign(home: Path) -> None:
    (home / DATABASE_NAME).unlink()
    with sqlite3.connect(home / DATABASE_NAME) as database:
        database.execute("CREATE TABLE cats (name TEXT)")
    database.close()


def _newer(home: Path) -> None:
    with sqlite3.connect(home / DATABASE_NAME) as database:
        database.execute("PRAGMA user_version = 999")
    database.close()


def test_a_sound_journal(home: Path) -> None:
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    found = check(home, "journal")
    assert found.state == "ok"
    assert found.words == f"{EVENTS} events, ends as acknowledged; read and compared with the chain: all"
    for name in (DATABASE_NAME, ANCHOR_NAME):
        assert (home / name).read_bytes() == before[name]
    journal = SqliteJournal.open(home)  # beside its owner, too
    try:
        journal.append([Observed(now_ms=9)], 2)
        assert check(home, "journal").words.startswith(f"{EVENTS + 1} events")
    finally:
        journal.close()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda home: (home / ANCHOR_NAME).unlink(), "head anchor"),
        (lambda home: (home / DATABASE_NAME).unlink(), "is missing; its anchor says it had 3 events"),
        (lambda home: (home / DATABASE_NAME).write_bytes(b""), "is empty"),
        (lambda home: (home / DATABASE_NAME).write_bytes(b"x" * 8192), "is damaged"),
        (lambda home: (home / ANCHOR_NAME).write_bytes(b"x" * 8192), "neither of its slots is whole"),
        (_delete_last, "the last 1 acknowledged events (3 to 3) are missing"),
        (_replace_last, "is not the one its anchor is of"),
        (_foreign, "not a Steersman journal"),
        (_newer, "format 999"),
    ],
    ids=["no-anchor", "no-database", "empty", "garbage", "anchor", "cut", "other", "foreign", "newer"],
)
def test_a_journal_that_is_not_sound(home: Path, harm: Callable[[Path], object], words: str) -> None:
    harm(home)
    found = check(home, "journal")
    assert found.state == "problem"
    assert words in found.words
    assert found.hint


def _spoil_the_middle(home: Path) -> None:
    with sqlite3.connect(home / DATABASE_NAME) as database:
        database.execute("UPDATE events SET body = ? WHERE position = 2", (b"{}",))
    database.close()


def test_damage_in_the_middle_is_found_as_the_control_plane_would(home: Path) -> None:
    journal = SqliteJournal.open(home)
    journal.append([Observed(now_ms=now) for now in range(2_000)], 2)  # far behind what opening looks at
    journal.close()
    _spoil_the_middle(home)
    found = check(home, "journal")
    assert found.state == "problem"
    assert "row 2: its bytes are not those that were acknowledged" in found.words
    journal = SqliteJournal.open(home)
    try:
        with pytest.raises(JournalCorrupt, match="row 2"):
            restore(journal, "this build")
    finally:
        journal.close()


def test_of_a_long_journal_the_end_is_read_and_that_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "EVENTS_READ_MAX", 2)
    found = check(home, "journal")
    assert found.state == "ok"
    assert "read and compared with the chain: the last 2 (`steer audit --verify` reads all" in found.words


def test_what_cannot_be_read_is_not_called_missing(tmp_path: Path) -> None:
    """Pages in the middle of the database are spoilt: what lies behind them is there, and unreadable."""
    home = tmp_path / "home"
    prepare_home(home)
    journal = SqliteJournal.open(home)
    journal.append([HomeCreated(home_id="a" * 3_000), *(Observed(now_ms=now) for now in range(900))], 1)
    journal.close()
    path = home / DATABASE_NAME
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    reader = SqliteJournal.open_reader(home)
    try:
        problems = reader.verify().problems
    finally:
        reader.close()
    assert any("cannot be read further" in problem for problem in problems)
    assert any("are unreadable" in problem for problem in problems)
    assert not any("missing from the end" in problem for problem in problems)


def test_a_home_without_a_journal(tmp_path: Path) -> None:
    prepare_home(tmp_path / "home")
    assert check(tmp_path / "home", "journal").state == "ok"


def test_a_home_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    assert check(tmp_path / "a" / "b" / "home", "home").state == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/foo", "/proc/foo/bar", "file/home"])
def test_a_home_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    found = check(tmp_path / place, "home")
    assert found.state == "problem"
    assert "cannot be made" in found.words
    assert found.hint == "choose another with --home"
