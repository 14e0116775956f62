"""A training that is killed, asked to stop, robbed of its disk or of a byte ends as if nothing had happened.

The real example runs in processes of its own, with an environment set by hand and nothing else of Steersman.
For the deaths that must hit every single file operation of a save there is a small script that kills itself
at the n-th one, for every n.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import steersman_trainer
from steersman_trainer.store import problem

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "01-train"
SOURCE = Path(steersman_trainer.__file__).parent.parent
STEPS = 1_500
PROCESS_SECONDS_MAX = 100


def environment(folder: Path, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("STEERSMAN_")}
    (folder / "run").mkdir(exist_ok=True)
    return own | {
        "PYTHONPATH": str(SOURCE),
        "STEPS": str(STEPS),
        "STEERSMAN_RUN_ID": "digits.1",
        "STEERSMAN_RUN_DIR": str(folder / "run"),
        "STEERSMAN_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "STEERSMAN_OUTPUT_DIR": str(folder / "output"),
        "STEERSMAN_CHECKPOINT_INTERVAL_MS": "200",
        **more,
    }


def train(folder: Path, **more: str) -> str:
    """Run the example to its end; what it said."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "train.py")],
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def weights(folder: Path) -> str:
    found: dict[str, str] = json.loads((folder / "output" / "metrics.json").read_text())
    return found["weights_sha256"]


def published(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    train(folder)
    return folder


@pytest.mark.timeout(300)
def test_killed_at_random_instants_it_ends_with_the_same_weights() -> None:
    bench = load_bench()
    found = bench.measure(kills=5, seed=3)
    assert found["identical"] == 1
    assert found["kills"] == 5
    assert found["redone_intervals_max"] <= 1
    assert found["redone_steps_max_with_notice"] == 0
    assert found["damaged_checkpoints"] == 0


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_resume", ROOT / "bench" / "resume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_exported_model_is_as_good_as_the_training_says(calm: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(EXAMPLE / "verify.py"),
            str(calm / "output" / "digits.onnx"),
            str(calm / "output" / "metrics.json"),
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["held_out_accuracy"] >= 0.97
    assert found["labels_agree"]
    progress = json.loads((calm / "run" / "progress.json").read_text())
    assert progress["completed"] is True
    assert progress["step"] == STEPS
    assert set(progress["metrics"]) == {"loss", "accuracy", "samples_per_s", "total_steps"}


def test_a_model_that_is_not_the_trained_one_is_not_accepted(calm: Path, tmp_path: Path) -> None:
    metrics = json.loads((calm / "output" / "metrics.json").read_text())
    metrics["held_out_labels"][0] = (metrics["held_out_labels"][0] + 1) % 10
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    model = str(calm / "output" / "digits.onnx")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "verify.py"), model, str(tmp_path / "metrics.json")],
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS_MAX,
    )
    assert done.returncode == 1
    assert "DISAGREE" in done.stdout


@contextmanager
def begin(folder: Path, until_published: int) -> Iterator[subprocess.Popen[bytes]]:
    """The example, running, when it has saved so many times; ended at the latest when the block is left."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE / "train.py")], env=environment(folder), stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + PROCESS_SECONDS_MAX
        while len(published(folder)) < until_published and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def test_asked_to_stop_it_exits_with_75_and_no_step_is_done_again(calm: Path, tmp_path: Path) -> None:
    with begin(tmp_path, until_published=1) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PROCESS_SECONDS_MAX) == 75
    done = progress_step(tmp_path)
    assert int(published(tmp_path)[-1].name[5:]) == done
    with begin(tmp_path, until_published=2) as process:
        (tmp_path / "run" / "stop.json").write_text('{"cause": "preempted", "grace_ms": 30000, "epoch": 1}')
        assert process.wait(PROCESS_SECONDS_MAX) == 75
    assert progress_step(tmp_path) >= done
    done = progress_step(tmp_path)
    (tmp_path / "run" / "stop.json").unlink()
    assert f"beginning at step {done} of {STEPS}" in train(tmp_path)
    assert weights(tmp_path) == weights(calm)


def progress_step(folder: Path) -> int:
    step: int = json.loads((folder / "run" / "progress.json").read_text())["step"]
    return step


def test_with_a_flipped_byte_in_the_newest_checkpoint_an_older_one_serves(calm: Path, tmp_path: Path) -> None:
    with begin(tmp_path, until_published=2) as process:
        process.kill()
    older, newest = published(tmp_path)[-2:]
    content = bytearray((newest / "model.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "model.npz").write_bytes(content)
    said = train(tmp_path)
    assert f"skipped the damaged checkpoint {newest}" in said
    assert f"beginning at step {int(older.name[5:])} of" in said
    assert weights(tmp_path) == weights(calm)


SMALL = """
import os, resource, signal, sys
from pathlib import Path
import steersman_trainer as steer

