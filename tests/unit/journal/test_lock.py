"""One control plane per home."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steersman.journal import SqliteJournal, lock
from steersman.model.errors import HomeError, JournalLocked

OWNER = """
import sys
from pathlib import Path
from steersman.journal import SqliteJournal
journal = SqliteJournal.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def _own(home: Path) -> subprocess.Popen[str]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    return owner


def test_a_second_owner_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with _own(tmp_path) as owner:
        with pytest.raises(JournalLocked, match=rf"pid {owner.pid}\b") as caught:
            SqliteJournal.open(tmp_path)
        assert caught.value.code == "home-locked"
        assert caught.value.hint
        owner.send_signal(signal.SIGKILL)
    SqliteJournal.open(tmp_path).close()  # what a dead owner left behind does not block
    assert lock.LOCK_TRIES * lock.LOCK_RETRY_SECONDS < 1


def test_a_second_owner_in_one_process_is_refused_too(tmp_path: Path) -> None:
    with contextlib.closing(SqliteJournal.open(tmp_path)):
        with pytest.raises(JournalLocked, match=rf"pid {os.getpid()}\b"):
            SqliteJournal.open(tmp_path)
        SqliteJournal.open(tmp_path / "another").close()
    SqliteJournal.open(tmp_path).close()


def test_an_owner_that_wrote_no_pid_yet(tmp_path: Path) -> None:
    held = lock.HomeLock.acquire(tmp_path)
    (tmp_path / lock.LOCK_NAME).write_text("")
    with pytest.raises(JournalLocked, match="pid unknown"):
        lock.HomeLock.acquire(tmp_path)
    held.release()
    held.release()
    lock.HomeLock.acquire(tmp_path).release()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="cannot write to the home"):
        lock.HomeLock.acquire(tmp_path / "absent")
