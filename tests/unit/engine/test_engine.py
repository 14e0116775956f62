"""The loop: answers, failures of the journal, images, the clock, and an orderly and a disorderly end."""

import asyncio
from collections.abc import Sequence
from itertools import groupby

import pytest
from tests.unit.engine.rig import (
    BEGIN_MS,
    FailingJournal,
    Rig,
    declared,
    fleet,
    in_rig,
    inject,
    replaced,
    running,
    workload,
)

from steersman.decide import cycle
from steersman.engine import engine as module
from steersman.engine.supervise import BUGS_MAX
from steersman.model.errors import ConflictError, DriverError, JournalWriteError, SteersmanError
from steersman.model.events import (
    ControlPlaneStarted,
    Decided,
    Event,
    HomeCreated,
    Observed,
    PolicySet,
    RankExited,
    RankStarted,
    StopRequested,
)
from steersman.model.ids import WorkloadName
from steersman.model.policy import Policy
from steersman.model.snapshot import Snapshot
from steersman.model.workload import Retry
from steersman.ports.driver import RankKey, RankReport
from steersman.ports.sensor import Observation
from steersman.sim.driver import Behaviour
from steersman.state import fold as state_fold


def stop(name: str) -> StopRequested:
    return StopRequested(workload=WorkloadName(name))


@in_rig
async def test_a_new_home_and_an_old_one(rig: Rig) -> None:
    async with running(rig):
        first = rig.journal.events()
    assert [type(event) for event in first[:4]] == [HomeCreated, PolicySet, ControlPlaneStarted, Observed]
    rig.engine = rig.make(rig.driver)
    async with running(rig):
        pass
    epochs = [event.epoch for event in rig.of(ControlPlaneStarted)]
    assert epochs == [1, 2]
    assert len(rig.of(HomeCreated)) == len(rig.of(PolicySet)) == 1
    assert rig.of(ControlPlaneStarted)[0].libraries == (("msgspec", "1"),)


@in_rig
async def test_each_cycle_says_by_which_policy_it_decided(rig: Rig) -> None:
    async with running(rig):
        for policy in (Policy(starts_per_cycle=7), Policy()):
            await rig.engine.submit([PolicySet(policy=policy)])
            assert rig.engine.snapshot.policy == policy
    usual, other, again = (digest for digest, _ in groupby(event.policy_digest for event in rig.of(Observed)))
    assert usual == again != other


@in_rig
async def test_an_idle_home_does_nothing(rig: Rig) -> None:
    async with running(rig):
        head = rig.journal.head().position
        await rig.clock.advance(3_600_000)
        assert rig.journal.head().position == head
        assert rig.engine.stats().healthy


@in_rig
async def test_those_who_wait_share_one_append_and_hear_their_own_positions(rig: Rig) -> None:
    async with running(rig):
        rig.journal.appends.clear()
        sizes = [1, 3, 2]
        asked = [
            asyncio.create_task(rig.engine.submit([stop(f"w{n}")] * size)) for n, size in enumerate(sizes)
        ]
        await rig.clock.advance(0)
        positions = [await task for task in asked]
        assert rig.journal.appends == [1 + sum(sizes)]
        events = rig.journal.events()
        for number, (size, position) in enumerate(zip(sizes, positions, strict=True)):
            assert events[position - size : position] == [stop(f"w{number}")] * size
        assert rig.engine.snapshot.position == rig.journal.head().position


@in_rig
async def test_a_full_disk_refuses_and_nothing_is_folded_or_kept(rig: Rig) -> None:
    async with running(rig):
        await rig.record(fleet())
        before = rig.engine.snapshot
        rig.journal.full = True
        with pytest.raises(JournalWriteError):
            await rig.record(declared())
        assert rig.engine.snapshot is before
        assert not rig.engine.stats().healthy
        assert "disk is full" in rig.engine.stats().problem
        rig.journal.full = False
        await rig.record(declared())
        assert rig.engine.stats().healthy
        await rig.until(lambda: rig.phase("a") == "succeeded")


