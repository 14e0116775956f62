"""The contract of `ports.driver.Driver`, held to by the real driver and by the simulated one alike.

Each program is written twice, as a shell script and as a simulated behaviour, and nothing else differs.
What only real processes can show (double forks, killed shims, secrets) is in tests/shim/test_shim.py.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from steersman.dataplane.shim import shim_argv
from steersman.drivers.local import LocalDriver, LocalSettings
from steersman.model.decisions import Placement
from steersman.model.errors import DriverError
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.workload import Artifact, Job
from steersman.ports.driver import (
    ArtifactReport,
    CheckpointReport,
    Driver,
    RankKey,
    RankReport,
    StartOrder,
    StopOrder,
)
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver

WAITS_MAX = 600
ARMED = """printf '{"step": 1, "metrics": {}}' > "$STEERSMAN_RUN_DIR/progress.json"; """
SAVE = r"""
d="$STEERSMAN_CHECKPOINT_DIR/.new"; mkdir -p "$d"
printf '{"step":1,"at_ms":7,"save_ms":1,"run":"%s","files":{}}' "$STEERSMAN_RUN_ID" > "$d/manifest.json"
mv "$d" "$STEERSMAN_CHECKPOINT_DIR/step-000000000001"
"""
MODEL_DIGEST = "sha256:9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"  # of b"model"

PROGRAMS: dict[str, tuple[Job, Behaviour]] = {
    "good": (Job(run="true"), Behaviour()),
    "exit-3": (Job(run="exit 3"), Behaviour(exit_code=3)),
    "crash": (Job(run="kill -KILL $$"), Behaviour(signal=9)),
    "bad-setup": (Job(setup="exit 4", run="true"), Behaviour(setup_code=4)),
    "slow-setup": (Job(setup="sleep 600", run="true"), Behaviour(setup_ms=600_000)),
    "forever": (Job(run=ARMED + "exec sleep 600"), Behaviour(run_ms=None)),
    "stubborn": (
        Job(run="trap '' TERM; " + ARMED + "while :; do sleep 0.1; done"),
        Behaviour(run_ms=None, ignores_term=True),
    ),
    "yields": (
        Job(run="trap 'exit 75' TERM; " + ARMED + "while :; do sleep 0.05; done"),
        Behaviour(run_ms=None, term_ms=5, term_code=75),
    ),
    "saves": (Job(run=SAVE), Behaviour(run_ms=1_500, checkpoint_ms=1_000)),
    "artifact": (
        Job(
            run='printf model > "$STEERSMAN_OUTPUT_DIR/m.bin"',
            artifacts=(Artifact(name="model", path="m.bin"),),
        ),
        Behaviour(artifacts=(ArtifactReport(name="model", digest=MODEL_DIGEST, size_bytes=5),)),
    ),
}


class World(Protocol):
    """A driver and the passing of time around it."""

    @property
    def driver(self) -> Driver: ...

    async def pass_some_time(self) -> None: ...

    async def close(self) -> None: ...


class SimWorld:
    def __init__(self, _path: Path) -> None:
        self.clock = VirtualClock(start_ms=1_000_000)
        self.driver = SimDriver(self.clock, lambda order: PROGRAMS[order.workload][1])

    async def pass_some_time(self) -> None:
        await self.clock.advance(100)

    async def close(self) -> None:
        assert all(count == 1 for count in self.driver.starts.values())


class LocalWorld:
    def __init__(self, path: Path) -> None:
        self.home = path / "home"
        self.driver = LocalDriver(
            LocalSettings(
                home=self.home,
                home_id=f"t{os.getpid()}",
                shim_argv=shim_argv(sys.executable),
                environ=os.environ,
            )
        )

    async def pass_some_time(self) -> None:
        await self.driver.wait_changed(100)

    async def close(self) -> None:
        for report in await self.driver.observe():
            await self.driver.stop(StopOrder(key=report.key, epoch=1_000, grace_ms=0, cause="removed"))
        await until(self, lambda reports: all(report.state == "exited" for report in reports))
        self.driver.close()


WORLDS: dict[str, Callable[[Path], World]] = {"sim": SimWorld, "local": LocalWorld}


CONTRACT: list[Callable[[World], Awaitable[None]]] = []
"""Every test of the contract, for worlds that take longer to make: tests/ray."""


def contract(test: Callable[[World], Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test in every world."""

    @pytest.mark.parametrize("kind", list(WORLDS))
    def in_world(kind: str, tmp_path: Path) -> None:
        async def whole() -> None:
            world = WORLDS[kind](tmp_path)
            try:
                await test(world)
            finally:
                await world.close()

        asyncio.run(whole())

    in_world.__doc__ = test.__doc__
    CONTRACT.append(test)
    return in_world


