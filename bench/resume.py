"""Kill the example's training again and again: does it end with the same weights, and what is done twice?

    python bench/resume.py [--kills 50] [--seed 1]

Each life of the training runs examples/01-train/train.py in a process of its own, with the environment a
driver would give it and nothing else of Steersman. It is ended by SIGKILL at a random instant: of its start,
of its steps, or of a save (`AIMS` says how often); and after every fifth kill once by notice (stop.json and
SIGTERM). A new life follows until the training ends by itself; its weights are compared with those of a
training that nobody disturbed.

What each life did is read from a trace that the training's process appends to (the page cache outlives the
process): steps done, saves begun and ended, with monotonic times. A step is done again when the next life
resumes before it. The unit is the interval: the steps that begin within one interval of the last published
save's beginning, so 1.0 is the most a kill may cost.
"""

import argparse
import itertools
import json
import operator
import os
import random
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import steersman_trainer as steer
from steersman_trainer import store
from steersman_trainer.names import EXIT_YIELDED

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "01-train" / "train.py"
INTERVAL_MS = 200
STEPS_PER_KILL = 100
KILLS_PER_NOTICE = 5
AIMS = ("start", *["steps"] * 5, *["save"] * 4)
SAVE_SECONDS = 0.008
LIFE_SECONDS_MAX = 120.0
POLL_SECONDS = 0.001

RECORD = struct.Struct("<cqq")
RESUMED, STEP, SAVING, SAVED = b"r", b"s", b"w", b"d"


class Record(NamedTuple):
    kind: bytes
    step: int
    at_ns: int


class Life(NamedTuple):
    """One process: what it did, and how it was ended (``kill``, ``notice`` or ``end``)."""

    records: list[Record]
    ending: str


def run_traced(trace: Path) -> None:
    """In the training's process: run the example with a trace of its steps and saves."""
    handle = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(kind: bytes, step: int) -> None:
        os.write(handle, RECORD.pack(kind, step, time.monotonic_ns()))

    class TracedRun(steer.Run):
        def resume(self, load: Callable[[Path], steer.run.State]) -> steer.run.State | None:
            state = super().resume(load)
            note(RESUMED, self.step)
            return state

        def checkpoint(
            self,
            step: SupportsIndex,
            write: Callable[[Path], object],
            *,
            force: bool = False,
            stop: bool | None = None,
        ) -> bool:
            done = operator.index(step)

            def traced_write(folder: Path) -> None:
                note(SAVING, done)
                write(folder)

            note(STEP, done)
            published = super().checkpoint(step, traced_write, force=force, stop=stop)
            if published:
                note(SAVED, done)
            return published

    steer.run.Run = TracedRun  # type: ignore[misc]  # start() makes the traced kind in this process
    sys.path.insert(0, str(SCRIPT.parent))
    runpy.run_path(str(SCRIPT), run_name="__main__")


