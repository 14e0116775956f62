"""The life-cycle tables, decisions checked before they are applied, and the fold's own guards."""

import pytest
from hypothesis import given
from msgspec.structs import replace
from tests.properties.strategies import Story, played, stories
from tests.scenarios.home import Home, declared, fleet, job, node

from steersman.model.events import (
    ControlPlaneStarted,
    Decided,
    Event,
    HomeCreated,
    NodeHealth,
    Observed,
    RemoveRequested,
    StopRequested,
)
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.snapshot import FINAL_PHASES, Phase, RunState, Snapshot
from steersman.state.apply import apply_decision
from steersman.state.check import holds
from steersman.state.derive import free_accelerators
from steersman.state.draft import Draft
from steersman.state.fold import fold
from steersman.state.image import decode_image, encode_image
from steersman.state.lifecycle import PHASE_MOVES, RUN_MOVES, move_phase, move_run


def test_a_final_phase_is_left_only_by_a_new_declaration() -> None:
    for before, cause in PHASE_MOVES:
        if before in FINAL_PHASES:
            assert cause == "workload-declared"
    assert all(RunState.ENDED is not before for before, _ in RUN_MOVES)


def test_moves_that_are_not_in_the_tables_never_happen() -> None:
    with pytest.raises(AssertionError):
        move_phase(Phase.SUCCEEDED, "requeue", Phase.QUEUED)
    with pytest.raises(AssertionError):
        move_phase(Phase.QUEUED, "start", Phase.BACKOFF)
    with pytest.raises(AssertionError):
        move_run(RunState.ENDED, "stop", RunState.STOPPING)
    assert move_phase(Phase.QUEUED, "start", Phase.ACTIVE) is Phase.ACTIVE


def test_every_phase_but_the_first_can_be_reached() -> None:
    reached = {after for moves in PHASE_MOVES.values() for after in moves}
    assert reached == set(Phase)


def test_positions_have_no_gap() -> None:
    with pytest.raises(AssertionError):
        fold(Snapshot(), [(2, HomeCreated(home_id="h"))])
    with pytest.raises(AssertionError):
        fold(Snapshot(), [(1, Observed(now_ms=1)), (2, Decided(observed_at=7, decisions=()))])


def test_time_never_goes_back_and_the_epoch_is_kept() -> None:
    started = ControlPlaneStarted(epoch=4, build="b", boot_id="b")
    state = fold(Snapshot(), [(1, Observed(now_ms=9)), (2, Observed(now_ms=5)), (3, started)])
    assert (state.now_ms, state.observed_at, state.epoch, state.position) == (9, 2, 4, 3)


@given(story=stories())
def test_every_decision_holds_where_it_was_taken(story: Story) -> None:
    """In order, each decision of a plan may be applied to what the ones before it made."""
    for cycle in played(story).cycles:
        draft = Draft(cycle.seen)
        for ordinal, decision in enumerate(cycle.plan.decisions):
            assert holds(draft, decision), decision
            apply_decision(draft, decision, ordinal)


@given(story=stories())
def test_a_plan_does_not_hold_a_second_time(story: Story) -> None:
    """What begins, ends or forgets something can be done once; the check refuses it on what came after."""
    for cycle in played(story).cycles:
        draft = Draft(cycle.after)
        for decision in cycle.plan.decisions:
            kind = type(decision).__name__
            if kind in {"Start", "Stop", "Forget"}:
                assert not holds(draft, decision), decision


@given(story=stories())
def test_an_image_gives_back_the_state(story: Story) -> None:
    home = played(story)
    assert decode_image(encode_image(home.snapshot)) == home.snapshot


def test_an_image_that_is_damaged_or_of_another_build_is_not_read() -> None:
    image = encode_image(Snapshot())
    assert decode_image(image[:-1]) is None
    assert decode_image(b"\x00") is None


def test_a_start_does_not_hold_where_there_is_no_room_any_more() -> None:
    """The node went, died, or shrank since; the workload was stopped since."""
    home = Home(fleet(node("a", cores=2)))
    plan = home.cycle(declared(job("work", cores=2)))
    seen, start = home.cycles[0].seen, plan.decisions[-1]
    at = seen.position + 1
    admitted = fold(seen, [(at, Decided(observed_at=seen.observed_at, decisions=plan.decisions[:1]))])
    assert holds(Draft(admitted), start)
    changes: tuple[Event, ...] = (
        fleet(),
        NodeHealth(node=NodeId("a"), health="dead"),
        fleet(node("a", cores=1)),
        fleet(node("a", cores=2, gib=0)),
        StopRequested(workload=WorkloadName("work")),
        RemoveRequested(workload=WorkloadName("work")),
    )
    for change in changes:
        assert not holds(Draft(fold(admitted, [(at + 1, change)])), start), change
    assert not holds(Draft(Snapshot()), start)


def test_devices_kept_for_another_are_not_free() -> None:
    """A kind of which none is left is left out, so that a node is indexed by what it can give."""
    state = Home(fleet(node("a", devices=["A100", "H100", "H100"]))).snapshot.nodes["a"]
    kept = replace(state, reserved_accelerators=(("A100", 1), ("H100", 1)))
    assert free_accelerators(state) == (("A100", 1), ("H100", 2))
    assert free_accelerators(kept) == (("H100", 1),)
    assert free_accelerators(replace(kept, free_devices=())) == ()