@in_rig
async def test_a_decision_that_could_not_be_recorded_is_not_acted_on_and_is_taken_again(rig: Rig) -> None:
    late: list[asyncio.Future[int]] = []

    def reach(name: str) -> None:
        if name == "before-intent" and not rig.journal.full and not late:
            rig.journal.full = True
        if name == "after-record" and not late and rig.of(StopRequested):
            late.append(inject(rig, stop("a")))

    async with running(rig):
        await rig.record(fleet())
        rig.reach = reach
        await rig.record(declared())
        assert rig.phase("a") == "declared"
        assert not rig.driver.starts
        assert not rig.engine.stats().healthy  # a cycle that lost its intent did not go well
        assert "placed" not in rig.engine.stats().decisions
        rig.journal.full, rig.reach = False, lambda _name: None
        await rig.until(lambda: rig.phase("a") == "succeeded")
        assert rig.engine.stats().healthy


@in_rig
async def test_who_comes_in_while_it_is_decided_is_refused_with_the_intent(rig: Rig) -> None:
    waiting: list[asyncio.Future[int]] = []
    honest = cycle.decide

    def decide(snapshot: Snapshot, *_):  # type: ignore[no-untyped-def]  # stands in for `decide`
        if snapshot.workloads and not waiting:
            waiting.append(inject(rig, stop("nobody")))
            rig.journal.full = True
        return honest(snapshot)

    async with running(rig):
        await rig.record(fleet())
        with replaced(module, "decide", decide):
            await rig.record(declared())
        with pytest.raises(JournalWriteError):
            await waiting[0]
        rig.journal.full = False
        assert rig.of(StopRequested) == []


@pytest.mark.parametrize("where", ["decide", "still_valid"])
def test_a_bug_in_a_cycle_leaves_nobody_waiting_and_the_state_is_the_journals(where: str) -> None:
    async def whole(rig: Rig) -> None:
        waiting: list[asyncio.Future[int]] = []
        honest = cycle.decide

        def decide(snapshot: Snapshot, *_):  # type: ignore[no-untyped-def]  # stands in for `decide`
            if snapshot.workloads and not waiting:
                waiting.append(inject(rig, stop("nobody")))
                if where == "decide":
                    raise ZeroDivisionError
            return honest(snapshot)

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        async with running(rig):
            await rig.record(fleet())
            with replaced(module, "decide", decide):
                if where == "still_valid":
                    with replaced(module, "still_valid", broken):
                        await rig.record(declared())
                else:
                    await rig.record(declared())
            assert not rig.engine.stats().healthy
            await rig.until(lambda: rig.phase("a") == "succeeded")
            assert waiting[0].done()
            if where == "still_valid":  # it was taken, and the cycle failed with it
                assert isinstance(waiting[0].exception(), SteersmanError)
            assert rig.engine.stats().failures == 1

    in_rig(whole)()


@in_rig
async def test_a_fold_that_fails_refuses_who_waits(rig: Rig) -> None:
    honest = state_fold.fold

    def fold(snapshot: Snapshot, events: Sequence[tuple[int, Event]]) -> Snapshot:
        with_stop = list(events)
        if any(isinstance(event, StopRequested) for _, event in with_stop):
            raise AssertionError("planted")
        return honest(snapshot, with_stop)

    async with running(rig):
        with replaced(module, "fold", fold), pytest.raises(SteersmanError, match="journal only"):
            await rig.record(stop("a"))
        await rig.clock.advance(5_000)
        assert rig.of(StopRequested) == [stop("a")]  # as the words say: the journal tells
        assert rig.engine.snapshot.position == rig.journal.head().position
        assert rig.engine.stats().failures == 1


@in_rig
async def test_a_bug_that_stays_ends_the_engine_with_it(rig: Rig) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    with replaced(module, "decide", broken):
        async with running(rig) as task:
            await rig.clock.advance(120_000)
            assert task.done()
            with pytest.raises(ZeroDivisionError):
                await task
    assert rig.engine.stats().failures == BUGS_MAX
    with pytest.raises(ConflictError):
        await rig.engine.submit([stop("a")])