def order(program: str, *, position: int = 1, rank: int = 0, epoch: int = 1, ranks: int = 1) -> StartOrder:
    return StartOrder(
        key=RankKey(run=RunId(f"{program}.{position}"), rank=rank),
        workload=WorkloadName(program),
        generation=1,
        lineage=1,
        decision=f"{position}.0",
        epoch=epoch,
        job=PROGRAMS[program][0],
        placement=Placement(rank=rank, node=NodeId("n"), cpu_milli=1000, memory_bytes=256 << 20),
        num_ranks=ranks,
        checkpoint_interval_ms=None,
    )


def stop_of(start: StartOrder, *, grace_ms: int, epoch: int = 1) -> StopOrder:
    return StopOrder(key=start.key, epoch=epoch, grace_ms=grace_ms, cause="preempted")


async def until(world: World, holds: Callable[[Sequence[RankReport]], bool]) -> Sequence[RankReport]:
    for _ in range(WAITS_MAX):
        reports = await world.driver.observe()
        if holds(reports):
            return reports
        await world.pass_some_time()
    raise AssertionError(f"it never came: {reports}")


def _armed(report: RankReport) -> bool:
    return report.limits == "sim" or bool(report.progress)


async def begun(world: World, start: StartOrder) -> RankReport:
    """Start a rank and wait until its program has set up its signal handling."""
    await world.driver.start(start)
    reports = await until(
        world, lambda found: any(r.key == start.key and r.state == "running" and _armed(r) for r in found)
    )
    return next(report for report in reports if report.key == start.key)


async def ended(world: World, key: RankKey) -> RankReport:
    reports = await until(world, lambda found: any(r.key == key and r.state == "exited" for r in found))
    return next(report for report in reports if report.key == key)


@contract
async def test_an_empty_world_reports_nothing(world: World) -> None:
    assert list(await world.driver.observe()) == []
    assert world.driver.name in {"sim", "local", "ray"}


@contract
async def test_exit_code_is_reported_once_and_for_good(world: World) -> None:
    start = order("exit-3")
    await world.driver.start(start)
    report = await ended(world, start.key)
    assert (report.exit_code, report.signal, report.cause) == (3, None, "exited")
    assert (report.decision, report.epoch, report.stop_delivered) == ("1.0", 1, False)
    assert report.started_ms is not None
    assert report.ended_ms is not None
    assert report.ended_ms >= report.started_ms
    assert list(await world.driver.observe()) == [report]


@contract
async def test_a_signal_is_told_from_an_exit_code(world: World) -> None:
    start = order("crash")
    await world.driver.start(start)
    report = await ended(world, start.key)
    assert (report.exit_code, report.signal, report.cause) == (None, 9, "exited")


@contract
async def test_a_failed_setup_is_told_from_a_failed_run(world: World) -> None:
    start = order("bad-setup")
    await world.driver.start(start)
    report = await ended(world, start.key)
    assert (report.exit_code, report.cause) == (4, "setup-failed")


@contract
async def test_setup_is_a_state_and_can_be_stopped(world: World) -> None:
    start = order("slow-setup")
    await world.driver.start(start)
    await until(world, lambda found: [report.state for report in found] == ["setup"])
    await world.driver.stop(stop_of(start, grace_ms=60_000))
    report = await ended(world, start.key)
    assert report.stop_delivered
    assert report.exit_code != 0
    assert report.cause == "exited"


@contract
async def test_starting_again_changes_nothing(world: World) -> None:
    start = order("forever")
    first = await begun(world, start)
    await world.driver.start(start)
    await asyncio.gather(*(world.driver.start(start) for _ in range(4)))
    assert [report.pid for report in await world.driver.observe()] == [first.pid]


@contract
async def test_starting_at_once_starts_one(world: World) -> None:
    start = order("forever")
    await asyncio.gather(*(world.driver.start(start) for _ in range(6)))
    first = await begun(world, start)
    assert [report.pid for report in await world.driver.observe()] == [first.pid]


@contract
async def test_an_ended_key_is_never_started_again(world: World) -> None:
    start = order("good")
    await world.driver.start(start)
    report = await ended(world, start.key)
    await world.driver.start(start)
    assert list(await world.driver.observe()) == [report]
    await world.driver.discard(start.key)
    await world.driver.start(start)
    assert list(await world.driver.observe()) == []


@contract
async def test_stopping_what_is_not_there_does_nothing(world: World) -> None:
    await world.driver.stop(stop_of(order("good"), grace_ms=0))
    await world.driver.set_checkpoint_interval(order("good").key, 1, 1_000)
    await world.driver.discard(order("good").key)
    assert list(await world.driver.observe()) == []


@contract
async def test_stopping_what_has_ended_does_nothing(world: World) -> None:
    start = order("good")
    await world.driver.start(start)
    report = await ended(world, start.key)
    await world.driver.stop(stop_of(start, grace_ms=0))
    assert list(await world.driver.observe()) == [report]
    assert not report.stop_delivered


@contract
async def test_a_program_that_obeys_ends_by_the_signal(world: World) -> None:
    start = order("forever")
    await begun(world, start)
    await world.driver.stop(stop_of(start, grace_ms=60_000))
    report = await ended(world, start.key)
    assert (report.exit_code, report.signal, report.stop_delivered) == (None, 15, True)


