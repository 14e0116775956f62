"""The shim's cost and its promise: start-up, memory, and the time to end a tree that will not go.

    python -m bench.shim

Times that the machine's load distorts are CPU time; the kill is wall time, for it is a promise in seconds
(grace + 2), and its worst of 20 is given.
"""

import asyncio
import json
import os
import resource
import shlex
import sys
import tempfile
import time
from pathlib import Path

from steersman.dataplane.shim import shim_argv
from steersman.drivers.local import LocalDriver, LocalSettings
from steersman.model.decisions import Placement
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.workload import Job
from steersman.ports.driver import RankKey, StartOrder, StopOrder

STARTS = 20
KILLS = 20
GRACE_MS = 200
ENDED_RANKS = 1_000
LONER = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        time.sleep(600)
open(os.environ["STEERSMAN_RUN_DIR"] + "/armed", "w").close()
time.sleep(600)
"""


def order(run: str, position: int) -> StartOrder:
    return StartOrder(
        key=RankKey(run=RunId(f"bench.{position}"), rank=0),
        workload=WorkloadName("bench"),
        generation=1,
        lineage=1,
        decision=f"{position}.0",
        epoch=1,
        job=Job(run=run),
        placement=Placement(rank=0, node=NodeId("n"), cpu_milli=1000, memory_bytes=512 << 20),
        num_ranks=1,
        checkpoint_interval_ms=None,
    )


async def ended(driver: LocalDriver, key: RankKey) -> None:
    while not any(report.key == key and report.state == "exited" for report in await driver.observe()):
        await driver.wait_changed(1_000)


def cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def spent_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def memory_mb(pid: int) -> tuple[float, float]:
    sizes = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return int(sizes["Rss"].split()[0]) / 1024, int(sizes["Pss"].split()[0]) / 1024


async def measure_starts(driver: LocalDriver, home: Path) -> dict[str, float]:
    """A first process (waited for by us) and the shim (its own account), until the program was begun."""
    walls, shims, children = [], [], spent_ms()
    sizes: list[tuple[float, float]] = []
    for position in range(STARTS):
        start = order("exec sleep 600", position)
        before = time.monotonic()
        await driver.start(start)
        walls.append((time.monotonic() - before) * 1000)
        record = json.loads((home / "runs" / start.key.run / "0" / "started.json").read_bytes())
        shims.append(cpu_ms(record["shim_pid"]))
        sizes.append(memory_mb(record["shim_pid"]))
        await driver.stop(StopOrder(key=start.key, epoch=1, grace_ms=5_000, cause="removed"))
        await ended(driver, start.key)
    first = (spent_ms() - children) / STARTS
    return {
        "start_to_program_cpu_ms": first + sum(shims) / STARTS,
        "start_to_program_wall_ms_median": sorted(walls)[STARTS // 2],
        "shim_rss_mb": max(rss for rss, _ in sizes),
        "shim_pss_mb": max(pss for _, pss in sizes),
    }


async def measure_kills(driver: LocalDriver, home: Path) -> dict[str, float]:
    beyond = []
    for position in range(STARTS, STARTS + KILLS):
        start = order(f"{sys.executable} -c {shlex.quote(LONER)}", position)
        await driver.start(start)
        armed = home / "runs" / start.key.run / "0" / "armed"
        while not armed.exists():  # noqa: ASYNC110 - another process arms itself; a file is its sign
            await asyncio.sleep(0.01)
        before = time.monotonic()
        await driver.stop(StopOrder(key=start.key, epoch=1, grace_ms=GRACE_MS, cause="removed"))
        await ended(driver, start.key)
        beyond.append(time.monotonic() - before - GRACE_MS / 1000)
    return {
        "kill_beyond_grace_s_max": max(beyond),
        "kill_beyond_grace_s_median": sorted(beyond)[KILLS // 2],
    }


async def measure_idle(home: Path) -> dict[str, float]:
    """A home of many ended ranks, as a control plane sees it at its start and from then on."""
    source = home / "runs" / "bench.0" / "0"
    for position in range(1_000, 1_000 + ENDED_RANKS):
        target = home / "runs" / f"bench.{position}" / "0"
        target.mkdir(parents=True)
        for name in ("order.json", "started.json", "exit.json", "epoch.json", "lock"):
            (target / name).write_bytes((source / name).read_bytes())
    driver = LocalDriver(LocalSettings(home=home, home_id="bench", shim_argv=shim_argv(sys.executable)))
    before = time.process_time()
    count = len(await driver.observe())
    first = time.process_time()
    for _ in range(10):
        assert len(await driver.observe()) == count
    return {
        "observe_1000_ended_first_cpu_ms": (first - before) * 1000,
        "observe_1000_ended_again_cpu_ms": (time.process_time() - first) * 100,
    }


async def measure_all(home: Path) -> dict[str, float]:
    driver = LocalDriver(
        LocalSettings(home=home, home_id="bench", shim_argv=shim_argv(sys.executable), environ=os.environ)
    )
    try:
        figures = await measure_starts(driver, home) | await measure_kills(driver, home)
    finally:
        driver.close()
    return figures | await measure_idle(home)


def measure() -> dict[str, float]:
    """All figures by name, units last."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure_all(Path(folder) / "home"))


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:40} {value:10.3f}")
