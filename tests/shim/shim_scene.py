"""What tests of real shims share: a driver, an order, a wait, and a control plane that gets killed."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from steersman.dataplane.shim import procs, shim_argv
from steersman.drivers.local import LocalDriver, LocalSettings
from steersman.model.decisions import Placement
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.workload import Job
from steersman.ports.driver import RankKey, RankReport, StartOrder, StopOrder

WAITS_MAX = 300
KEY = RankKey(run=RunId("job.7"), rank=0)
HOME_ID = f"e2e{os.getpid()}"
SOURCE = Path(__file__).resolve().parents[2] / "src"
BOTH_WAYS = pytest.mark.parametrize("options", [(), ("no-cgroup",)], ids=["cgroup", "watchdog"])
"""Limits by control group where this machine lets us, and without."""
LONER = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def argv(*options: str) -> Sequence[str]:
    """The shim's command; through the wrapper when a fault is planted or coverage is measured."""
    wanted = [*options, *(["cover"] if "SHIM_COVERAGE" in os.environ else [])]
    if not wanted:
        return shim_argv(sys.executable)
    return (sys.executable, str(Path(__file__).with_name("shim_under_test.py")), ",".join(wanted))


def local(home: Path, *options: str, **more: object) -> LocalDriver:
    settings = {"environ": os.environ, **more}
    return LocalDriver(LocalSettings(home=home, home_id=HOME_ID, shim_argv=argv(*options), **settings))  # type: ignore[arg-type]  # by name


def order(job: Job, **changes: object) -> StartOrder:
    fields: dict[str, object] = {
        "key": KEY,
        "workload": WorkloadName("job"),
        "generation": 1,
        "lineage": 1,
        "decision": "7.0",
        "epoch": 1,
        "job": job,
        "placement": Placement(rank=0, node=NodeId("n"), cpu_milli=1000, memory_bytes=256 << 20),
        "num_ranks": 1,
        "checkpoint_interval_ms": None,
    }
    return StartOrder(**{**fields, **changes})  # type: ignore[arg-type]  # fields by name


def stop(grace_ms: int) -> StopOrder:
    return StopOrder(key=KEY, epoch=1, grace_ms=grace_ms, cause="preempted")


async def until(driver: LocalDriver, holds: Callable[[RankReport], bool]) -> RankReport:
    for _ in range(WAITS_MAX):
        for report in await driver.observe():
            if holds(report):
                return report
        await driver.wait_changed(100)
    raise AssertionError(f"it never came: {await driver.observe()}")


def exited(report: RankReport) -> bool:
    return report.state == "exited"


def scene(home: Path, test: Callable[[LocalDriver], Awaitable[None]], *options: str, **more: object) -> None:
    """Run a test with a driver and end whatever it leaves."""

    async def whole() -> None:
        driver = local(home, *options, **more)
        try:
            await test(driver)
        finally:
            for report in await driver.observe():
                await driver.stop(StopOrder(key=report.key, epoch=1_000, grace_ms=0, cause="removed"))
                key = report.key
                await until(driver, lambda found, key=key: found.key == key and exited(found))  # type: ignore[misc]  # binds the loop's key
            driver.close()

    asyncio.run(whole())


def run_to_end(home: Path, job: Job, *options: str, **changes: object) -> RankReport:
    reports: list[RankReport] = []

    async def test(driver: LocalDriver) -> None:
        await driver.start(order(job, **changes))
        reports.append(await until(driver, exited))

    scene(home, test, *options)
    return reports[0]


def rank_dir(home: Path) -> Path:
    return home / "runs" / "job.7" / "0"


def output(home: Path) -> str:
    return (rank_dir(home) / "logs" / "out.log").read_text()


def alive(pid: int) -> bool:
    return procs.start_time(pid) is not None


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def control_groups() -> list[str]:
    return [
        str(path)
        for pattern in ("*/steersman.*", "*/*/steersman.*", "*/*/*/steersman.*", "steersman.*")
        for path in Path("/sys/fs/cgroup").glob(pattern)
        if path.name.startswith(f"steersman.{HOME_ID}.")
    ]


def loners(path: Path, count: int = 2) -> str:
    """A script that leaves `count` double-forked, session-leading, signal-proof processes behind."""
    one = f"{sys.executable} -c {shlex.quote(LONER)} {shlex.quote(str(path))}"
    wait = f"while [ $(cat {path} 2>/dev/null | wc -l) -lt {count} ]; do sleep 0.02; done"
    return "\n".join([one] * count + [wait])


STARTER = """
import asyncio, os, signal, sys
from pathlib import Path
from steersman.drivers.local import LocalDriver, LocalSettings
from steersman.model.workload import Job
from steersman.model.decisions import Placement
from steersman.ports.driver import RankKey, StartOrder, StopOrder

home, home_id, script, failpoint, verb = sys.argv[1:6]

def die(name):
    if name == failpoint:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    driver = LocalDriver(LocalSettings(
        home=Path(home), home_id=home_id, shim_argv=sys.argv[6:], environ=os.environ, failpoint=die))
    key = RankKey(run="job.7", rank=0)
    if verb == "start":
        await driver.start(StartOrder(
            key=key, workload="job", generation=1, lineage=1, decision="7.0", epoch=1,
            job=Job(run=script), num_ranks=1,
            placement=Placement(rank=0, node="n", cpu_milli=1000, memory_bytes=256 << 20),
            checkpoint_interval_ms=None, secrets=(("TOKEN", "t" * 100_000),)))
    elif verb == "stop":
        await driver.stop(StopOrder(key=key, epoch=1, grace_ms=0, cause="preempted"))
    else:
        await driver.discard(key)
    print("done", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def killed_control_plane(home: Path, script: str, failpoint: str, verb: str = "start") -> None:
    """A control plane in a process of its own that is killed at the failpoint, or after its order."""
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(home), HOME_ID, script, failpoint, verb, *argv()],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