@contract
async def test_a_program_that_yields_keeps_its_own_exit_code(world: World) -> None:
    start = order("yields")
    await begun(world, start)
    await world.driver.stop(stop_of(start, grace_ms=60_000))
    report = await ended(world, start.key)
    assert (report.exit_code, report.signal, report.stop_delivered) == (75, None, True)


@contract
async def test_a_stubborn_program_is_killed_after_the_grace(world: World) -> None:
    start = order("stubborn")
    await begun(world, start)
    await world.driver.stop(stop_of(start, grace_ms=300))
    report = await ended(world, start.key)
    assert (report.exit_code, report.signal, report.stop_delivered) == (None, 9, True)


@contract
async def test_a_second_stop_shortens_the_grace(world: World) -> None:
    start = order("stubborn")
    await begun(world, start)
    await world.driver.stop(stop_of(start, grace_ms=3_600_000))
    await world.driver.stop(stop_of(start, grace_ms=100))
    assert (await ended(world, start.key)).signal == 9


@contract
async def test_a_second_stop_cannot_lengthen_the_grace(world: World) -> None:
    start = order("stubborn")
    await begun(world, start)
    await world.driver.stop(stop_of(start, grace_ms=100))
    await world.driver.stop(stop_of(start, grace_ms=3_600_000))
    assert (await ended(world, start.key)).signal == 9


@contract
async def test_an_older_epoch_is_refused_everywhere(world: World) -> None:
    start = order("forever", epoch=5)
    await begun(world, start)
    with pytest.raises(DriverError, match="epoch"):
        await world.driver.start(order("forever", epoch=4))
    with pytest.raises(DriverError, match="epoch"):
        await world.driver.stop(stop_of(start, grace_ms=0, epoch=4))
    with pytest.raises(DriverError, match="epoch"):
        await world.driver.set_checkpoint_interval(start.key, 4, 1_000)
    report = (await world.driver.observe())[0]
    assert (report.state, report.epoch) == ("running", 5)


@contract
async def test_a_newer_epoch_is_taken_and_fences_the_older(world: World) -> None:
    start = order("forever", epoch=5)
    await begun(world, start)
    await world.driver.start(order("forever", epoch=7))
    assert (await world.driver.observe())[0].epoch == 7
    await world.driver.set_checkpoint_interval(start.key, 8, 1_000)
    with pytest.raises(DriverError, match="epoch"):
        await world.driver.stop(stop_of(start, grace_ms=0, epoch=7))
    await world.driver.stop(stop_of(start, grace_ms=60_000, epoch=8))
    assert (await ended(world, start.key)).epoch == 8


@contract
async def test_ranks_of_a_gang_are_reported_in_order(world: World) -> None:
    starts = [order("forever", rank=rank, ranks=3) for rank in (2, 0, 1)]
    await asyncio.gather(*(world.driver.start(start) for start in starts))
    assert [report.key.rank for report in await world.driver.observe()] == [0, 1, 2]


@contract
async def test_only_the_ended_can_be_discarded(world: World) -> None:
    start = order("forever")
    await begun(world, start)
    with pytest.raises(DriverError, match="not ended"):
        await world.driver.discard(start.key)
    await world.driver.stop(stop_of(start, grace_ms=60_000))
    await ended(world, start.key)
    await world.driver.discard(start.key)
    await world.driver.discard(start.key)
    assert list(await world.driver.observe()) == []


@contract
async def test_checkpoints_of_the_run_are_reported(world: World) -> None:
    first, second = order("saves"), order("exit-3", position=2)
    for start in (first, second):
        await world.driver.start(start)
    report, other = await ended(world, first.key), await ended(world, second.key)
    assert [saved.step for saved in report.checkpoints] == [1]
    assert isinstance(report.checkpoints[0], CheckpointReport)
    assert report.checkpoints[0].digest.startswith("sha256:")
    assert other.checkpoints == ()


@contract
async def test_artifacts_are_reported_with_their_digest(world: World) -> None:
    start = order("artifact")
    await world.driver.start(start)
    report = await ended(world, start.key)
    assert report.artifacts == (ArtifactReport(name="model", digest=MODEL_DIGEST, size_bytes=5),)


@contract
async def test_waiting_ends_by_itself_and_by_a_change(world: World) -> None:
    async def waits(timeout_ms: int) -> None:
        waiting = asyncio.ensure_future(world.driver.wait_changed(timeout_ms))
        while not waiting.done():
            if isinstance(world, SimWorld):
                await world.clock.advance(10)
            else:
                await asyncio.sleep(0.01)
        await waiting

    await waits(30)
    start = order("good")
    await world.driver.start(start)
    for _ in range(WAITS_MAX):
        await waits(3_600_000)
        if (await world.driver.observe())[0].state == "exited":
            break
    assert (await world.driver.observe())[0].state == "exited"
