"""A run from the script's side: due or not, notice, failure, ranks, exit; real files, virtual time."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import steersman_trainer as steer
from steersman_trainer.run import Run
from steersman_trainer.settings import Settings


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """A run's folders, its clock, and the runs that live there one after the other."""

    def __init__(self, folder: Path) -> None:
        self.time = Time()
        self.run_dir = folder / "run"
        self.checkpoints = folder / "checkpoints"
        self.run_dir.mkdir()

    def start(self, **changes: Any) -> Run:
        fields: dict[str, Any] = {
            "run_id": "job.1",
            "run_dir": self.run_dir,
            "checkpoint_dir": self.checkpoints,
            "interval_ms": 10_000,
        }
        return Run(Settings(**fields | changes), monotonic=self.time)

    def stop(self, cause: str = "preempted") -> None:
        (self.run_dir / "stop.json").write_text(json.dumps({"cause": cause}))

    def saved(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.checkpoints.glob("step-*"))

    def progress(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_dir / "progress.json").read_text())
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    before = signal.getsignal(signal.SIGTERM)
    yield World(tmp_path)
    signal.signal(signal.SIGTERM, before)


def save(folder: Path) -> None:
    (folder / "state").write_text("state")


def saver(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "state").write_text(text)


def full_disk(folder: Path) -> None:
    (folder / "half").write_text("half")
    raise OSError(errno.ENOSPC, "No space left on device")


def load(folder: Path) -> str:
    return (folder / "state").read_text()


def test_public_names_are_those_of_the_package() -> None:
    assert {name for name in steer.__all__ if not hasattr(steer, name)} == set()
    assert issubclass(steer.CheckpointError, steer.TrainerError)
    assert not issubclass(steer.Yielded, Exception)
    assert str(steer.TrainerError("what")) == "what"


def test_a_checkpoint_is_saved_when_the_interval_has_passed(world: World) -> None:
    with world.start() as run:
        published = []
        for step in range(1, 26):
            world.time.now += 1
            published.append(run.checkpoint(step, save))
    assert [step for step, was in enumerate(published, 1) if was] == [10, 20]
    assert world.saved() == [10, 20]


def test_the_interval_runs_from_the_beginning_of_a_save(world: World) -> None:
    def slow(folder: Path) -> None:
        save(folder)
        world.time.now += 8

    with world.start() as run:
        world.time.now += 10
        assert run.checkpoint(1, slow)
        world.time.now += 1.5
        assert not run.checkpoint(2, slow)
        world.time.now += 0.5
        assert run.checkpoint(3, slow)


def test_an_interval_of_nothing_saves_at_every_call(world: World) -> None:
    with world.start(interval_ms=0, keep=10) as run:
        assert [run.checkpoint(step, save) for step in range(4)] == [True] * 4


def test_the_interval_can_be_changed_from_outside(world: World) -> None:
    with world.start() as run:
        assert run.checkpoint_interval_s == 10
        (world.run_dir / "interval.json").write_text('{"interval_ms": 3000, "epoch": 1}')
        world.time.now += 3
        assert run.checkpoint(1, save)
        assert run.checkpoint_interval_s == 3


def test_a_run_resumes_from_the_newest(world: World) -> None:
    with world.start() as run:
        assert run.resume(load) is None
        assert run.step == 0
        for step in (3, 7):
            run.checkpoint(step, saver(f"after {step}"), force=True)
    with world.start() as run:
        assert run.resume(load) == "after 7"
        assert run.step == 7
        assert run.skipped == ()


def test_a_damaged_one_is_passed_over_and_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with world.start() as run:
        for step in (3, 7):
            run.checkpoint(step, saver(f"after {step}"), force=True)
    (world.checkpoints / "step-000000000007" / "state").write_text("after X")
    with world.start() as run:
        assert run.resume(load) == "after 3"
        assert run.step == 3
        (skipped,) = run.skipped
    assert skipped.path.name == "step-000000000007"
    assert "digest of state" in skipped.reason
    assert "skipped the damaged checkpoint" in capsys.readouterr().err


