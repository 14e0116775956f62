"""A journal under its own policy is decided again to the byte, and what decides otherwise is found."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.replay.golden.write_golden import GOLDEN

from steersman.decide.cycle import decide
from steersman.journal import MemoryJournal, SqliteJournal
from steersman.model.decisions import Plan
from steersman.model.snapshot import Snapshot
from steersman.sensors.runs import RunSensor
from steersman.sim.replay import journal as replayed
from steersman.sim.replay.journal import Redecided, redecide
from steersman.sim.replay.result import silent
from steersman.sim.storm import storm

WRITER = """
import sys
from pathlib import Path
from steersman.journal import SqliteJournal
from steersman.sensors.runs import RunSensor
from steersman.sim.storm import storm
journal = SqliteJournal.open(Path(sys.argv[1]))
assert storm(int(sys.argv[2]), journal, RunSensor).violations == ()
journal.close()
"""


def again(journal: MemoryJournal | SqliteJournal) -> Redecided:
    return redecide(journal.read(), journal.head().position, silent)


@pytest.mark.parametrize("seed", range(6))
def test_storms_are_decided_again_as_they_were(seed: int) -> None:
    """With faults in them: control planes that died, late events, decisions that no longer held."""
    journal = MemoryJournal()
    storm(seed, journal, RunSensor)
    found = again(journal)
    assert found.differing == 0, found.differences[:1]
    assert (found.differences, found.unknown) == ((), 0)
    assert found.decisions > 10
    assert found.cycles > found.unrecorded


def test_under_another_hash_seed_in_another_process(tmp_path: Path) -> None:
    """Written under one PYTHONHASHSEED, decided again under another: through the command itself."""
    home = tmp_path / "home"
    first = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", WRITER, str(home), "5"], env=first, check=True)
    for seed in ("2", "77"):
        command = [sys.executable, "-m", "steersman.app.cli", "replay", "--journal", str(home), "--json"]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = msgspec.json.decode(done.stdout, type=Redecided)
        assert (found.differing, found.decisions > 10) == (0, True)


def test_a_decider_that_decides_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = MemoryJournal()
    storm(4, journal, RunSensor)
    before = again(journal)

    def forgetful(snapshot: Snapshot, _: object) -> Plan:
        plan = decide(snapshot)
        return msgspec.structs.replace(plan, decisions=plan.decisions[1:])

    monkeypatch.setattr(replayed, "decide", forgetful)
    monkeypatch.setattr(replayed, "DIFFERENCES_MAX", 3)
    found = again(journal)
    assert found.differing > 3 == len(found.differences)
    one = found.differences[0]
    assert all(item in one.recorded[1:] for item in one.decided)
    assert (found.cycles, found.decisions) == (before.cycles, before.decisions)


def test_journals_of_earlier_builds_are_read_and_said_to_be_unknown(tmp_path: Path) -> None:
    for golden in sorted(path.parent for path in GOLDEN.glob("v*/expected.json")):
        home = tmp_path / golden.name
        shutil.copytree(golden, home)  # a reader leaves files beside the journal
        with contextlib.closing(SqliteJournal.open_reader(home)) as reader:
            found = redecide(reader.read(), 0, silent)
        assert found.events > 0
        assert found.unknown > 0
        assert found.cycles == 0


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed, "TELL_EVERY", 10)
    journal, told = MemoryJournal(), list[float]()
    storm(1, journal, RunSensor)
    redecide(journal.read(), journal.head().position, lambda share, _words: told.append(share))
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 1
