"""Journals of every earlier build open, verify and are read to the byte. How to add one: golden/README.md."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.contract.journal_events import sized
from tests.replay.golden.write_golden import GOLDEN, described, write

from steersman.journal import SqliteJournal
from steersman.model.codec import EVENT_VERSIONS, FORMAT_VERSION
from steersman.model.errors import JournalError

GOLDENS = sorted(path.parent for path in GOLDEN.glob("v*/expected.json"))
GOLDEN_BYTES_MAX = 100_000


def _expected(golden: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((golden / "expected.json").read_text())
    return records


def _as_then(now: Any, then: Any) -> Any:
    """What is read today, without the fields that records have gained since (each has a default)."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: _as_then(value, then[key]) for key, value in now.items() if key in then}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [_as_then(*pair) for pair in zip(now, then, strict=True)]
    return now


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_a_golden_journal_opens_verifies_and_reads_as_it_was(golden: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(golden, home)
    expected = _expected(golden)
    with contextlib.closing(SqliteJournal.open_reader(home)) as reader:
        assert reader.verify().problems == ()
    with contextlib.closing(SqliteJournal.open(home)) as journal:
        verification = journal.verify()
        assert verification.problems == ()
        assert verification.rows == len(expected)
        assert journal.head().digest.hex() == expected[-1]["digest"]
        found = [described(record) for record in journal.read()]
        assert [_as_then(now, then) for now, then in zip(found, expected, strict=True)] == expected
        assert journal.append([sized(1)], at_ms=1) == len(expected) + 1, "an old home goes on"
        assert journal.verify().problems == ()


def test_every_kind_of_event_that_is_written_today_is_in_a_golden() -> None:
    kinds = {(row["type"], row["version"]) for golden in GOLDENS for row in _expected(golden)}
    missing = set(EVENT_VERSIONS.items()) - kinds
    assert not missing, "write a new golden: see tests/replay/golden/README.md"


def test_every_format_has_a_golden_and_they_are_small() -> None:
    assert len(GOLDENS) >= FORMAT_VERSION
    for golden in GOLDENS:
        assert (golden / "journal.db").stat().st_size < GOLDEN_BYTES_MAX


def test_a_golden_that_was_altered_is_caught(tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(GOLDENS[0], home)
    path = home / "journal.db"
    data = path.read_bytes()
    body = _expected(GOLDENS[0])[0]["body"].encode()
    assert data.count(body) == 1
    path.write_bytes(data.replace(body, body[:-1] + b"!"))
    with pytest.raises(JournalError):
        SqliteJournal.open(home)


def test_the_writer_writes_a_golden_that_passes(tmp_path: Path) -> None:
    write(tmp_path / "v9")
    rows = _expected(tmp_path / "v9")
    assert {(row["type"], row["version"]) for row in rows} == set(EVENT_VERSIONS.items())
    assert all(json.loads(row["body"]) == row["means"] for row in rows), "written and read by one build"
