"""Planted bugs in the engine, the sensor, the deciders and the driver: the storms must find each of them."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from tests.sim.planting import Plant, found

from steersman.decide import fit
from steersman.engine import act, engine
from steersman.engine.engine import Engine
from steersman.engine.orders import Begin, Order, Sweep, after_decisions, sweep
from steersman.model.decisions import Forget, Plan
from steersman.model.errors import JournalWriteError
from steersman.model.events import ControlPlaneStarted, Decided, Event, RankExited
from steersman.model.snapshot import Run, Snapshot
from steersman.ports.driver import RankKey, RankReport, StartOrder
from steersman.sensors import runs
from steersman.sim.driver import SimDriver
from steersman.state import services
from steersman.state.draft import Draft
from steersman.state.fold import fold

HONEST_INTEND = Engine._intend
HONEST_RECORD = Engine._record
HONEST_ENDED = runs._ended
HONEST_START = SimDriver.start
HONEST_PUBLISH = Engine._publish


def no_sweep(*_: object) -> Sweep:
    return Sweep(orders=(), events=())


def no_orders(*_: object) -> list[Order]:
    return []


def sweep_that_begins_nothing(*given: Any) -> Sweep:
    honest = sweep(*given)
    return replace(honest, orders=tuple(order for order in honest.orders if not isinstance(order, Begin)))


def sweep_on_an_old_look(
    _before: Snapshot, snapshot: Snapshot, driver: str, reports: Sequence[RankReport], _: Collection[RankKey]
) -> Sweep:
    return sweep(snapshot, snapshot, driver, reports, ())


async def act_then_record(self: Engine, plan: Plan) -> object:
    if plan.decisions or plan.packing:
        true = self._snapshot
        intent = Decided(observed_at=true.observed_at, decisions=plan.decisions, packing=plan.packing)
        self._snapshot = fold(true, [(true.position + 1, intent)])
        self._actor.hand_over(after_decisions(self._snapshot, plan.decisions))
        for _ in range(8):
            await asyncio.sleep(0)
        self._snapshot = true
    return await HONEST_INTEND(self, plan)


def same_epoch(**fields: Any) -> ControlPlaneStarted:
    return ControlPlaneStarted(**{**fields, "epoch": 1})


def ends_twice(run: Run, report: RankReport) -> Iterator[Event]:
    for event in HONEST_ENDED(run, report):
        yield event
        if isinstance(event, RankExited):
            yield replace(event, exit_code=42, signal=None)


def another_code(run: Run, report: RankReport) -> Iterator[Event]:
    for event in HONEST_ENDED(run, report):
        yield replace(event, exit_code=0, signal=None) if isinstance(event, RankExited) else event


def everything_fits(_cpu: int, _memory: int, _free: object, shape: tuple[int, int, object, int]) -> int:
    return shape[3]


async def acknowledged_unrecorded(self: Engine, events: Sequence[Event]) -> None:
    try:
        await HONEST_RECORD(self, events)
    except JournalWriteError:
        self._snapshot = fold(self._snapshot, enumerate(events, start=self._snapshot.position + 1))


async def nothing_can_be_left(*_: object) -> bool:
    return False


async def start_forgets(self: SimDriver, order: StartOrder) -> None:
    self._ranks.pop(order.key, None)
    await HONEST_START(self, order)


def twice(snapshot: Snapshot, decisions: Sequence[Any]) -> list[Order]:
    return [order for order in after_decisions(snapshot, decisions) for _ in range(2)]


def unchecked(_: Snapshot, decisions: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(decisions)


def nobody_is_missed(*_: object) -> Iterator[Event]:
    return iter(())


async def published_later(self: Engine) -> bool:
    async def later() -> None:
        await asyncio.sleep(0)
        await self._parts.clock.sleep_ms(500)
        await HONEST_PUBLISH(self)

    self._later = asyncio.create_task(later())  # type: ignore[attr-defined]  # kept, or it would be collected
    return True


def forgets_nothing(draft: Draft, decision: Forget) -> bool:
    return draft.services.get(decision.workload) is not None


BUGS: list[tuple[str, int, tuple[Plant, ...], str]] = [
    ("nobody acts", 3, ((engine, "after_decisions", no_orders), (engine, "sweep", no_sweep)), "not calm"),
    ("no sweep", 5, ((engine, "sweep", no_sweep),), "not calm"),
    ("a start lost in a crash stays lost", 24, ((engine, "sweep", sweep_that_begins_nothing),), "not calm"),
    ("an old look proves an absence", 80, ((engine, "sweep", sweep_on_an_old_look),), "no_lost_exits"),
    ("the intent is recorded after the act", 5, ((Engine, "_intend", act_then_record),), "decided_before"),
    ("the epoch is not raised", 5, ((engine, "ControlPlaneStarted", same_epoch),), "epochs_rise"),
    ("an end is recorded twice", 5, ((runs, "_ended", ends_twice),), "ends_agree"),
    ("another exit code is recorded", 5, ((runs, "_ended", another_code),), "no_lost_exits"),
    ("more is leased than there is", 12, ((fit, "ranks_in", everything_fits),), "leases_fit"),
    ("what was not stored is acknowledged", 24, ((Engine, "_record", acknowledged_unrecorded),),
     "decided_before_done"),
    ("a failed start is taken for no start", 40, ((act, "_left_of", nothing_can_be_left),),
     "no_lost_exits|ends_agree"),
    ("begun twice", 5, ((engine, "after_decisions", twice), (SimDriver, "start", start_forgets)),
     "begun_once"),
    ("stale decisions are taken", 60, ((engine, "still_valid", unchecked),),
     "nothing_stale_is_decided"),
    ("what has vanished is waited for", 24, ((runs, "missing", nobody_is_missed),), "not calm|gone"),
    ("the gateway is told too late", 24, ((Engine, "_publish", published_later),), "let_go_before_told"),
    ("an ended service is decided on", 24, ((services, "forget", forgets_nothing),), "not calm"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seeds", "plants", "words"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS]
)
def test_a_planted_bug_is_found(seeds: int, plants: tuple[Plant, ...], words: str) -> None:
    _, first = found(seeds, *plants)
    assert any(word in first for word in words.split("|"))


def test_orders_alone_are_not_needed() -> None:
    """The sweep makes every order that got lost: without any handed over, all still ends well."""
    with pytest.raises(AssertionError, match="3 seeds do not find it"):
        found(3, (engine, "after_decisions", no_orders))
