"""What breaks on a cluster, and what becomes of the ranks: nothing twice, nothing lost in silence.

Every program writes the time into a file of this machine again and again, so that two that lived at one time
can be told whatever cluster, driver and host say.
"""

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest
from tests.ray.cluster import RayCluster
from tests.ray.processes import command, tree
from tests.ray.worlds import NAME, RayWorld, run

from steersman.model.decisions import Placement
from steersman.model.errors import DriverError, NotTakenError
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.workload import Job
from steersman.ports import run_dir
from steersman.ports.driver import RankKey, RankReport, StartOrder, StopOrder

LEASE_MS = 6_000
BEATS = """echo "$$" >> {file}.pids; while :; do date +%s.%N >> {file}; sleep 0.1; done"""


def beating(file: Path, node: str, *, run: str = "beat.7", epoch: int = 1) -> StartOrder:
    """A program that tells that it lives."""
    placement = Placement(rank=0, node=NodeId(node), cpu_milli=500, memory_bytes=64 << 20)
    return StartOrder(
        key=RankKey(run=RunId(run), rank=0),
        workload=WorkloadName("beat"),
        generation=1,
        lineage=1,
        decision="7.0",
        epoch=epoch,
        job=Job(run=BEATS.format(file=file)),
        placement=placement,
        num_ranks=1,
        gang=(placement,),
        cluster=NAME,
        checkpoint_interval_ms=None,
    )


def beats(file: Path) -> list[float]:
    return [float(line) for line in file.read_text().split("\n") if line.count(".") == 1 and len(line) > 12]


def lives(file: Path) -> list[int]:
    """The programs that wrote to it and are there."""
    pids = [int(line) for line in Path(f"{file}.pids").read_text().split()]
    return [pid for pid in pids if str(file) in command(pid)]


async def until_beating(world: RayWorld, file: Path) -> None:
    await world.until(lambda found: file.exists() and any(report.state == "running" for report in found))


async def until_lost(world: RayWorld) -> RankReport:
    found = await world.until(lambda reports: any(report.state == "exited" for report in reports))
    (report,) = found
    assert (report.cause, report.exit_code, report.signal) == ("lost", None, None)
    return report


def node_of(world: RayWorld, cluster: RayCluster, number: int) -> str:
    """The name that the cluster's node has in the fleet."""
    address = cluster.nodes[number].address.replace(".", "-")
    return next(name for name in world.nodes if address in name)


def host_pids(cluster: RayCluster, number: int) -> list[int]:
    """The hosts of ranks on a node."""
    root = cluster.nodes[number].process
    return [] if root is None else [pid for pid in tree(root.pid) if "ray::HostActor" in command(pid)]


def test_a_killed_host_takes_its_rank_along(cluster: RayCluster, tmp_path: Path) -> None:
    file = tmp_path / "beats"

    async def test(world: RayWorld) -> None:
        await world.driver.start(beating(file, node_of(world, cluster, 1)))
        await until_beating(world, file)
        for pid in host_pids(cluster, 1):
            os.kill(pid, signal.SIGKILL)
        report = await until_lost(world)
        assert "is gone" in report.detail
        assert lives(file) == []

    run(RayWorld(cluster, tmp_path / "home"), test)


@pytest.mark.slow
def test_a_host_killed_with_its_shim_is_concluded_on_its_node(cluster: RayCluster, tmp_path: Path) -> None:
    file = tmp_path / "beats"

    async def test(world: RayWorld) -> None:
        await world.driver.start(beating(file, node_of(world, cluster, 1)))
        await until_beating(world, file)
        folder = world.home / run_dir.RUNS / "beat.7" / "0"
        started = msgspec.json.decode((folder / run_dir.STARTED).read_bytes())
        for pid in (started["shim_pid"], *host_pids(cluster, 1)):
            os.kill(pid, signal.SIGKILL)
        report = await until_lost(world)
        assert "its processes were ended" in report.detail
        assert lives(file) == []

    run(RayWorld(cluster, tmp_path / "home"), test)


@pytest.mark.slow
def test_a_killed_bridge_is_started_again_and_nothing_ends(cluster: RayCluster, tmp_path: Path) -> None:
    file = tmp_path / "beats"

    async def test(world: RayWorld) -> None:
        await world.driver.start(beating(file, node_of(world, cluster, 1)))
        await until_beating(world, file)
        before = lives(file)
        bridge = world.inner._joined[NAME].bridge
        gone = bridge.pid
        assert gone is not None
        for pid in tree(gone):
            os.kill(pid, signal.SIGKILL)
        await world.until(lambda found: bridge.pid != gone and [each.state for each in found] == ["running"])
        assert lives(file) == before
        await world.driver.stop(
            StopOrder(key=RankKey(run=RunId("beat.7"), rank=0), epoch=1, grace_ms=0, cause="stopped")
        )
        found = await world.until(lambda reports: reports[0].state == "exited")
        assert found[0].cause == "exited"

    run(RayWorld(cluster, tmp_path / "home"), test)


