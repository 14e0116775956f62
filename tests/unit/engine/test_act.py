"""Orders carried out: once, in order, and what failed is told once and tried again."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from tests.unit.engine.rig import Rig, declared, fleet, in_rig, running, workload

from steersman.engine.orders import Begin, Discard, End
from steersman.model.errors import DriverError, NotTakenError, SteersmanError
from steersman.model.events import ActionFailed, RankExited, RankStarted, StopRequested
from steersman.model.ids import RunId, WorkloadName
from steersman.model.workload import Artifact, CheckpointPolicy, Input, SecretRef
from steersman.ports.driver import ArtifactReport, RankKey, RankReport, StartOrder, StopOrder
from steersman.sim.driver import Behaviour

A = WorkloadName("a")


def forever(*, term_ms: int = 0) -> Behaviour:
    return Behaviour(run_ms=None, term_ms=term_ms, term_code=75)


@in_rig
async def test_a_start_order_carries_everything(rig: Rig) -> None:
    rig.behaviour = Behaviour(artifacts=(ArtifactReport(name="m", digest="sha256:1", size_bytes=1),))
    async with running(rig):
        await rig.record(fleet(), declared(workload("a", artifacts=(Artifact(name="m", path="m"),))))
        spec = workload(
            "b",
            ranks=2,
            checkpoint=CheckpointPolicy(enabled=True, interval_ms=5_000),
            inputs=(Input(name="in", workload=A, artifact="m"),),
            secrets=(SecretRef(env="TOKEN", secret="t"),),
        )
        await rig.record(declared(spec))
        await rig.until(lambda: rig.phase("b") == "succeeded")
    first, second = (order for order in rig.orders if order.workload == "b")
    assert (first.key.rank, second.key.rank) == (0, 1)
    assert first.num_ranks == 2
    assert first.checkpoint_interval_ms == 5_000
    assert first.secrets == (("TOKEN", "value of t"),)
    assert first.input_paths == (("in", "/artifacts/sha256:1"),)
    assert first.epoch == 1
    assert first.decision.split(".")[0] == first.key.run.split(".")[1]


@in_rig
async def test_what_could_not_be_started_is_said_with_its_hint(rig: Rig) -> None:
    async def refuse(order: StartOrder) -> None:
        raise DriverError("the workdir is missing", hint="make it")

    rig.driver.start = refuse  # type: ignore[method-assign]  # a fault
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: rig.phase("a") == "failed")
    (exited,) = rig.of(RankExited)
    assert exited.cause == "start-failed"
    assert exited.detail == "the workdir is missing (hint: make it)"


@in_rig
async def test_what_a_place_did_not_take_is_tried_again(rig: Rig) -> None:
    honest, tries = rig.driver.start, 0

    async def refuse_twice(order: StartOrder) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise NotTakenError("the node has left", hint="it is placed anew by itself")
        await honest(order)

    rig.driver.start = refuse_twice  # type: ignore[method-assign]  # a fault
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: rig.phase("a") == "succeeded")
    exits = rig.of(RankExited)
    assert [event.cause for event in exits] == ["not-taken", "not-taken", "exited"]
    assert exits[0].detail == "the node has left (hint: it is placed anew by itself)"


@in_rig
async def test_a_start_whose_answer_was_lost_is_ended_and_its_own_end_is_recorded(rig: Rig) -> None:
    """The program runs although the driver said no: its devices must not be given away while it does."""
    rig.behaviour = forever(term_ms=700)
    honest = rig.driver.start

    async def lost(order: StartOrder) -> None:
        await honest(order)
        raise DriverError("the answer did not come")

    rig.driver.start = lost  # type: ignore[method-assign]  # a fault
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: rig.phase("a") == "failed")
    (exited,) = rig.of(RankExited)
    assert (exited.cause, exited.signal) == ("exited", 9)
    assert [event.detail for event in rig.of(ActionFailed)] == [
        f"Begin {rig.orders[0].key.run}/0: the answer did not come"
    ]
    assert rig.of(RankStarted)


@in_rig
async def test_nothing_is_said_of_a_failed_start_that_nobody_can_look_at(rig: Rig) -> None:
    honest = rig.driver.stop

    async def refuse(order: StartOrder | StopOrder) -> None:
        raise DriverError("no answer at all")

    rig.driver.start, rig.driver.stop = refuse, refuse  # type: ignore[method-assign]  # faults
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.clock.advance(60_000)
        assert rig.phase("a") == "active"
        assert rig.of(RankExited) == []
        assert len(rig.of(ActionFailed)) == 1  # told once, however often it is tried
        rig.driver.stop = honest  # type: ignore[method-assign]  # it heals
        await rig.until(lambda: rig.phase("a") == "failed")


@in_rig
async def test_an_input_that_is_gone_fails_the_start(rig: Rig) -> None:
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: rig.phase("a") == "succeeded")
        run = rig.orders[0].key.run
        state = rig.engine.snapshot.workloads["a"]
        ended = state.last_run
        assert ended is not None
        spec = workload("a", inputs=(Input(name="in", workload=WorkloadName("gone"), artifact="m"),))
        workloads = rig.engine.snapshot.workloads.edit()
        workloads["a"] = replace(state, spec=spec)
        snapshot = replace(rig.engine.snapshot, workloads=workloads.freeze())
        with pytest.raises(SteersmanError, match="the input 'in' is gone"):
            rig.engine._actor._start_order(snapshot, ended, RankKey(run=run, rank=0))


@in_rig
async def test_a_node_of_a_driver_that_is_not_there(rig: Rig) -> None:
    async with running(rig):
        await rig.record(fleet(driver="ray"), declared())
        await rig.until(lambda: rig.phase("a") == "failed")
        assert "no driver 'ray'" in rig.of(RankExited)[0].detail
        rig.engine._actor.hand_over(
            [End(driver="ray", key=RankKey(run=RunId("b.1"), rank=0), grace_ms=0, cause="x")]
        )
        await rig.until(lambda: bool(rig.of(ActionFailed)))
        assert rig.engine.stats().failures == 0


@in_rig
async def test_a_stop_that_does_not_get_through_is_sent_again(rig: Rig) -> None:
    rig.behaviour = forever()
    honest, tries = rig.driver.stop, []

    async def deaf(order: StopOrder) -> None:
        tries.append(order.cause)
        if len(tries) < 4:
            raise DriverError("not now")
        await honest(order)

    rig.driver.stop = deaf  # type: ignore[method-assign]  # a fault
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: bool(rig.of(RankStarted)))
        await rig.record(StopRequested(workload=A))
        await rig.until(lambda: rig.phase("a") == "stopped")
    assert tries == ["stop-requested"] * 4
    assert len(rig.of(ActionFailed)) == 1
    assert rig.of(RankExited)[0].exit_code == 75


@in_rig
async def test_a_stop_that_got_through_is_sent_once(rig: Rig) -> None:
    rig.behaviour = forever(term_ms=900)
    honest, tries = rig.driver.stop, []

    async def counted(order: StopOrder) -> None:
        tries.append(order)
        await honest(order)

    rig.driver.stop = counted  # type: ignore[method-assign]  # counts
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: bool(rig.of(RankStarted)))
        await rig.record(StopRequested(workload=A))
        await rig.until(lambda: rig.phase("a") == "stopped")
    assert len(tries) == 1


@in_rig
async def test_a_bug_in_a_driver_loses_no_order(rig: Rig) -> None:
    """The actor fails as a whole, begins anew, and the sweep brings back what it had taken on."""
    rig.behaviour = forever()
    honest, tries = rig.driver.stop, []

    async def broken(order: StopOrder) -> None:
        tries.append(order)
        if len(tries) == 1:
            raise ZeroDivisionError
        await honest(order)

    rig.driver.stop = broken  # type: ignore[method-assign]  # a planted bug
    async with running(rig):
        await rig.record(fleet(), declared(), declared(workload("b")))
        await rig.until(lambda: len(rig.of(RankStarted)) == 2)
        await rig.record(StopRequested(workload=A), StopRequested(workload=WorkloadName("b")))
        await rig.until(lambda: rig.phase("a") == rig.phase("b") == "stopped")
        assert rig.engine.stats().failures == 1
        assert not rig.engine._actor.busy()


@in_rig
async def test_a_tune_reaches_the_rank(rig: Rig) -> None:
    rig.behaviour = Behaviour(run_ms=60_000, checkpoint_ms=1_000)
    async with running(rig):
        await rig.record(fleet(), declared(workload("a", checkpoint=CheckpointPolicy(enabled=True))))
        await rig.clock.advance(3_000)
        interval_ms = rig.engine.snapshot.runs[rig.orders[0].key.run].interval_ms
        assert interval_ms != rig.orders[0].checkpoint_interval_ms or interval_ms == 10_000
        assert rig.driver.checkpoint_interval_ms(rig.orders[0].key) == interval_ms


@in_rig
async def test_judged_ranks_are_forgotten_and_strays_ended(rig: Rig) -> None:
    rig.behaviour = Behaviour()
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: rig.phase("a") == "succeeded")
        await rig.clock.advance(5_000)
        assert await rig.driver.observe() == []
        rig.behaviour = forever()
        order = rig.orders[0]
        stray = replace(order, key=RankKey(run=RunId("x.1"), rank=0))
        await rig.driver.start(stray)
        await rig.clock.advance(20_000)
        assert await rig.driver.observe() == []


@in_rig
async def test_orders_that_no_longer_apply_do_nothing(rig: Rig) -> None:
    key = RankKey(run=RunId("none.1"), rank=0)
    async with running(rig):
        rig.engine._actor.hand_over([Begin(driver="sim", key=key), Discard(driver="sim", key=key)])
        assert rig.engine._actor.busy() == {key}
        await rig.clock.advance(100)
        assert not rig.engine._actor.busy()
        assert not rig.driver.starts


@in_rig
async def test_what_was_stopped_before_it_began_never_begins(rig: Rig) -> None:
    rig.behaviour = forever()
    held = asyncio.Event()

    def reach(name: str) -> None:
        if name == "after-intent" and not held.is_set() and rig.engine.snapshot.runs.sorted_items():
            held.set()
            rig.engine._actor._queue = asyncio.Queue(1)  # the order is lost, as in a crash
            rig.engine._actor._queue.put_nowait(Discard(driver="sim", key=RankKey(run=RunId("n.1"), rank=0)))
            rig.engine._actor._busy[RankKey(run=RunId("n.1"), rank=0)] = 1

    async def no_look() -> Sequence[RankReport]:
        raise DriverError("blind")

    async with running(rig):
        await rig.record(fleet())
        honest, rig.driver.observe = rig.driver.observe, no_look  # type: ignore[method-assign]  # a fault
        rig.reach = reach
        await rig.record(declared())
        assert held.is_set()
        await rig.record(StopRequested(workload=A))
        rig.driver.observe = honest  # type: ignore[method-assign]  # it heals
        await rig.until(lambda: rig.phase("a") == "stopped")
    assert not rig.driver.starts
    assert rig.of(RankExited)[0].detail == "told to end before it began"


@in_rig
async def test_a_full_queue_drops_and_the_sweep_brings_it_again(rig: Rig) -> None:
    rig.engine._actor._queue = asyncio.Queue(1)
    keys = [RankKey(run=RunId(f"n.{number}"), rank=0) for number in range(3)]
    rig.engine._actor.hand_over([End(driver="sim", key=key, grace_ms=0, cause="x") for key in keys])
    assert rig.engine._actor.busy() == {keys[0]}
    assert rig.engine._actor._told == {keys[0]}
