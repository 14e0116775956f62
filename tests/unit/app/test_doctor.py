"""The doctor looks at the journal: what a control plane would refuse is told before it is started."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from steersman.app.doctor import examine
from steersman.app.settings import Settings, prepare_home
from steersman.app.wire import CheckView
from steersman.journal.anchor import ANCHOR_NAME
from steersman.journal.connect import DATABASE_NAME
from steersman.journal.sqlite import SqliteJournal
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
    assert found.words == f"{EVENTS} events, ends as acknowledged; `steer audit --verify` reads all of it"
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