@pytest.mark.slow
def test_another_control_plane_adopts_what_runs(cluster: RayCluster, tmp_path: Path) -> None:
    """The driver goes, its bridge too; the next one of that home finds all, an end of meanwhile too."""
    file = tmp_path / "beats"

    async def begin(world: RayWorld) -> None:
        await world.join()
        await world.driver.start(beating(file, node_of(world, cluster, 1)))
        short = msgspec.structs.replace(
            beating(file, node_of(world, cluster, 2), run="short.8"), job=Job(run="sleep 2; exit 5")
        )
        await world.driver.start(short)
        await until_beating(world, file)
        await world.inner.close()

    first = RayWorld(cluster, tmp_path / "home")
    asyncio.run(begin(first))

    async def test(world: RayWorld) -> None:
        found = await world.until(
            lambda reports: (
                {report.key.run: report.state for report in reports}
                == {"beat.7": "running", "short.8": "exited"}
            )
        )
        assert found[1].exit_code == 5
        assert len(lives(file)) == 1

    run(RayWorld(cluster, tmp_path / "home", first.home_id), test)


def test_a_fence_that_was_made_anew_knows_its_epoch(cluster: RayCluster, tmp_path: Path) -> None:
    file = tmp_path / "beats"

    async def test(world: RayWorld) -> None:
        await world.driver.start(beating(file, node_of(world, cluster, 1), epoch=7))
        await until_beating(world, file)
        for pid in [pid for pid in cluster.head.pids() if "ray::FenceActor" in command(pid)]:
            os.kill(pid, signal.SIGKILL)
        late = beating(file, node_of(world, cluster, 1), run="late.9", epoch=6)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                await world.driver.start(late)
            except DriverError as error:
                if error.code == "driver-fenced":
                    break
        else:
            raise AssertionError("the lower epoch was not refused")
        assert len(lives(file)) == 1

    run(RayWorld(cluster, tmp_path / "home"), test)


def test_a_lost_node_is_told_when_nothing_can_live_there(cluster: RayCluster, tmp_path: Path) -> None:
    file = tmp_path / "beats"

    async def test(world: RayWorld) -> None:
        await world.driver.start(beating(file, node_of(world, cluster, 3)))
        await until_beating(world, file)
        cluster.kill(cluster.nodes[3])
        try:
            report = await until_lost(world)
        finally:
            cluster.start_again(cluster.nodes[3])
        assert "left the cluster" in report.detail
        assert lives(file) == []
        assert beats(file)[-1] * 1000 < (report.ended_ms or 0)

    run(RayWorld(cluster, tmp_path / "home", lease_ms=LEASE_MS), test)


@pytest.mark.slow
def test_a_node_that_vanished_before_the_start_is_told_at_once(cluster: RayCluster, tmp_path: Path) -> None:
    file = tmp_path / "beats"

    async def test(world: RayWorld) -> None:
        order = beating(file, node_of(world, cluster, 3))
        cluster.kill(cluster.nodes[3])  # the cluster has not seen it yet
        try:
            with pytest.raises(NotTakenError) as error:
                await world.driver.start(order)
            assert error.value.code == "node-gone"
            assert error.value.hint
            assert [report.key.run for report in await world.reports()] == []
        finally:
            cluster.start_again(cluster.nodes[3])
        assert not file.exists()

    run(RayWorld(cluster, tmp_path / "home", lease_ms=LEASE_MS), test)


@pytest.mark.parametrize("seconds", [pytest.param(2.0, marks=pytest.mark.slow), 30.0])
def test_a_cut_link_ends_a_rank_after_its_lease_and_no_sooner(
    cluster: RayCluster, tmp_path: Path, seconds: float
) -> None:
    if not cluster.can_cut:
        pytest.skip("network namespaces are not permitted here: no link can be cut")
    file = tmp_path / "beats"

    async def test(world: RayWorld) -> None:
        await world.driver.start(beating(file, node_of(world, cluster, 2)))
        await until_beating(world, file)
        cluster.cut(cluster.nodes[2])
        try:
            if seconds * 1000 < LEASE_MS:
                await asyncio.sleep(seconds)
            else:
                report = await until_lost(world)
                assert lives(file) == []
                assert beats(file)[-1] * 1000 < (report.ended_ms or 0)
                return
        finally:
            cluster.heal(cluster.nodes[2])
            if seconds * 1000 >= LEASE_MS:  # Ray has given it up, and it ends when it hears that
                cluster.kill(cluster.nodes[2])
                cluster.start_again(cluster.nodes[2])
        count = len(beats(file))
        await world.until(lambda found: found[0].state == "running" and len(beats(file)) > count)
        assert len(lives(file)) == 1

    run(RayWorld(cluster, tmp_path / "home", lease_ms=LEASE_MS), test)
