"""progress.json in virtual time, and the doorbell on a real socket."""

import json
import math
import os
import socket
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman_trainer.doorbell import SUN_PATH_BYTES_MAX, ring
from steersman_trainer.errors import TrainerError
from steersman_trainer.files import replace_durably
from steersman_trainer.progress import METRICS_MAX, Progress


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(folder: Path | None) -> tuple[Progress, Time, list[str]]:
    clock, warnings = Time(), list[str]()
    return Progress(folder, monotonic=clock, warn=warnings.append), clock, warnings


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "progress.json").read_text())
    return found


def test_the_first_report_is_written_and_then_one_a_second(tmp_path: Path) -> None:
    progress, clock, _ = make(tmp_path)
    written = []
    for step in range(1, 31):
        progress.update(step, {"loss": 1 / step})
        written.append(progress.write_if_due())
        clock.now += 0.125
    assert [index for index, was in enumerate(written) if was] == [0, 8, 16, 24]
    assert read(tmp_path)["step"] == 25
    assert progress.write()
    assert read(tmp_path)["step"] == 30
    assert not progress.write(), "nothing is new"
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_the_file_has_what_the_contract_says(tmp_path: Path) -> None:
    progress, _, _ = make(tmp_path)
    progress.update(3, {"loss": 0.5, "accuracy": True, "samples_per_s": Fraction(3, 2)})
    progress.update(4, {"loss": 0.25})
    progress.write()
    found = read(tmp_path)
    assert set(found) == {"step", "at_ms", "metrics", "completed"}
    assert found["metrics"] == {"loss": 0.25, "accuracy": 1.0, "samples_per_s": 1.5}
    assert found["completed"] is False
    progress.complete()
    progress.write()
    assert read(tmp_path)["completed"] is True


@given(st.floats())
def test_what_is_not_finite_takes_the_metric_away(value: float) -> None:
    progress, _, _ = make(None)
    progress.update(1, {"loss": 0.5})
    progress.update(2, {"loss": value})
    assert progress.metrics == ({"loss": value} if math.isfinite(value) else {})


@pytest.mark.parametrize("value", ["x", None, [1.0], object(), 10**400])
def test_what_is_not_a_number_is_refused(value: object) -> None:
    progress, _, _ = make(None)
    with pytest.raises(TrainerError, match="metric 'loss'"):
        progress.update(1, {"loss": value})


def test_too_many_metrics_are_refused() -> None:
    progress, _, _ = make(None)
    progress.update(1, {f"m{index}": 1 for index in range(METRICS_MAX)})
    progress.update(2, {"m0": 2})
    with pytest.raises(TrainerError, match="one too many"):
        progress.update(3, {"other": 1})
    with pytest.raises(TrainerError, match="too long a name"):
        make(None)[0].update(1, {"n" * 65: 1})


def test_a_disk_that_refuses_is_warned_of_once(tmp_path: Path) -> None:
    progress, clock, warnings = make(tmp_path / "absent")
    for step in range(3):
        progress.update(step, {})
        assert not progress.write_if_due()
        clock.now += 2
    assert len(warnings) == 1
    (tmp_path / "absent").mkdir()
    assert progress.write()


def test_without_a_run_folder_nothing_is_written() -> None:
    progress, _, _ = make(None)
    progress.update(1, {"loss": 1.0})
    assert not progress.write_if_due()


def test_a_file_that_cannot_be_replaced_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="target"):
        replace_durably(tmp_path / "target", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def bell_at(path: Path) -> socket.socket:
    """A socket bound at a path of any length."""
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bell.settimeout(10)
    handle = os.open(path.parent, os.O_RDONLY)
    bell.bind(f"/proc/self/fd/{handle}/{path.name}")
    os.close(handle)
    return bell


@pytest.mark.parametrize("depth", [0, 3])
def test_the_doorbell_rings_also_far_away(tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*["deep" * 15] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "doorbell"
    assert (len(str(path)) > SUN_PATH_BYTES_MAX) == (depth > 0)
    with bell_at(path) as bell:
        assert ring(str(path))
        assert len(bell.recv(16)) == 1


def test_a_full_queue_does_not_block(tmp_path: Path) -> None:
    with bell_at(tmp_path / "bell"):
        rings = [ring(str(tmp_path / "bell")) for _ in range(5000)]
    assert rings[0]
    assert not rings[-1]


@pytest.mark.parametrize("path", ["", "/absent/bell", "/etc/passwd", "/" + "x" * 200, "/" + "x/" * 100 + "y"])
def test_nobody_at_home_is_no_error(path: str) -> None:
    assert not ring(path)