class Trial:
    """One training from its first step to its last, however many lives that takes."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder = folder
        self.lives: list[Life] = []
        self._steps = steps
        self._trace = folder / "trace"
        self._run_dir = folder / "run"
        self._run_dir.mkdir(parents=True)

    def live(self, ending: str, dice: random.Random) -> int:
        """One life; its exit status."""
        self._trace.unlink(missing_ok=True)
        (self._run_dir / "stop.json").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, "--traced", str(self._trace)],
                env=self._environment(),
                stdout=log,
                stderr=log,
            )
            try:
                self._end(process, ending, dice)
                status = process.wait(timeout=LIFE_SECONDS_MAX)
            finally:
                process.kill()
                process.wait()
        assert status in {0, -signal.SIGKILL, EXIT_YIELDED}, f"exit status {status}\n{self._said()}"
        self.lives.append(Life(read_trace(self._trace), ending if status != 0 else "end"))
        return status

    def _said(self) -> str:
        return (self.folder / "log").read_text()

    def damaged(self) -> int:
        """How many published checkpoints are not whole."""
        return sum(1 for path in (self.folder / "checkpoints").glob("step-*") if store.problem(path))

    def weights(self) -> str:
        """The digest of the final weights."""
        found: dict[str, str] = json.loads((self.folder / "output" / "metrics.json").read_text())
        return found["weights_sha256"]

    def _end(self, process: subprocess.Popen[bytes], ending: str, dice: random.Random) -> None:
        if ending == "end":
            return
        aim = dice.choice(AIMS) if ending == "kill" else "steps"
        if aim == "start":
            time.sleep(dice.uniform(0, 1))
        else:
            self._wait_for(process, "the first step", bool)
            time.sleep(dice.uniform(0, 3 * INTERVAL_MS / 1000))
        if aim == "save":
            self._wait_for(process, "a save", lambda records: records[-1].kind == SAVING)
            time.sleep(dice.uniform(0, SAVE_SECONDS))
        if ending == "kill":
            process.kill()
        else:
            (self._run_dir / "stop.json").write_text('{"cause": "preempted", "grace_ms": 30000, "epoch": 1}')
            process.send_signal(signal.SIGTERM)

    def _wait_for(
        self, process: subprocess.Popen[bytes], what: str, seen: Callable[[list[Record]], bool]
    ) -> None:
        deadline = time.monotonic() + LIFE_SECONDS_MAX
        while process.poll() is None and not seen(read_trace(self._trace)):
            assert time.monotonic() < deadline, f"{what} does not come"
            time.sleep(POLL_SECONDS)

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(Path(steer.__file__).parent.parent),
            "STEPS": str(self._steps),
            "STEERSMAN_RUN_ID": "digits.1",
            "STEERSMAN_RUN_DIR": str(self._run_dir),
            "STEERSMAN_CHECKPOINT_DIR": str(self.folder / "checkpoints"),
            "STEERSMAN_OUTPUT_DIR": str(self.folder / "output"),
            "STEERSMAN_CHECKPOINT_INTERVAL_MS": str(INTERVAL_MS),
        }


def read_trace(path: Path) -> list[Record]:
    """The whole records of a trace, oldest first."""
    content = path.read_bytes() if path.exists() else b""
    whole = len(content) - len(content) % RECORD.size
    return [Record(*fields) for fields in RECORD.iter_unpack(content[:whole])]


def cost(life: Life, resumed_at: int) -> tuple[int, float]:
    """Steps that the next life does again, and the same in intervals."""
    steps = [record for record in life.records if record.kind == STEP]
    redone = steps[-1].step - resumed_at if steps else 0
    if redone <= 0:
        return 0, 0.0
    # The interval runs from the beginning of the save resumed from, or of this life if that save is older.
    saves = [record for record in life.records if record.kind == SAVING and record.step == resumed_at]
    since = (saves or life.records)[-1 if saves else 0].at_ns
    limit = since + INTERVAL_MS * 1_000_000
    within = sum(1 for record in steps if record.step > resumed_at and record.at_ns <= limit)
    one_interval = within + 1  # the step in progress when the interval ends is finished before the save
    if redone <= one_interval:
        return redone, min(1.0, (steps[-1].at_ns - since) / (limit - since))
    return redone, redone / one_interval


def costs(trial: Trial, ending: str) -> list[tuple[int, float]]:
    """The cost of every life of a trial that was ended in a way."""
    started = [life for life in trial.lives if life.records]
    return [
        cost(life, following.records[0].step)
        for life, following in itertools.pairwise(started)
        if life.ending == ending
    ]


def disturb(trial: Trial, kills: int, dice: random.Random) -> int:
    """Run a training to its end with up to so many kills; returns how many checkpoints were found damaged."""
    damaged = killed = 0
    while killed < kills:
        if trial.live("kill", dice) == 0:
            return damaged
        damaged += trial.damaged()
        killed += 1
        if killed % KILLS_PER_NOTICE == 0 and trial.live("notice", dice) == 0:
            return damaged
    status = trial.live("end", dice)
    assert status == 0, status
    return damaged


def measure(kills: int = 50, seed: int = 1) -> dict[str, float]:
    """Disturb trainings until they were killed so many times in all; counts and maxima, by name."""
    steps = max(500, STEPS_PER_KILL * kills)
    dice = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="steersman-resume-"))
    try:
        calm = Trial(folder / "calm", steps)
        calm.live("end", dice)
        trials: list[Trial] = []
        damaged = done = 0
        while done < kills:
            trial = Trial(folder / f"trial{len(trials)}", steps)
            trials.append(trial)
            damaged += disturb(trial, kills - done, dice)
            done += sum(1 for life in trial.lives if life.ending == "kill")
        return summary(calm, trials) | {"damaged_checkpoints": damaged}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def summary(calm: Trial, trials: list[Trial]) -> dict[str, float]:
    """What the lives of all trials come to."""
    killed = [life for trial in trials for life in trial.lives if life.ending == "kill"]
    after_kill = [found for trial in trials for found in costs(trial, "kill")]
    after_notice = [found for trial in trials for found in costs(trial, "notice")]
    return {
        "identical": float(all(trial.weights() == calm.weights() for trial in trials)),
        "kills": len(killed),
        "kills_during_save": sum(1 for life in killed if life.records and life.records[-1].kind == SAVING),
        "kills_during_start": sum(1 for life in killed if not life.records),
        "steps": max(record.step for record in calm.lives[0].records),
        "redone_steps_max": max((steps for steps, _ in after_kill), default=0),
        "redone_intervals_max": max((intervals for _, intervals in after_kill), default=0.0),
        "notices": len(after_notice),
        "redone_steps_max_with_notice": max((steps for steps, _ in after_notice), default=0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="kill the example's training and count what is done twice")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--traced", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.traced is not None:
        run_traced(options.traced)
        return 0
    found = measure(options.kills, options.seed)
    for name, value in found.items():
        print(f"{name:32} {value:g}")
    kept = found["identical"] == 1 and found["redone_intervals_max"] <= 1
    return 0 if kept and found["redone_steps_max_with_notice"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
