"""The small world in short: all stories of a few letters hold, and bugs planted in the real code are found.

`make small-world` looks further.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from tests.sim import small_world
from tests.sim.planting import CALM_MS_MAX
from tests.sim.small_world import FAULTS, ROOTS, Story, search

from steersman.decide import admit, fit, start
from steersman.decide.cycle import decide
from steersman.engine import act, engine
from steersman.engine.engine import Engine
from steersman.engine.orders import Begin, sweep
from steersman.model.decisions import Finish, Plan, Stop
from steersman.model.errors import DriverError
from steersman.model.events import ControlPlaneStarted, NodeHealth
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import RankEnd, Snapshot, WorkloadState
from steersman.ports.driver import RankReport
from steersman.sensors.runs import RunSensor
from steersman.sim import storm
from steersman.state import apply, fold
from steersman.state.draft import Draft

Patch = pytest.MonkeyPatch
DEPTH = 2
STATES_MIN = 500
DECIDED = {
    "Admit", "Hold", "Start", "Reserve", "Stop", "Requeue", "Finish", "Forget", "SetCheckpointInterval",
}  # fmt: skip
ALL: Story = ("up low", "up gang", "up top")


def test_every_short_story_holds() -> None:
    """All laws in every state, and an end for everybody from every state; and none of it is vacuous."""
    done = search(DEPTH)
    assert done.found is None
    assert done.whole == DEPTH
    assert done.states >= STATES_MIN
    assert set(done.decided) == DECIDED
    assert {letter.split()[0] for letter in done.faults} == set(FAULTS)


def test_the_command_says_what_it_looked_at_and_what_it_did_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert small_world.main(["--depth", "0"]) == 0
    assert "3 states by 3 stories; everything up to 0 letters" in capsys.readouterr().out
    assert small_world.main(["--depth", "1", "--seconds", "0"]) == 2
    assert "hint: --seconds" in capsys.readouterr().out


def _starts_half_a_gang(patch: Patch) -> None:
    real = fit.placements
    patch.setattr(start, "placements", lambda *given: real(*given)[:1])


def _takes_a_stop_for_an_end(patch: Patch) -> None:
    real = apply._APPLY[Stop]

    def stop(draft: Draft, decision: Stop) -> None:
        real(draft, decision)
        for rank in range(len(draft.runs[decision.run].ranks)):
            fold._end_rank(draft, decision.run, rank, RankEnd(stop_delivered=True, signal=15), None)

    patch.setitem(apply._APPLY, Stop, stop)


def _finishes_what_still_runs(patch: Patch) -> None:
    real = admit._end_run

    def end_run(snapshot: Snapshot, state: WorkloadState) -> object:
        if state.stop_requested:
            return Finish(workload=state.spec.name, outcome="stopped", reason=reason(Code.STOPPED))
        return real(snapshot, state)

    patch.setattr(admit, "_end_run", end_run)


def _takes_all_for_dead_after_a_restart(patch: Patch) -> None:
    real = fold._HANDLERS[ControlPlaneStarted]

    def handler(draft: Draft, event: ControlPlaneStarted) -> None:
        real(draft, event)
        for (run,) in list(draft.live.since(())):
            for rank in range(len(draft.runs[run].ranks)):
                fold._end_rank(draft, run, rank, RankEnd(cause="lost"), None)

    patch.setitem(fold._HANDLERS, ControlPlaneStarted, handler)


def _takes_blind_for_gone(patch: Patch) -> None:
    class Empty:
        name = "sim"

        async def observe(self) -> Sequence[RankReport]:
            return ()

    real = RunSensor.observe

    async def observe(self: RunSensor, snapshot: Snapshot) -> object:
        try:
            return await real(self, snapshot)
        except DriverError:
            return await real(RunSensor(Empty()), snapshot)  # type: ignore[arg-type]  # all that is asked of it

    patch.setattr(RunSensor, "observe", observe)


def _forgets_to_wake(patch: Patch) -> None:
    real = decide

    def never(snapshot: Snapshot, *_: object) -> Plan:
        return replace(real(snapshot), wake_at_ms=None)

    patch.setattr(engine, "decide", never)


def _never_takes_a_node_back(patch: Patch) -> None:
    real = fold._HANDLERS[NodeHealth]

    def handler(draft: Draft, event: NodeHealth) -> None:
        if event.health != "alive":
            real(draft, event)

    patch.setitem(fold._HANDLERS, NodeHealth, handler)


def _keeps_what_was_reserved(patch: Patch) -> None:
    patch.setattr(start, "end_reservations", lambda _draft, _kept: None)
    patch.setattr(apply, "end_reservations", lambda _draft, _kept: None)


def _believes_its_clock(patch: Patch) -> None:
    patch.setattr(Engine, "_now_ms", lambda self: self._parts.clock.now_ms())


def _takes_a_lost_answer_for_no_start(patch: Patch) -> None:
    async def left_of(*_: object) -> bool:
        return False

    patch.setattr(act, "_left_of", left_of)


def _never_makes_up_for_a_lost_start(patch: Patch) -> None:
    def blind(*given: Any) -> object:
        honest = sweep(*given)
        return replace(honest, orders=tuple(order for order in honest.orders if not isinstance(order, Begin)))

    patch.setattr(engine, "sweep", blind)


def _goes_on_with_the_old_epoch(patch: Patch) -> None:
    def same(**fields: Any) -> ControlPlaneStarted:
        return ControlPlaneStarted(**{**fields, "epoch": 1})

    patch.setattr(engine, "ControlPlaneStarted", same)


CASES: list[tuple[Callable[[Patch], None], str, Story]] = [
    (_starts_half_a_gang, "gangs_are_whole", ()),
    (_takes_a_stop_for_an_end, "one_live_run", ROOTS[2]),
    (_finishes_what_still_runs, "leases_are_counted_right", ALL),
    (_takes_all_for_dead_after_a_restart, "no_orphans", ALL),
    (_takes_blind_for_gone, "no_lost_exits", (*ALL, "outage eyes")),
    (_forgets_to_wake, "not calm", ("up gang",)),
    (_never_takes_a_node_back, "never came to its end", ALL),
    (_keeps_what_was_reserved, "reservations_are_counted_right", ALL),
    (_believes_its_clock, "time_never_goes_back", ("kill 0",)),
    (_takes_a_lost_answer_for_no_start, "no_lost_exits", ("outage answers",)),
    (_never_makes_up_for_a_lost_start, "not calm", ("kill 8",)),
    (_goes_on_with_the_old_epoch, "epochs_rise", ()),
]
"""A bug, the words of who has to find it, and the story after which one letter more is enough."""


@pytest.mark.parametrize(
    ("plant", "words", "begun"), CASES, ids=[plant.__name__.lstrip("_") for plant, *_ in CASES]
)
def test_a_planted_bug_is_found(
    plant: Callable[[Patch], None], words: str, begun: Story, monkeypatch: Patch
) -> None:
    """The search finds it, and by the checker that is meant for it."""
    plant(monkeypatch)
    monkeypatch.setattr(storm, "CALM_MS_MAX", CALM_MS_MAX)
    done = search(1, [begun])
    assert done.found is not None
    story, broken = done.found
    assert any(words in item for item in broken), (story, broken)
