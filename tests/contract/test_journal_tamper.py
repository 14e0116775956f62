"""`verify` finds any altered byte of any event row, and any lost tail."""

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.journal_events import one_of_each, sized
from tests.contract.journal_pages import row_bytes

from steersman.journal import SqliteJournal
from steersman.journal.chain import row_digest
from steersman.model.errors import JournalCorrupt, SteersmanError

EVENTS_ROOT = 2
"""The page at which the first table of a new database begins."""

COLUMNS = ("position", "at_ms", "type", "version", "body", "digest")


def _write(home: Path, appends: int = 4, size: int = 0) -> None:
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        for number in range(appends):
            journal.append([sized(number, size), sized(number)], at_ms=1_000 + number)


def _problems(home: Path) -> tuple[str, ...]:
    """What an audit says, also when it cannot even open the journal."""
    try:
        with contextlib.closing(SqliteJournal.open_reader(home)) as reader:
            return reader.verify().problems
    except SteersmanError as error:
        return (error.message,)


def _edit(home: Path, statement: str, values: tuple[int, ...] = ()) -> None:
    with contextlib.closing(apsw.Connection(str(home / "journal.db"))) as connection:
        connection.execute(statement, values)


def test_every_byte_of_every_row_in_the_file_is_vouched_for(tmp_path: Path) -> None:
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([*one_of_each()[:5], sized(6, 1_500), sized(7)], at_ms=1_700_000_000_000)
    assert _problems(tmp_path) == ()
    path = tmp_path / "journal.db"
    original = path.read_bytes()
    offsets = list(row_bytes(original, EVENTS_ROOT))
    assert len(offsets) > 2_500
    assert sum(original[offset : offset + 1] == b"x" for offset in offsets) >= 1_500, "overflow included"
    chance = random.Random(3)
    missed = []
    for offset in offsets:
        flipped = original[offset] ^ chance.choice((0x01, 0x10, 0x80, 0xFF))
        _poke(path, offset, flipped)
        if not _problems(tmp_path):
            missed.append((offset, original[offset], flipped))
        _poke(path, offset, original[offset])
    assert missed == []
    assert _problems(tmp_path) == ()


def _poke(path: Path, offset: int, value: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, bytes([value]), offset)
    os.close(descriptor)


values = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=8), st.binary(max_size=40))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.integers(1, 8), column=st.sampled_from(COLUMNS), value=values)
def test_any_other_value_in_any_column_is_found(
    tmp_path: Path, row: int, column: str, value: int | str | bytes
) -> None:
    home = tmp_path / "home"
    shutil.rmtree(home, ignore_errors=True)
    _write(home)
    with contextlib.closing(apsw.Connection(str(home / "journal.db"))) as connection:
        before = list(connection.execute("SELECT * FROM events"))
        with contextlib.suppress(apsw.ConstraintError):  # STRICT refuses other types, the key duplicates
            connection.execute(f"UPDATE events SET {column} = ? WHERE position = ?", (value, row))
        changed = list(connection.execute("SELECT * FROM events")) != before
    problems = _problems(home)
    assert bool(problems) == changed
    if changed and column in {"at_ms", "type", "version", "body"}:
        assert f"row {row}: its bytes are not those that were acknowledged" in problems


def test_columns_of_another_type_are_found(tmp_path: Path) -> None:
    """A table without STRICT would keep '5' beside 5; somebody's tool may have rebuilt it so."""
    _write(tmp_path)
    _edit(
        tmp_path,
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, 'STRICT, ', '')"
        " WHERE name = 'events'; PRAGMA writable_schema=RESET;"
        " UPDATE events SET digest = CAST(digest AS TEXT), version = '1.0x' WHERE position = 3;"
        " PRAGMA writable_schema=ON; UPDATE sqlite_schema"
        " SET sql = replace(sql, 'WITHOUT', 'STRICT, WITHOUT') WHERE name = 'events'",
    )
    assert any("row 3" in problem or "read further" in problem for problem in _problems(tmp_path))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM events WHERE position = 3", "rows 3 to 3: missing"),
        ("DELETE FROM events WHERE position < 3", "rows 1 to 2: missing"),
        ("DELETE FROM events WHERE position = 8", "the last 1 acknowledged events (8 to 8) are missing"),
        ("DELETE FROM events WHERE position > 2", "the last 6 acknowledged events (3 to 8) are missing"),
        ("DELETE FROM events", "the last 8 acknowledged events (1 to 8) are missing"),
        (
            "INSERT INTO events SELECT 0, at_ms, type, version, body, digest FROM events LIMIT 1",
            "row 0: stands",
        ),
        ("INSERT INTO events SELECT 9, at_ms, type, version, body, digest FROM events LIMIT 1", "row 9: its"),
        ("UPDATE events SET position = position + 1 WHERE position = 8", "rows 8 to 8: missing"),
        ("UPDATE events SET position = -position", "row -8: stands where row 1 belongs"),
        ("DELETE FROM kinds", "the list of event kinds"),
        ("DROP TABLE kinds", "were altered"),
        (
            "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events WHERE position = 1; END",
            "were altered",
        ),
    ],
)
def test_rows_removed_added_or_moved_are_found(tmp_path: Path, statement: str, words: str) -> None:
    _write(tmp_path)
    _edit(tmp_path, statement)
    assert any(words in problem for problem in _problems(tmp_path)), _problems(tmp_path)


