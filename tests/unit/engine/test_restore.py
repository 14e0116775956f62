"""Restoring: with an image, without, with a damaged one, with another build's: always the same state."""

import pytest
from tests.unit.engine.rig import (
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

from steersman.decide.cycle import decide
from steersman.engine import engine as module_of_engine
from steersman.engine import restore as module
from steersman.engine.preview import preview
from steersman.engine.restore import replay, restore
from steersman.engine.validate import still_valid
from steersman.model.errors import JournalNewer
from steersman.model.events import Decided, Observed, RemoveRequested, StopRequested
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code
from steersman.ports.journal import Record
from steersman.sim.driver import Behaviour
from steersman.state.image import encode_image


class Images(FailingJournal):
    """A journal that offers one image, whatever it is."""

    def __init__(self, image: tuple[int, bytes] | None) -> None:
        super().__init__()
        self.image = image
        self.read_after: list[int] = []

    def load_image(self, build: str) -> tuple[int, bytes] | None:
        return self.image

    def read(self, after: int = 0, limit: int | None = None):  # type: ignore[no-untyped-def]  # as the base says
        self.read_after.append(after)
        return super().read(after, limit)


def a_life() -> tuple[FailingJournal, bytes]:
    """A journal in which something happened, and the state at its head."""
    kept: list[tuple[FailingJournal, bytes]] = []

    async def life(rig: Rig) -> None:
        rig.behaviour = Behaviour(run_ms=3_000)
        async with running(rig):
            await rig.record(fleet(), declared(workload("a")), declared(workload("b", cpu_milli=2_000)))
            await rig.until(lambda: rig.phase("a") == "succeeded")
        kept.append((rig.journal, encode_image(rig.engine.snapshot)))

    in_rig(life)()
    return kept[0]


@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_without_an_image_everything_is_folded(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLD_EVENTS", batch)
    journal, state = a_life()
    plain = Images(None)
    plain.append(journal.events(), 0)
    assert encode_image(restore(plain, "test")) == state
    assert plain.read_after[-1] == 0


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_with_an_image_only_what_came_after_it_is_folded(cut: int) -> None:
    journal, state = a_life()
    events = journal.events()
    early = FailingJournal()
    early.append(events[:cut], 0)
    with_image = Images((cut, encode_image(restore(early, "test"))))
    with_image.append(events, 0)
    assert encode_image(restore(with_image, "test")) == state
    assert with_image.read_after[-1] == cut


def test_a_damaged_or_foreign_image_is_not_needed() -> None:
    journal, state = a_life()
    for image in (b"", b"no image", state[:-3], state + b"x"):
        damaged = Images((3, image))
        damaged.append(journal.events(), 0)
        assert encode_image(restore(damaged, "test")) == state
    elsewhere = Images((3, state))  # an image of another position than it says
    elsewhere.append(journal.events(), 0)
    assert encode_image(restore(elsewhere, "test")) == state


def test_the_image_of_an_orderly_end_is_used_by_the_same_build_only() -> None:
    journal, state = a_life()
    stored = journal.load_image("test")
    assert stored is not None
    assert stored == (journal.head().position, state)
    assert journal.load_image("another") is None
    assert encode_image(restore(journal, "another")) == state


def test_an_event_from_the_future_is_refused() -> None:
    class Newer(FailingJournal):
        def read(self, after: int = 0, limit: int | None = None):  # type: ignore[no-untyped-def]  # as the base says
            yield Record(position=1, at_ms=0, type="telepathy", version=1, body=b"{}", digest=bytes(32))

    with pytest.raises(JournalNewer):
        restore(Newer(), "test")


@in_rig
async def test_replay_goes_on_from_where_a_snapshot_is(rig: Rig) -> None:
    async with running(rig):
        await rig.record(fleet())
        middle = rig.engine.snapshot
        await rig.record(declared())
    assert encode_image(replay(rig.journal, middle)) == encode_image(rig.engine.snapshot)


@in_rig
async def test_what_is_previewed_is_what_then_happens(rig: Rig) -> None:
    rig.behaviour = Behaviour(run_ms=None)
    async with running(rig):
        await rig.record(fleet(), declared(workload("low", cpu_milli=2_000)))
        head = rig.journal.head().position
        events = [declared(workload("next")), declared(workload("huge", cpu_milli=99_000))]
        after, plan = rig.engine.preview(events)
        assert rig.journal.head().position == head  # nothing was changed by looking
        await rig.record(*events)
        (intent,) = rig.journal.events()[head + 3 : head + 4]
        assert isinstance(intent, Decided)
        assert intent.decisions == plan.decisions
        assert after.workloads["next"].spec == rig.engine.snapshot.workloads["next"].spec
        assert [item.reason.code for item in plan.decisions] == [
            Code.REFUSED_TOO_LARGE,
            Code.ADMITTED,
            Code.NO_CORES,
        ]


@pytest.mark.parametrize(
    "late", [StopRequested(workload=WorkloadName("a")), RemoveRequested(workload=WorkloadName("a"))]
)
def test_a_decision_that_no_longer_holds_is_not_taken(late: StopRequested | RemoveRequested) -> None:
    """The stop arrives when the start has been decided and is not yet recorded."""

    async def whole(rig: Rig) -> None:
        from_decider = decide
        asked: list[object] = []

        def decide_slowly(snapshot, *_):  # type: ignore[no-untyped-def]  # stands in for `decide`
            plan = from_decider(snapshot)
            if any(item.reason.code is Code.PLACED for item in plan.decisions) and not asked:
                asked.append(inject(rig, late))
            return plan

        async with running(rig):
            await rig.record(fleet())
            with replaced(module_of_engine, "decide", decide_slowly):
                await rig.record(declared())
                await rig.until(
                    lambda: "a" not in rig.engine.snapshot.workloads or rig.phase("a") == "stopped"
                )
        assert not rig.driver.starts
        (answer,) = asked
        position = await answer  # type: ignore[misc]  # a future
        assert rig.journal.events()[position - 1] == late
        codes = [item.reason.code for event in rig.of(Decided) for item in event.decisions]
        assert Code.PLACED not in codes
        assert rig.engine.stats().decisions.get("placed") is None

    in_rig(whole)()


@in_rig
async def test_only_the_stale_part_of_a_plan_is_dropped(rig: Rig) -> None:
    async with running(rig):
        await rig.record(fleet())
        before, plan = preview(
            rig.engine.snapshot, [declared(workload("a")), declared(workload("b"))], rig.clock.now_ms()
        )
        assert len(plan.decisions) == 4
        assert still_valid(before, plan.decisions) == plan.decisions
        fresh, _ = preview(before, [StopRequested(workload=WorkloadName("a"))], rig.clock.now_ms())
        assert [item.workload for item in still_valid(fresh, plan.decisions)] == ["b", "b"]
        none, _ = preview(before, [Observed(now_ms=0)], rig.clock.now_ms())
        assert len(still_valid(none, plan.decisions)) == 4