@in_rig
async def test_after_the_end_who_waits_is_refused_and_so_is_who_comes(rig: Rig) -> None:
    async with running(rig):
        waiting = inject(rig, stop("a"))
        rig.engine._inbox._news.clear()
        rig.engine._closing.set()
    assert waiting.done()
    with pytest.raises(ConflictError) as refused:
        await rig.engine.submit([stop("b")])
    assert refused.value.code == "ended"


@in_rig
async def test_a_journal_that_is_down_for_long_does_not_end_the_engine(rig: Rig) -> None:
    """Neither the loop, the sensors nor the actor take a full disk for a bug."""
    rig.behaviour = Behaviour(refuses="no such folder")
    async with running(rig) as task:
        await rig.record(fleet(cpu_milli=64_000))
        for number in range(12):
            await rig.record(declared(workload(f"w{number}", retry=Retry(on_events=("error",)))))
        rig.journal.full = True
        await rig.clock.advance(600_000)
        assert not task.done()
        rig.journal.full, rig.behaviour = False, Behaviour()
        await rig.until(lambda: all(rig.phase(f"w{n}") in {"succeeded", "failed"} for n in range(12)))


@in_rig
async def test_a_blind_sensor_ends_nothing_and_is_asked_again(rig: Rig) -> None:
    rig.behaviour = Behaviour(run_ms=5_000)
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: bool(rig.of(RankStarted)))
        honest = rig.driver.observe

        async def blind() -> Sequence[RankReport]:
            raise DriverError("nothing can be seen")

        rig.driver.observe = blind  # type: ignore[method-assign]  # a fault
        await rig.clock.advance(60_000)
        assert rig.phase("a") == "active"
        assert "runs/sim" in rig.engine.stats().problem
        rig.driver.observe = honest  # type: ignore[method-assign]  # it heals
        await rig.until(lambda: rig.phase("a") == "succeeded")


@in_rig
async def test_images_are_saved_as_the_journal_grows_and_at_the_end(rig: Rig) -> None:
    with replaced(module, "IMAGE_EVENTS", 5):
        async with running(rig):
            for number in range(8):
                await rig.record(stop(f"w{number}"))
            stored = rig.journal.load_image("test")
            assert stored is not None
            assert 5 <= stored[0] <= rig.journal.head().position
            rig.journal.images_full = True
            for number in range(8):
                await rig.record(stop(f"x{number}"))
            assert rig.engine.stats().failures >= 1
            assert rig.engine.stats().healthy  # the next cycle went well: an image is only a cache
            rig.journal.images_full = False
    assert rig.journal.load_image("test") is not None


