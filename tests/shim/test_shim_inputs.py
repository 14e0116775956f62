"""Bad input to the local driver: a clear error, and nothing is lost or left half-done."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shim.shim_scene import (
    HOME_ID,
    control_groups,
    exited,
    local,
    order,
    rank_dir,
    run_to_end,
    scene,
    until,
)

from steersman.drivers.local import LocalDriver, LocalSettings
from steersman.hosting import folders as local_folders
from steersman.model.errors import DriverError
from steersman.model.ids import RunId
from steersman.model.workload import Job
from steersman.ports.driver import RankKey


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    assert control_groups() == [], "a control group was left behind"


@pytest.mark.parametrize("name", ["order.json", "started.json", "exit.json", "epoch.json"])
def test_a_damaged_record_is_unknown_and_ends_nothing(home: Path, name: str) -> None:
    async def test(driver: LocalDriver) -> None:
        await driver.start(order(Job(run="exec sleep 600")))
        path = rank_dir(home) / name
        good = path.read_bytes() if path.exists() else None
        path.write_bytes(b"{\xff")
        report = (await local(home).observe())[0]
        assert report.state == "unknown"
        assert "damaged" in report.detail
        if good is None:
            path.unlink()
        else:
            path.write_bytes(good)
        assert (await driver.observe())[0].state == "running"

    scene(home, test)


def refused(home: Path, job: Job, match: str, **changes: object) -> None:
    async def test(driver: LocalDriver) -> None:
        with pytest.raises(DriverError, match=match) as caught:
            await driver.start(order(job, **changes))
        assert caught.value.message
        assert list(await driver.observe()) == []

    scene(home, test)


def test_a_wrong_workdir_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(home, Job(run="true", workdir=str(tmp_path / "missing")), "not a folder that exists")
    refused(home, Job(run="true", workdir="relative"), "not an absolute path")
    refused(home, Job(run="true", workdir=str(tmp_path)), "contains Steersman's home")
    big = tmp_path / "big"
    big.mkdir()
    (big / "data").write_bytes(b"x" * 1_000)
    monkeypatch.setattr(local_folders, "WORKDIR_BYTES_MAX", 999)
    refused(home, Job(run="true", workdir=str(big)), "larger than")
    assert not any((home / "workdirs").glob("*job-1*partial"))


def test_names_that_are_paths_are_refused(home: Path) -> None:
    for run in ("../x", "a/b", "", "A", "."):
        refused(home, Job(run="true"), "cannot name", key=RankKey(run=RunId(run), rank=0))
    refused(home, Job(run="true"), "cannot name", key=RankKey(run=RunId("a"), rank=-1))


def test_a_home_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def test() -> None:
        with pytest.raises(DriverError) as caught:
            await local(tmp_path / "file" / "home").start(order(Job(run="true")))
        assert caught.value.hint

    asyncio.run(test())


def test_a_shim_that_cannot_start_is_an_error_and_can_be_tried_again(home: Path) -> None:
    async def test(driver: LocalDriver) -> None:
        broken = LocalDriver(
            LocalSettings(home=home, home_id=HOME_ID, shim_argv=(sys.executable, "-c", "raise SystemExit(1)"))
        )
        with pytest.raises(DriverError, match="could not begin"):
            await broken.start(order(Job(run="exit 3")))
        missing = LocalDriver(LocalSettings(home=home, home_id=HOME_ID, shim_argv=("/nonexistent/python",)))
        with pytest.raises(DriverError):
            await missing.start(order(Job(run="exit 3")))
        assert (await driver.observe())[0].state == "starting"
        await driver.start(order(Job(run="exit 3")))
        assert (await until(driver, exited)).exit_code == 3

    scene(home, test)


def test_the_workdir_is_copied_once_without_what_does_not_belong(home: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in (".git", "pkg/__pycache__", "env/bin", "empty"):
        (source / folder).mkdir(parents=True)
    (source / "env" / "pyvenv.cfg").touch()
    (source / "pkg" / "tool.sh").write_text("echo tool\n")
    (source / "pkg" / "tool.sh").chmod(0o755)
    (source / "link").symlink_to("pkg")
    os.mkfifo(source / "pipe")
    report = run_to_end(home, Job(run="./link/tool.sh; echo made > made", workdir=str(source)))
    assert report.exit_code == 0
    copy = home / "workdirs" / "job-1"
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == [
        "empty", "link", "made", "pkg", "pkg/tool.sh",
    ]  # fmt: skip
    (source / "pkg" / "tool.sh").unlink()
    second = RankKey(run=RunId("job.8"), rank=0)
    assert run_to_end(home, Job(run="./pkg/tool.sh && cat made", workdir="/gone"), key=second).exit_code == 0
    assert not (source / "made").exists()
