"""Control planes and shims killed at every boundary: nothing runs twice, nothing is orphaned or lost."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shim.shim_scene import (
    BOTH_WAYS,
    KEY,
    alive,
    control_groups,
    exited,
    killed_control_plane,
    local,
    loners,
    order,
    output,
    pids_in,
    rank_dir,
    run_to_end,
    scene,
    stop,
    until,
)

from steersman.dataplane.shim import procs
from steersman.drivers.local import LocalDriver
from steersman.hosting.claim import FAILPOINTS
from steersman.model.errors import DriverError
from steersman.model.workload import Job
from steersman.ports.driver import RankReport


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    assert control_groups() == [], "a control group was left behind"


def test_a_run_outlives_its_control_plane_and_is_adopted(home: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    killed_control_plane(home, f"while [ ! -e {go} ]; do sleep 0.05; done; exit 42", "")

    async def test(driver: LocalDriver) -> None:
        assert (await until(driver, lambda _report: True)).state == "running"
        go.touch()
        assert (await until(driver, exited)).exit_code == 42

    scene(home, test)


def test_an_end_that_nobody_saw_is_found(home: Path, tmp_path: Path) -> None:
    killed_control_plane(home, "exit 42", "")
    report: list[RankReport] = []

    async def test(driver: LocalDriver) -> None:
        report.append(await until(driver, exited))

    scene(home, test)
    assert report[0].exit_code == 42


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name.startswith("start:")])
def test_killed_inside_start_exactly_one_program_runs(home: Path, tmp_path: Path, failpoint: str) -> None:
    ran = tmp_path / "ran"
    script = f'echo "${{#TOKEN}}" >> {ran}; exit 5'
    killed_control_plane(home, script, failpoint)

    async def test(driver: LocalDriver) -> None:
        again = order(Job(run=script), epoch=2, secrets=(("TOKEN", "t" * 100_000),))
        await driver.start(again)
        assert (await until(driver, exited)).exit_code == 5

    scene(home, test)
    assert ran.read_text() == "100000\n"


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name.startswith("stop:")])
def test_killed_inside_stop_the_next_stop_ends_it(home: Path, failpoint: str) -> None:
    killed_control_plane(home, "exec sleep 600", "")
    killed_control_plane(home, "", failpoint, "stop")

    async def test(driver: LocalDriver) -> None:
        await driver.stop(stop(0))
        report = await until(driver, exited)
        assert report.exit_code == 143 or report.signal in {9, 15}
        assert report.stop_delivered

    scene(home, test)


@pytest.mark.parametrize("failpoint", [name for name in FAILPOINTS if name.startswith("discard:")])
def test_killed_inside_discard_the_next_one_finishes_it(home: Path, failpoint: str) -> None:
    run_to_end(home, Job(run="echo kept"))
    killed_control_plane(home, "", failpoint, "discard")

    async def test(driver: LocalDriver) -> None:
        await driver.discard(KEY)
        assert list(await driver.observe()) == []

    scene(home, test)
    assert sorted(path.name for path in rank_dir(home).iterdir()) == ["discarded", "logs"]
    assert output(home) == "kept\n"
    assert not (home / "runs" / "job.7" / "output").exists()


def test_a_claim_that_never_began_can_be_stopped_for_good(home: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    killed_control_plane(home, f"touch {ran}", "start:ordered")

    async def test(driver: LocalDriver) -> None:
        assert (await until(driver, lambda _report: True)).state == "starting"
        await driver.stop(stop(0))
        report = await until(driver, exited)
        assert (report.cause, report.stop_delivered) == ("start-failed", True)
        await driver.start(order(Job(run=f"touch {ran}")))
        assert not ran.exists()

    scene(home, test)


@BOTH_WAYS
def test_a_killed_shim_leaves_nothing_and_is_reported_lost(
    home: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    pids = tmp_path / "pids"

    async def test(driver: LocalDriver) -> None:
        await driver.start(order(Job(run=f"{loners(pids)}\nsleep 600")))
        await until(driver, lambda _report: len(pids_in(pids)) == 2)
        started = json.loads((rank_dir(home) / "started.json").read_text())
        os.kill(started["shim_pid"], signal.SIGKILL)
        report = await until(driver, exited)
        assert (report.cause, report.exit_code, report.signal) == ("lost", None, None)
        assert not any(map(alive, [started["pid"], *pids_in(pids)]))
        assert [report] == list(await local(home).observe())

    scene(home, test, *options)


def test_a_shim_killed_before_its_record_has_run_nothing(home: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    job = Job(run=f"echo x >> {ran}")

    async def test(driver: LocalDriver) -> None:
        with pytest.raises(DriverError, match="without an answer"):
            await local(home, "die-before-record").start(order(job))
        assert (await driver.observe())[0].state == "starting"
        await driver.start(order(job))
        assert (await until(driver, exited)).exit_code == 0

    scene(home, test)
    assert ran.read_text() == "x\n"


def test_a_shim_killed_after_its_record_is_lost_and_not_run_again(home: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    job = Job(run=f"echo x >> {ran}")

    async def test(driver: LocalDriver) -> None:
        with pytest.raises(DriverError, match="without an answer"):
            await local(home, "die-after-record").start(order(job))
        await driver.start(order(job))
        assert (await until(driver, exited)).cause == "lost"

    scene(home, test)
    assert not ran.exists()


def test_what_cannot_be_recorded_is_not_run(home: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    async def test(driver: LocalDriver) -> None:
        with pytest.raises(DriverError, match="No space left"):
            await local(home, "no-record").start(order(Job(run=f"touch {ran}")))
        await driver.start(order(Job(run="exit 8")))
        assert (await until(driver, exited)).exit_code == 8

    scene(home, test)
    assert not ran.exists()


def test_a_run_that_cannot_be_recorded_after_its_setup_has_failed_to_start(
    home: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    report = run_to_end(home, Job(setup="true", run=f"touch {ran}"), "no-second-record")
    assert report.cause == "start-failed"
    assert "recorded" in report.detail
    assert not ran.exists()


@pytest.mark.parametrize("forged", ["start", "nonce", "boot", "group"])
def test_a_stranger_with_a_recorded_number_lives(home: Path, tmp_path: Path, forged: str) -> None:
    environ = {**os.environ, "STEERSMAN_RUN_DIR": str(rank_dir(home)), "STEERSMAN_NONCE": "f" * 32}
    stranger = subprocess.Popen(["sleep", "600"], env=environ if forged == "boot" else None)
    try:
        killed_control_plane(home, "true", "start:ordered")
        started = {
            "pid": stranger.pid,
            "pid_start": 1 if forged == "start" else procs.start_time(stranger.pid),
            "boot_id": "another" if forged == "boot" else procs.boot_id(),
            "nonce": "f" * 32,
            "shim_pid": stranger.pid,
            "at_ms": 1,
            "limits": "cgroup-v1",
            "phase": "run",
            "cgroups": ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"] if forged == "group" else [],
        }
        (rank_dir(home) / "started.json").write_text(json.dumps(started))

        async def test(driver: LocalDriver) -> None:
            await driver.start(order(Job(run="true")))
            report = await until(driver, exited)
            assert report.cause == "lost"
            assert ("restarted" in report.detail) == (forged == "boot")

        scene(home, test)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_driver_can_be_closed_after_its_loop_has_ended(home: Path) -> None:
    driver = local(home)
    asyncio.run(driver.wait_changed(1))
    assert (home / "doorbell").is_socket()
    driver.close()
    driver.close()
    assert not (home / "doorbell").exists()
