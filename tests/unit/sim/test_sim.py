"""Virtual time and the simulated driver's faults; its contract is in tests/contract/test_driver.py."""

import asyncio

import pytest

from steersman.model.decisions import Placement
from steersman.model.errors import DriverError
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.workload import Job
from steersman.ports.clock import Clock
from steersman.ports.driver import Driver, RankKey, StartOrder, StopOrder
from steersman.sim.clock import VirtualClock
from steersman.sim.driver import Behaviour, SimDriver

KEY = RankKey(run=RunId("a.1"), rank=0)
ORDER = StartOrder(
    key=KEY,
    workload=WorkloadName("a"),
    generation=1,
    lineage=1,
    decision="1.0",
    epoch=1,
    job=Job(run="true"),
    placement=Placement(rank=0, node=NodeId("n"), cpu_milli=1, memory_bytes=1),
    num_ranks=1,
    checkpoint_interval_ms=5,
)


def test_sleepers_wake_in_order_at_their_own_instants() -> None:
    async def whole() -> list[tuple[str, int]]:
        clock: Clock = VirtualClock(100)
        woken: list[tuple[str, int]] = []

        async def sleeper(name: str, naps: list[int]) -> None:
            for nap in naps:
                await clock.sleep_ms(nap)
                woken.append((name, clock.now_ms()))

        tasks = [
            asyncio.ensure_future(sleeper("a", [10, 10, 30])),
            asyncio.ensure_future(sleeper("b", [20, 5])),
            asyncio.ensure_future(sleeper("c", [0, 1_000])),
        ]
        assert isinstance(clock, VirtualClock)
        await clock.advance(60)
        assert clock.now_ms() == 160
        assert clock.next_wake_ms() == 1_100
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert clock.next_wake_ms() is None
        return woken

    assert asyncio.run(whole()) == [
        ("c", 100), ("a", 110), ("b", 120), ("a", 120), ("b", 125), ("a", 150),
    ]  # fmt: skip


def observed(behaviour: Behaviour, *steps: int | str | StopOrder) -> list[tuple[object, ...]]:
    """States seen between steps: a number lets time pass, a word is a fault, an order is a stop."""

    async def whole() -> list[tuple[object, ...]]:
        clock = VirtualClock()
        driver = SimDriver(clock, lambda _order: behaviour)
        checked: Driver = driver
        await checked.start(ORDER)
        seen: list[tuple[object, ...]] = []
        for step in steps:
            if isinstance(step, int):
                await clock.advance(step)
            elif isinstance(step, StopOrder):
                await driver.stop(step)
            else:
                driver.kill(KEY, cause="lost" if step == "lost" else "exited")
            report = (await driver.observe())[0]
            seen.append((report.state, report.exit_code, report.signal, report.cause, report.ended_ms))
        return seen

    return asyncio.run(whole())


def stop(grace_ms: int) -> StopOrder:
    return StopOrder(key=KEY, epoch=1, grace_ms=grace_ms, cause="preempted")


ALIVE = ("running", None, None, "exited", None)


def test_an_end_comes_at_its_instant() -> None:
    seen = observed(Behaviour(run_ms=10, exit_code=2), 9, 1, 100)
    assert seen == [ALIVE, ("exited", 2, None, "exited", 10), ("exited", 2, None, "exited", 10)]


def test_faults_end_it_now() -> None:
    assert observed(Behaviour(run_ms=None), 7, "kill")[-1] == ("exited", None, 9, "exited", 7)
    assert observed(Behaviour(run_ms=None), 7, "lost")[-1] == ("exited", None, None, "lost", 7)
    assert observed(Behaviour(setup_ms=50, setup_code=1), 7, "kill")[-1] == ("exited", None, 9, "exited", 7)
    assert observed(Behaviour(run_ms=1), 7, "kill")[-1] == ("exited", 0, None, "exited", 1)
    assert observed(Behaviour(run_ms=3, cause="start-failed"), 3)[-1] == (
        "exited", None, None, "start-failed", 3,
    )  # fmt: skip
    assert observed(Behaviour(run_ms=3, cause="memory", signal=9), 3)[-1] == ("exited", None, 9, "memory", 3)


def test_a_stop_is_obeyed_ignored_or_overtaken() -> None:
    assert observed(Behaviour(run_ms=None, term_ms=5), stop(50), 5)[-1] == ("exited", None, 15, "exited", 5)
    assert observed(Behaviour(run_ms=None, term_ms=60), stop(50), 50)[-1][2:] == (9, "exited", 50)
    assert observed(Behaviour(run_ms=20, ignores_term=True), stop(50), 50)[-1] == (
        "exited", 0, None, "exited", 20,
    )  # fmt: skip


def test_a_start_can_be_refused_and_tried_again() -> None:
    async def whole() -> None:
        answers = [Behaviour(refuses="no room"), Behaviour()]
        driver = SimDriver(VirtualClock(), lambda _order: answers.pop(0))
        with pytest.raises(DriverError, match="no room"):
            await driver.start(ORDER)
        assert list(await driver.observe()) == []
        await driver.start(ORDER)
        await driver.set_checkpoint_interval(KEY, 1, 9)
        assert driver.checkpoint_interval_ms(KEY) == 9
        assert driver.starts == {KEY: 1}

    asyncio.run(whole())


def test_no_more_than_the_newest_checkpoints_are_reported() -> None:
    async def whole() -> None:
        clock = VirtualClock()
        driver = SimDriver(clock, lambda _order: Behaviour(run_ms=None, setup_ms=5, checkpoint_ms=10))
        await driver.start(ORDER)
        assert (await driver.observe())[0].checkpoints == ()
        await clock.advance(1_005)
        steps = [saved.step for saved in (await driver.observe())[0].checkpoints]
        assert steps == list(range(85, 101))

    asyncio.run(whole())