def test_swapped_rows_are_found(tmp_path: Path) -> None:
    _write(tmp_path)
    for old, new in ((3, 100), (4, 3), (100, 4)):
        _edit(tmp_path, "UPDATE events SET position = ? WHERE position = ?", (new, old))
    assert any("row 3" in problem for problem in _problems(tmp_path))


def test_a_chain_recomputed_after_a_forged_row_still_differs_from_the_anchor(tmp_path: Path) -> None:
    _write(tmp_path)
    with contextlib.closing(apsw.Connection(str(tmp_path / "journal.db"))) as connection:
        rows = list(connection.execute("SELECT * FROM events"))
        digest = bytes(32)
        for position, at_ms, name, version, body, _ in rows:
            forged = body.replace(b'"0"', b'"9"')
            digest = row_digest(digest, (position, at_ms, name, version, forged))
            connection.execute(
                "UPDATE events SET body = ?, digest = ? WHERE position = ?", (forged, digest, position)
            )
    assert _problems(tmp_path) == ("row 8: its digest is not the one in the head anchor",)
    with pytest.raises(JournalCorrupt, match="not the one its anchor is of"):
        SqliteJournal.open(tmp_path)


def _delete_tail(home: Path, _: Path) -> None:
    _edit(home, "DELETE FROM events WHERE position > 5")


def _restore_older(home: Path, older: Path) -> None:
    shutil.copy(older / "journal.db", home / "journal.db")


@pytest.mark.parametrize(("lose", "left"), [(_delete_tail, 5), (_restore_older, 8)])
def test_a_lost_tail_is_found_and_refused(
    tmp_path: Path, lose: Callable[[Path, Path], None], left: int
) -> None:
    home, older = tmp_path / "home", tmp_path / "older"
    _write(home)
    shutil.copytree(home, older)
    _write(home, appends=2)
    lose(home, older)
    words = rf"the last {12 - left} acknowledged events \({left + 1} to 12\) are missing"
    with pytest.raises(JournalCorrupt, match=words):
        SqliteJournal.open(home)
    with contextlib.closing(SqliteJournal.open_reader(home)) as reader:
        verification = reader.verify()
    assert verification.rows == left
    assert len(verification.problems) == 1
    assert "acknowledged events" in verification.problems[0]


def test_a_deleted_write_ahead_log_is_a_lost_tail(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    _write(home)
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        journal.append([sized(1)], at_ms=1)
        copy.mkdir()
        for name in ("journal.db", "journal.anchor"):  # by another process's eyes: no lock of ours is dropped
            os.system(f"cp {home / name} {copy / name}")
    assert any("the last 1 acknowledged events (9 to 9)" in problem for problem in _problems(copy))
    with pytest.raises(JournalCorrupt, match="cut short"):
        SqliteJournal.open(copy)


def test_altered_rows_are_never_served(tmp_path: Path) -> None:
    _write(tmp_path, appends=200)
    _edit(tmp_path, "UPDATE events SET body = CAST(body || ' ' AS BLOB) WHERE position = 6")
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:  # far from the end: opening is quick
        assert [record.position for record in journal.read(limit=5)] == [1, 2, 3, 4, 5]
        with pytest.raises(JournalCorrupt, match="row 6: its bytes"):
            list(journal.read())
        assert journal.verify().problems == ("row 6: its bytes are not those that were acknowledged",)
    _edit(tmp_path, "DELETE FROM events WHERE position BETWEEN 5 AND 7")
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        with pytest.raises(JournalCorrupt, match="missing"):
            list(journal.read())
        with pytest.raises(JournalCorrupt, match=r"row 6 .* is missing"):
            list(journal.read(after=6))
        with pytest.raises(JournalCorrupt, match="missing"):
            list(journal.read(after=4, limit=2))
        with pytest.raises(JournalCorrupt, match="row 6"):
            journal.save_image(6, "build", b"")


def test_an_alteration_near_the_end_is_refused_at_opening(tmp_path: Path) -> None:
    _write(tmp_path)
    _edit(tmp_path, "UPDATE events SET at_ms = at_ms + 1 WHERE position = 7")
    with pytest.raises(JournalCorrupt, match="row 7: its bytes"):
        SqliteJournal.open(tmp_path)


def test_many_problems_are_counted_not_listed(tmp_path: Path) -> None:
    _write(tmp_path, appends=120)
    _edit(tmp_path, "UPDATE events SET at_ms = 0")
    problems = _problems(tmp_path)
    assert len(problems) == 101
    assert problems[-1] == "and 140 more"


def test_any_page_overwritten_is_found_or_holds_no_row(tmp_path: Path) -> None:
    _write(tmp_path, appends=40, size=700)
    path = tmp_path / "journal.db"
    original = path.read_bytes()
    rows = list(row_bytes(original, EVENTS_ROOT))
    for page in range(len(original) // 4096):
        damaged = bytearray(original)
        damaged[page * 4096 : (page + 1) * 4096] = bytes(4096)
        path.write_bytes(damaged)
        holds_rows = any(page == offset // 4096 for offset in rows)
        assert _problems(tmp_path) or not holds_rows, page