def test_when_all_are_damaged_the_run_begins_anew_and_says_so(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with world.start() as run:
        run.checkpoint(3, save, force=True)
    (world.checkpoints / "step-000000000003" / "manifest.json").write_text("{")
    with world.start() as run:
        assert run.resume(load) is None
        assert run.step == 0
    assert "beginning anew" in capsys.readouterr().err


def test_an_error_of_load_passes_through_and_does_not_fall_back(world: World) -> None:
    def wrong(folder: Path) -> str:
        raise KeyError(folder.name)

    with world.start() as run:
        for step in (3, 7):
            run.checkpoint(step, save, force=True)
        with pytest.raises(KeyError, match="step-000000000007"):
            run.resume(wrong)


def test_on_notice_the_state_is_saved_and_the_script_ends_with_75(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def script() -> None:
        with world.start() as run:
            run.report(step=1)
            run.checkpoint(1, save)
            world.stop()
            world.time.now += 0.3
            run.report(step=2)
            run.checkpoint(2, save)

    with pytest.raises(SystemExit) as caught:
        script()
    assert isinstance(caught.value, steer.Yielded)
    assert caught.value.code == 75
    assert (caught.value.step, caught.value.cause) == (2, "preempted")
    assert world.saved() == [2]
    assert world.progress()["step"] == 2
    assert world.progress()["completed"] is False
    assert "yielding after step 2 (preempted)" in capsys.readouterr().err


def test_a_notice_that_comes_during_a_save_ends_the_script_after_it(world: World) -> None:
    def write(folder: Path) -> None:
        save(folder)
        world.stop()
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(steer.Yielded) as caught, world.start(interval_ms=0) as run:
        run.checkpoint(5, write)
    assert caught.value.step == 5
    assert world.saved() == [5]


def test_on_notice_a_step_that_is_saved_is_not_saved_again(world: World) -> None:
    with world.start() as run:
        run.checkpoint(4, saver("first"), force=True)
    world.stop()
    with world.start() as run:
        assert run.resume(load) == "first"
        with pytest.raises(steer.Yielded):
            run.checkpoint(4, saver("second"))
    assert load(world.checkpoints / "step-000000000004") == "first"


def test_should_stop_and_notice_tell_the_same(world: World) -> None:
    with world.start() as run:
        assert not run.should_stop()
        assert run.notice is None
        world.stop("stop-requested")
        world.time.now += 1
        assert run.should_stop()
        assert run.notice == "stop-requested"


def test_ranks_can_agree_on_when_to_stop(world: World) -> None:
    world.stop()
    with world.start() as run:
        assert not run.checkpoint(1, save, stop=False)
        with pytest.raises(steer.Yielded):
            run.checkpoint(2, save, stop=True)
    (world.run_dir / "stop.json").unlink()
    with pytest.raises(steer.Yielded) as caught, world.start() as run:
        run.checkpoint(3, save, stop=True)
    assert caught.value.cause == "agreed"
    assert world.saved() == [2, 3]


def test_other_ranks_write_nothing_and_yield_too(world: World) -> None:
    (world.checkpoints / ".tmp-leftover").mkdir(parents=True)
    with world.start(rank=1, num_nodes=2) as run:
        assert (run.rank, run.num_nodes) == (1, 2)
        assert not run.checkpoint(1, save, force=True)
        world.stop()
        world.time.now += 1
        with pytest.raises(steer.Yielded):
            run.checkpoint(2, save)
    assert [path.name for path in world.checkpoints.iterdir()] == [".tmp-leftover"]


def test_a_periodic_save_that_fails_is_told_and_training_goes_on(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with world.start() as run:
        run.checkpoint(1, save, force=True)
        world.time.now += 10
        assert not run.checkpoint(2, full_disk)
        assert not run.checkpoint(3, full_disk), "not again before another interval"
        world.time.now += 10
        assert not run.checkpoint(4, full_disk)
        world.time.now += 10
        assert run.checkpoint(5, save)
    assert world.progress()["metrics"] == {"checkpoint_failures": 2.0}
    assert capsys.readouterr().err.count("training goes on without a new checkpoint") == 2
    assert [path.name for path in sorted(world.checkpoints.iterdir())] == [
        "step-000000000001",
        "step-000000000005",
    ]


def test_a_forced_save_that_fails_is_an_error(world: World) -> None:
    with world.start() as run:
        run.checkpoint(1, save, force=True)
        with pytest.raises(steer.CheckpointError, match="step 2"):
            run.checkpoint(2, full_disk, force=True)
        world.stop()
        world.time.now += 1
        with pytest.raises(steer.CheckpointError, match="step 2"):
            run.checkpoint(2, full_disk)
    assert [path.name for path in world.checkpoints.iterdir()] == ["step-000000000001"]


def test_an_error_of_write_passes_through(world: World) -> None:
    def wrong(folder: Path) -> None:
        raise TypeError

    with world.start(interval_ms=0) as run, pytest.raises(TypeError):
        run.checkpoint(1, wrong)
    assert list(world.checkpoints.iterdir()) == []


@pytest.mark.parametrize("step", [-1, 10**12])
def test_a_step_out_of_range_is_refused(world: World, step: int) -> None:
    with world.start() as run:
        with pytest.raises(steer.TrainerError, match="step"):
            run.checkpoint(step, save)
        with pytest.raises(steer.TrainerError, match="step"):
            run.report(step=step)


def test_a_step_can_be_any_whole_number_and_nothing_else(world: World) -> None:
    class Four:
        def __index__(self) -> int:
            return 4

    with world.start() as run:
        assert run.checkpoint(Four(), save, force=True)
        with pytest.raises(TypeError):
            run.checkpoint(4.0, save)  # type: ignore[arg-type]  # what is tested
    assert world.saved() == [4]


def test_progress_is_rate_limited_and_the_last_one_is_written(world: World) -> None:
    with world.start() as run:
        for step in range(1, 8):
            run.report(step=step, loss=1 / step)
        assert world.progress()["step"] == 1
    assert world.progress()["step"] == 7


def test_completion_is_written_at_once(world: World) -> None:
    with world.start() as run:
        run.report(step=1)
        run.report(step=2)
        run.complete()
        assert world.progress()["completed"] is True
        assert world.progress()["step"] == 2


def test_a_script_that_fails_has_not_completed(world: World) -> None:
    def script() -> None:
        with world.start() as run:
            run.report(step=1)
            run.report(step=2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        script()
    assert world.progress()["step"] == 2
    assert world.progress()["completed"] is False


def test_sigterm_is_given_back_unless_the_run_has_only_to_exit(world: World) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with world.start():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    with world.start() as run:
        run.complete()
    os.kill(os.getpid(), signal.SIGTERM)  # late: it must not turn the exit code into death by a signal


def test_leftovers_of_a_killed_writer_are_removed_at_the_start(world: World) -> None:
    (world.checkpoints / ".tmp-000000000004-1-1").mkdir(parents=True)
    with world.start():
        assert list(world.checkpoints.iterdir()) == []


def test_the_same_script_runs_outside_steersman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("STEERSMAN_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with steer.start() as run:
        assert signal.getsignal(signal.SIGTERM) == before
        assert list(tmp_path.iterdir()) == []
        assert run.resume(load) is None
        assert run.checkpoint_interval_s == 60
        run.report(step=1, loss=0.5)
        monkeypatch.chdir("/")
        assert run.checkpoint(1, save, force=True)
        assert run.checkpoint_dir == tmp_path / "checkpoints"
        assert run.notice is None
        run.complete()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_run_in_another_thread_goes_by_the_file_alone(world: World) -> None:
    ended: list[object] = []

    def script() -> None:
        try:
            with world.start() as run:
                world.stop()
                run.checkpoint(1, save)
        except steer.Yielded as yielded:
            ended.append(yielded.code)

    thread = threading.Thread(target=script)
    thread.start()
    thread.join()
    assert ended == [75]


LATE = """
import os, signal, sys
import steersman_trainer as steer

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)  # while the interpreter takes itself down: Python's own handlers are gone by then

late = Late()
with steer.start() as run:
    if sys.argv[1] == "complete":
        run.complete()
    else:
        run.checkpoint(1, lambda folder: (folder / "state").write_text("x"), stop=True)
"""


@pytest.mark.parametrize(("way", "code"), [("complete", 0), ("yield", 75)])
def test_a_sigterm_while_the_interpreter_exits_does_not_change_the_exit_code(
    tmp_path: Path, way: str, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE, way],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(steer.__file__).parent.parent),
            "STEERSMAN_RUN_DIR": str(tmp_path),
            "STEERSMAN_CHECKPOINT_DIR": str(tmp_path / "checkpoints"),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
