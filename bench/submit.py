"""Acknowledged events a second through the whole engine: submit, record, fold, decide, answer.

    python -m bench.submit [--seconds 5] [--writers 64] [--workloads 64] [--folder DIR]

64 writers each hand in one CheckpointSaved of a running job of their own through `Engine.submit` and wait for
the answer before the next. The engine, its decisions and the journal on disk are the real ones; the driver is
simulated, so that the jobs run without processes. What is counted is durable, folded and decided on.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.journal import sync_ms
from steersman.app.clock import SystemClock
from steersman.engine.engine import Engine
from steersman.engine.parts import Parts
from steersman.journal import SqliteJournal
from steersman.model.events import CheckpointSaved, FleetDeclared, WorkloadDeclared
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.resources import Resources
from steersman.model.workload import CheckpointPolicy, Job, Workload
from steersman.sensors.runs import RunSensor
from steersman.sim.driver import Behaviour, SimDriver
from steersman.sim.gateways import SimGateways

WRITERS = 64
WARM_UP_SECONDS = 0.5
START_SECONDS_MAX = 30.0
DIGEST = "sha256:" + "5" * 64


@contextlib.asynccontextmanager
async def _running(journal: SqliteJournal, workloads: int) -> AsyncIterator[Engine]:
    """An engine with that many running jobs."""
    clock = SystemClock()
    driver = SimDriver(clock, lambda _order: Behaviour(run_ms=None))
    engine = Engine(
        Parts(
            journal=journal,
            drivers={driver.name: driver},
            sensors=[RunSensor(driver)],
            clock=clock,
            build="bench",
            boot_id="bench",
            open_secret=lambda name: name,
            artifact_path=Path,
            new_home_id=lambda: "bench",
            gateways=SimGateways(),
        )
    )
    await engine.start()
    running = asyncio.create_task(engine.run())
    node = Node(id=NodeId("n"), driver="sim", cpu_milli=workloads * 1_000, memory_bytes=1 << 40)
    job = Job(run="train", checkpoint=CheckpointPolicy(enabled=True, interval_ms=60_000))
    await engine.submit([FleetDeclared(fleet=Fleet(name="f", nodes=(node,)))])
    await engine.submit(
        [
            WorkloadDeclared(
                workload=Workload(
                    name=WorkloadName(f"job-{number}"), body=job, resources=Resources(cpu_milli=1_000)
                ),
                digest="",
            )
            for number in range(workloads)
        ]
    )
    deadline = time.monotonic() + START_SECONDS_MAX
    while sum(1 for _, run in engine.snapshot.runs.sorted_items() if run.started_ms) < workloads:
        assert time.monotonic() < deadline, "the jobs do not begin"
        await engine.changed(100)
    try:
        yield engine
    finally:
        await engine.close()
        await running


async def _write(engine: Engine, number: int, until: float, counts: list[int]) -> None:
    run = engine.snapshot.workloads[f"job-{number}"].run
    assert run is not None
    step = engine.snapshot.runs[run].saved_step or 0
    while time.perf_counter() < until:
        step += 1
        event = CheckpointSaved(run=run, step=step, at_ms=step, save_ms=30, digest=DIGEST)
        await engine.submit([event])
        counts[number] += 1


async def _measure(folder: Path, seconds: float, writers: int, workloads: int) -> dict[str, float]:
    assert writers <= workloads, "a writer needs a job of its own"
    with contextlib.closing(SqliteJournal.open(folder)) as journal:
        async with _running(journal, workloads) as engine:
            for length in (WARM_UP_SECONDS, seconds):
                counts = [0] * writers
                cycles = engine.stats().cycles
                began, cpu = time.perf_counter(), time.process_time()
                await asyncio.gather(
                    *(_write(engine, number, began + length, counts) for number in range(writers))
                )
            took, used = time.perf_counter() - began, time.process_time() - cpu
            cycles = engine.stats().cycles - cycles
        assert journal.verify().problems == ()
    count = sum(counts)
    return {
        "submit_acked_events_per_s": round(count / took),
        "submit_cpu_us_per_event": round(used / count * 1e6, 1),
        "submit_events_per_cpu_s": round(count / used),
        "submit_events_per_cycle": round(count / cycles, 1),
        "submit_cycle_ms": round(took / cycles * 1e3, 2),
        "submit_cycle_cpu_ms": round(used / cycles * 1e3, 2),
    }


def measure(
    seconds: float = 5.0, writers: int = WRITERS, workloads: int = WRITERS, folder: Path | None = None
) -> dict[str, float]:
    """All figures. `folder` is on the disk to measure; by default the system's temporary folder."""
    with tempfile.TemporaryDirectory(prefix="bench-submit-", dir=folder) as name:
        figures = asyncio.run(_measure(Path(name) / "home", seconds, writers, workloads))
        return {**figures, "submit_disk_sync_ms": round(sync_ms(Path(name)), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--writers", type=int, default=WRITERS)
    parser.add_argument("--workloads", type=int, default=WRITERS)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.seconds, chosen.writers, chosen.workloads, chosen.folder)))


if __name__ == "__main__":
    main()
