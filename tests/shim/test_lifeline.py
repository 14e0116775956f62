"""A rank that hangs on a lifeline ends, tree and all, when nobody holds or feeds the other end."""

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.shim.shim_scene import HOME_ID, LONER, argv

from steersman.dataplane.shim import procs
from steersman.hosting import claim, records
from steersman.hosting.claim import Beginning, Shims
from steersman.ports import run_dir

SECONDS_MAX = 20.0
SILENT_MS = 1_500


class Rank:
    """A rank whose lifeline the test holds."""

    def __init__(self, home: Path, command: str, silent_ms: int, setup: str | None = None) -> None:
        self.folder = claim.rank_dir(home, "job.7", 0)
        for made in ("work", "output", "checkpoints"):
            (home / made).mkdir()
        hears, self.feeds = os.pipe()
        order = {
            "home": str(home),
            "home_id": HOME_ID,
            "rank_dir": str(self.folder),
            "run": "job.7",
            "rank": 0,
            "num_ranks": 1,
            "workload": "job",
            "decision": "7.0",
            "epoch": 1,
            "setup": setup,
            "command": command,
            "envs": [],
            "workdir": str(home / "work"),
            "output_dir": str(home / "output"),
            "checkpoint_dir": str(home / "checkpoints"),
            "checkpoint_keep": 1,
            "checkpoint_interval_ms": None,
            "inputs": [],
            "artifacts": [],
            "cpu_milli": 1000,
            "memory_bytes": 256 << 20,
            "trainer_dir": None,
        }
        beginning = Beginning(1, lambda: order, (), hears, silent_ms)
        claim.begin(Shims(argv(), os.environ), self.folder, beginning)
        os.close(hears)

    def end(self) -> records.Exit | None:
        return records.read(self.folder / run_dir.EXIT, records.Exit)

    def until_end(self, also: Callable[[], None] = lambda: None) -> records.Exit:
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            if found := self.end():
                return found
            also()
            time.sleep(0.05)
        raise AssertionError("it has not ended")


def until_line(path: Path) -> str:
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def test_all_of_it_ends_as_lost_when_its_host_is_gone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    rank = Rank(tmp_path, f"python3 -c {shlex.quote(LONER)} {pids}; sleep 600", 600_000)
    loner = int(until_line(pids))
    os.close(rank.feeds)
    ended = rank.until_end()
    assert (ended.cause, ended.exit_code, ended.signal) == ("lost", None, None)
    assert "is gone" in ended.detail
    assert procs.start_time(loner) is None


def test_it_lives_as_long_as_it_is_fed_and_no_longer(tmp_path: Path) -> None:
    rank = Rank(tmp_path, "sleep 600", SILENT_MS)
    fed_until = time.monotonic() + 3 * SILENT_MS / 1000
    while time.monotonic() < fed_until:
        os.write(rank.feeds, b".")
        assert rank.end() is None
        time.sleep(0.1)
    ended = rank.until_end()
    assert ended.cause == "lost"
    assert "cut off from the cluster for 1 s" in ended.detail
    os.close(rank.feeds)


def test_an_end_of_its_own_is_no_loss(tmp_path: Path) -> None:
    rank = Rank(tmp_path, "exit 0", 600_000)
    ended = rank.until_end()
    os.close(rank.feeds)
    assert (ended.cause, ended.exit_code) == ("exited", 0)


@pytest.mark.parametrize("trapped", ["", "trap 'exit 0' TERM; "])
def test_a_cut_during_setup_begins_no_program(tmp_path: Path, trapped: str) -> None:
    ran = tmp_path / "ran"
    rank = Rank(tmp_path, f"touch {ran}", SILENT_MS, setup=f"{trapped}sleep 600")
    ended = rank.until_end()
    assert ended.cause == "lost"
    assert not ran.exists()
    os.close(rank.feeds)
