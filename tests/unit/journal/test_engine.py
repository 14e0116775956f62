"""Which SQLite a journal may be kept with."""

from pathlib import Path

import apsw
import pytest

from steersman.journal import SqliteJournal, connect, engine_is_safe
from steersman.model.errors import JournalError


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.6.23", False),
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.44.7", True),
        ("3.45.0", False),
        ("3.49.9", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.0", False),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.51.2.1", False),
        ("3.51.3.1", True),
        ("3.52.0", True),
        ("3.100.0", True),
        ("4.0.0", True),
        ("", False),
        ("3.51", False),
        ("three", False),
    ],
)
def test_the_table_of_engines(version: str, safe: bool) -> None:
    assert engine_is_safe(version) is safe


def test_the_engine_that_is_installed_is_safe() -> None:
    assert engine_is_safe(apsw.sqlite_lib_version())


def test_an_unsafe_engine_is_refused_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    for opening in (SqliteJournal.open, SqliteJournal.open_reader):
        with pytest.raises(JournalError, match=r"3\.51\.2 can lose committed events") as caught:
            opening(tmp_path / "home")
        assert "install apsw-sqlite3mc" in caught.value.hint
    assert not (tmp_path / "home").exists()


def test_the_writer_is_set_to_lose_nothing(tmp_path: Path) -> None:
    journal = SqliteJournal.open(tmp_path)
    settings = {name: journal._writer.pragma(name) for name in ("journal_mode", "synchronous", "mmap_size")}
    assert settings == {"journal_mode": "wal", "synchronous": 2, "mmap_size": 0}
    journal.close()


def test_a_database_that_cannot_have_a_log_is_refused() -> None:
    connection = apsw.Connection(":memory:")
    with pytest.raises(JournalError, match="would not keep the journal durable"):
        connect.make_durable(connection)
    connection.close()