kill_at, full_at, forced = (int(os.environ.get(name, "0")) for name in ("KILL_AT", "FULL_AT", "FORCED"))
counting, count = False, 0

def point(event, arguments=()):
    global count
    if counting and event in EVENTS:
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

EVENTS = set("open os.mkdir os.rename os.remove os.rmdir os.listdir os.scandir fsync write".split())
real_fsync = os.fsync
os.fsync = lambda handle: (point("fsync"), real_fsync(handle), point("fsync"))
sys.addaudithook(point)

def load(folder):
    return int((folder / "state").read_text().split()[0])

with steer.start() as run:
    state = run.resume(load) or 1
    print("resumed", run.step, flush=True)
    for step in range(run.step, 8):
        state = state * 6364136223846793005 % 2**64 + step
        print("did", step + 1, flush=True)

        def save(folder):
            with (folder / "state").open("w") as file:
                file.write(str(state) + " " * 5000)
                point("write")
                file.write(" " * 5000)

        if step + 1 == full_at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        if step + 1 == full_at + 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        counting = step + 1 >= 5
        run.checkpoint(step + 1, save, force=bool(forced))
        counting = False
    print("final", state, "points", count, flush=True)
    run.complete()
"""


def small(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SMALL],
        env=environment(folder, STEERSMAN_CHECKPOINT_INTERVAL_MS="0", STEERSMAN_CHECKPOINT_KEEP="2", **more),
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS_MAX,
    )


def last(word: str, output: str) -> int:
    """The number after the last line that begins with a word."""
    return int([line.split()[1] for line in output.splitlines() if line.startswith(word)][-1])


@pytest.mark.timeout(300)
def test_killed_at_every_file_operation_of_a_save_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    calm = small(tmp_path / "calm")
    assert calm.returncode == 0, calm.stderr
    per_save = int(calm.stdout.split()[-1]) // 4
    assert per_save > 20, "the points reach every part of a save"
    left_behind = 0
    for point in range(1, per_save + 2):
        folder = tmp_path / str(point)
        folder.mkdir()
        killed = small(folder, KILL_AT=str(point))
        assert killed.returncode == -9, killed.stderr
        assert published(folder)
        assert [problem(path) for path in published(folder)] == [""] * len(published(folder))
        left_behind += len(list((folder / "checkpoints").glob(".tmp-*")))
        resumed = small(folder)
        assert resumed.returncode == 0, resumed.stderr
        assert last("did", killed.stdout) - last("resumed", resumed.stdout) in {0, 1}
        assert last("final", resumed.stdout) == last("final", calm.stdout)
        assert [path.name[-1] for path in sorted((folder / "checkpoints").iterdir())] == ["7", "8"]
    assert left_behind > 10, "many of the deaths came in the middle of a save"


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(tmp_path: Path) -> None:
    done = small(tmp_path, FULL_AT="5")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training goes on without a new checkpoint") == 2
    assert "File too large" in done.stderr
    assert [path.name[-1] for path in sorted((tmp_path / "checkpoints").iterdir())] == ["7", "8"]


def test_a_full_disk_on_a_forced_save_is_an_error_and_older_ones_stay(tmp_path: Path) -> None:
    done = small(tmp_path, FULL_AT="5", FORCED="1")
    assert done.returncode == 1
    assert "CheckpointError: the checkpoint of step 5 could not be saved" in done.stderr
    assert "hint: free space" in done.stderr
    assert [path.name[-1] for path in sorted((tmp_path / "checkpoints").iterdir())] == ["3", "4"]
    assert [problem(path) for path in published(tmp_path)] == ["", ""]


def test_a_notice_that_is_there_from_the_start_costs_one_step_and_exits_with_75(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stop.json").write_text('{"cause": "preempted", "grace_ms": 1000, "epoch": 1}')
    yielded = small(tmp_path)
    assert yielded.returncode == 75, yielded.stderr
    assert last("did", yielded.stdout) == 1
    assert "yielding after step 1 (preempted)" in yielded.stderr
    (tmp_path / "run" / "stop.json").unlink()
    resumed = small(tmp_path)
    assert resumed.returncode == 0
    assert last("resumed", resumed.stdout) == 1