@in_rig
async def test_an_end_is_not_kept_waiting_by_a_pause(rig: Rig) -> None:
    """The loop has failed and pauses; nothing is under way, so nothing has to be waited for."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with running(rig) as task:
        await rig.record(fleet())
        with replaced(module, "decide", broken):
            await rig.record(declared())
        before_ms = rig.clock.now_ms()
        closing = asyncio.create_task(rig.engine.close())
        await rig.clock.advance(0)
        assert closing.done()
        assert rig.clock.now_ms() == before_ms
        await task


@in_rig
async def test_an_end_on_a_full_disk_is_still_an_orderly_end(rig: Rig) -> None:
    async with running(rig):
        rig.journal.images_full = True
    assert rig.journal.load_image("test") is None


@in_rig
async def test_time_goes_on_from_the_journals_when_the_clock_was_set_back(rig: Rig) -> None:
    """Otherwise a back-off of seconds would last until the clock has caught up: here, a day."""
    rig.behaviour = Behaviour(exit_code=1)
    async with running(rig):
        await rig.record(fleet(), declared(workload(retry=Retry(on_events=("error",), attempts_max=2))))
        await rig.until(lambda: rig.phase("a") == "backoff")
    rig.clock._now_ms -= 86_400_000
    rig.behaviour, rig.engine = Behaviour(), rig.make(rig.driver)
    async with running(rig):
        assert rig.engine.snapshot.now_ms >= BEGIN_MS
        await rig.until(lambda: rig.phase("a") == "succeeded", seconds=60)
    times = [event.now_ms for event in rig.of(Observed)]
    assert times == sorted(times)


@in_rig
async def test_progress_is_kept_in_memory_within_a_limit(rig: Rig) -> None:
    reports = [
        RankReport(
            key=RankKey(run=f"a.{number}", rank=rank),  # type: ignore[arg-type]  # an id by any other name
            epoch=9,
            decision="",
            state="running",
            progress=(("step", float(number)),) if number else (),
        )
        for number in range(4)
        for rank in range(2)
    ]
    with replaced(module, "PROGRESS_RUNS_MAX", 2):
        rig.engine._note_progress(reports)
    known = {number: rig.engine.progress(f"a.{number}") for number in range(4)}  # type: ignore[arg-type]  # the same
    assert known == {0: {}, 1: {}, 2: {"step": 2.0}, 3: {"step": 3.0}}


@in_rig
async def test_at_the_end_nobody_waits_for_a_change(rig: Rig) -> None:
    waiting = asyncio.create_task(rig.engine.changed(60_000))
    await asyncio.sleep(0)
    rig.engine.let_go()
    await waiting
    await rig.engine.changed(60_000)


@in_rig
async def test_changed_returns_at_the_next_fold_or_after_the_timeout(rig: Rig) -> None:
    async with running(rig):
        await rig.engine.changed(1)
        waiting = asyncio.create_task(rig.engine.changed(60_000))
        await rig.record(stop("a"))
        await waiting


@in_rig
async def test_a_sensor_without_objects_only_tells_news(rig: Rig) -> None:
    class Bell:
        name = "bell"

        def __init__(self) -> None:
            self.looks = 0

        async def observe(self, snapshot: Snapshot) -> Observation:
            self.looks += 1
            known = any(isinstance(event, StopRequested) for event in rig.journal.events())
            return Observation(events=() if known else (stop("rung"),))

        async def wait_changed(self, timeout_ms: int) -> None:
            await rig.clock.sleep_ms(timeout_ms)

    bell = Bell()
    rig.engine._parts = type(rig.engine._parts)(
        **{**vars(rig.engine._parts), "sensors": [bell], "drivers": {}}
    )
    async with running(rig):
        await rig.clock.advance(10_000)
    assert bell.looks >= 3
    assert rig.of(StopRequested) == [stop("rung")]


@in_rig
async def test_more_than_one_batch_is_taken_in_turn(rig: Rig) -> None:
    async with running(rig):
        asked = [asyncio.create_task(rig.engine.submit([stop("w")] * 3_000)) for _ in range(3)]
        await rig.clock.advance(0)
        positions = [await task for task in asked]
        assert positions == sorted(positions)
        assert len(rig.of(StopRequested)) == 9_000
        assert max(rig.journal.appends) <= 4_097


@in_rig
async def test_what_runs_is_taken_over_by_the_next_plane(rig: Rig) -> None:
    rig.behaviour = Behaviour(run_ms=30_000)
    async with running(rig):
        await rig.record(fleet(), declared())
        await rig.until(lambda: bool(rig.of(RankStarted)))
    await rig.clock.advance(60_000)  # nobody watches while it ends
    rig.engine = rig.make(rig.driver)
    async with running(rig):
        await rig.until(lambda: rig.phase("a") == "succeeded")
    assert len(rig.of(RankExited)) == 1
    assert list(rig.driver.starts.values()) == [1]
    assert any(isinstance(event, Decided) for event in rig.journal.events())


def test_a_journal_that_cannot_be_written_at_the_start_is_said() -> None:
    async def whole(rig: Rig) -> None:
        rig.journal.full = True
        with pytest.raises(JournalWriteError):
            await rig.engine.start()
        assert isinstance(rig.journal, FailingJournal)
        assert rig.journal.events() == []

    in_rig(whole)()
