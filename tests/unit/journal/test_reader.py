"""A reader beside a writer in another process, and a writer that is killed."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.journal_events import sized

from steersman.journal import Query, SqliteJournal, matching
from steersman.model.errors import JournalError

WRITER = """
import sys
from pathlib import Path
from steersman.journal import SqliteJournal
from steersman.model.events import ActionFailed
journal = SqliteJournal.open(Path(sys.argv[1]))
journal._writer.pragma("wal_autocheckpoint", 10)
number = journal.head().position
while True:
    events = [ActionFailed(decision=str(number + n), detail="x" * 300) for n in range(number % 3 + 1)]
    number = journal.append(events, at_ms=number)
    print(number, flush=True)
"""


def _start(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(home)], stdout=subprocess.PIPE, text=True)


def _acknowledged(writer: subprocess.Popen[str]) -> int:
    assert writer.stdout is not None
    return int(writer.stdout.readline())


def test_reading_and_verifying_while_another_process_writes(tmp_path: Path) -> None:
    with _start(tmp_path) as writer:
        seen = _acknowledged(writer)
        with contextlib.closing(SqliteJournal.open_reader(tmp_path)) as reader:
            for _ in range(15):
                for _ in range(20):
                    seen = _acknowledged(writer)
                assert reader.verify().problems == ()
                positions = [record.position for record in reader.read()]
                assert positions == list(range(1, len(positions) + 1))
                assert len(positions) >= seen, "what was acknowledged is there to be read"
                assert reader.head().position >= len(positions)
        writer.send_signal(signal.SIGKILL)


def test_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    acknowledged = 0
    for appends in (5, 60, 23):
        with _start(tmp_path) as writer:
            for _ in range(appends):
                acknowledged = _acknowledged(writer)
            writer.send_signal(signal.SIGKILL)
            assert writer.stdout is not None
            lines = writer.stdout.read().split("\n")[:-1]
            acknowledged = int(lines[-1]) if lines else acknowledged
        with contextlib.closing(SqliteJournal.open_reader(tmp_path)) as reader:  # nobody has recovered yet
            assert reader.verify().problems == ()
        with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
            assert journal.head().position >= acknowledged
            assert journal.verify().problems == ()
            decisions = [record.body.split(b'"')[7] for record in journal.read()]
            assert decisions == [str(number).encode() for number in range(len(decisions))]


def test_a_reader_of_a_home_at_rest(tmp_path: Path) -> None:
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([sized(number) for number in range(9)], at_ms=1)
    with contextlib.closing(SqliteJournal.open_reader(tmp_path)) as reader:
        assert [record.position for record in reader.read(after=3, limit=2)] == [4, 5]
        assert [record.position for record in matching(reader, Query(contains='"7"'))] == [8]
        with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:  # a reader does not block a writer
            journal.append([sized(10)], at_ms=2)
        assert reader.head().position == 10
        assert reader.verify().problems == ()
    with pytest.raises(JournalError, match="closed"):
        list(reader.read())


def test_a_reader_shows_only_what_the_anchor_covers(tmp_path: Path) -> None:
    with contextlib.closing(SqliteJournal.open(tmp_path)) as journal:
        journal.append([sized(1)], at_ms=1)
        head = journal.head()
        journal.append([sized(2)], at_ms=2)
        journal._anchor.write(head)  # as between the commit and the anchor
        with contextlib.closing(SqliteJournal.open_reader(tmp_path)) as reader:
            assert [record.position for record in reader.read()] == [1]
            assert reader.verify().problems == ()
