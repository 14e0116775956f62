"""Every law of services bites: a bug is planted in the real core, and the law meant for it finds it.

Theory: as in `test_planted`, whose harness this uses; the stories are of odd seeds, which have services.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.planted.test_planted import CYCLES, Patch, broken_by
from tests.properties import service_laws as laws
from tests.properties.counting import View
from tests.properties.strategies import Story, play, told_by

from steersman.decide import autoscale, recover, rollout, votes
from steersman.engine import publish
from steersman.model.decisions import Decision, FailRollout, Requeue, Retire, Scale, Spawn
from steersman.model.events import RemoveRequested
from steersman.model.policy import Policy
from steersman.model.reasons import Reason
from steersman.model.service import Scaling
from steersman.model.snapshot import RunState, ServiceState, Snapshot, WorkloadState
from steersman.model.table import Table
from steersman.state import apply, fold, services
from steersman.state.draft import Draft

SEEDS = (529, *range(1, 240, 2))
"""The first has a new revision that is lost again and again with its nodes, which is rare."""


def _retires_the_ready_first(patch: Patch) -> None:
    patch.setattr(rollout, "_least_wanted", lambda items: sorted(items, key=lambda item: not item.ready))


def _spares_one_too_many(patch: Patch) -> None:
    real = rollout._superseded

    def superseded(state: ServiceState, old: Any, ready: int, target: int) -> Any:
        return real(state, old, ready + 1, target)

    patch.setattr(rollout, "_superseded", superseded)


def _replaces_before_the_new_is_ready(patch: Patch) -> None:
    patch.setattr(rollout, "_superseded", lambda _state, old, _ready, _target: iter(old))


def _a_failed_rollout_takes_the_old_along(patch: Patch) -> None:
    real = rollout._roll

    def roll(snapshot: Snapshot, state: ServiceState, rolling: Any, replicas: Any) -> Iterator[Decision]:
        for item in real(snapshot, state, rolling, replicas):
            yield item
            if isinstance(item, FailRollout):
                for old in replicas:
                    why = item.reason
                    yield Retire(workload=state.spec.name, replica=old.ref.name, reason=why)

    patch.setattr(rollout, "_roll", roll)


def _forgets_the_surge(patch: Patch) -> None:
    real = rollout._judge

    def judge(snapshot: Snapshot, state: ServiceState) -> Iterator[Decision]:
        bounds = replace(state.spec.rollout, surge_max=state.spec.rollout.surge_max + 1)
        yield from real(snapshot, replace(state, spec=replace(state.spec, rollout=bounds)))

    patch.setattr(rollout, "_judge", judge)


def _promotes_too_early(patch: Patch) -> None:
    real = rollout._roll

    def roll(snapshot: Snapshot, state: ServiceState, rolling: Any, replicas: Any) -> Iterator[Decision]:
        new = [item for item in replicas if item.ref.revision == rolling.number]
        yield from real(snapshot, state, rolling, new if any(item.ready for item in new) else replicas)

    patch.setattr(rollout, "_roll", roll)


def _tries_what_has_failed_again(patch: Patch) -> None:
    real = rollout._is_new
    patch.setattr(rollout, "_is_new", lambda state, digest: real(replace(state, failed=None), digest))


def _drops_the_wrong_replica(patch: Patch) -> None:
    def drop(draft: Draft, replica: Any) -> None:
        state = None if replica.service is None else draft.services.get(replica.service)
        if state is not None:
            draft.services[state.spec.name] = replace(state, replicas=state.replicas[1:])

    patch.setattr(services, "drop_replica", drop)


def _ends_replicas_on_request(patch: Patch) -> None:
    real = fold._HANDLERS[RemoveRequested]

    def handler(draft: Draft, event: Any) -> None:
        state = draft.workloads.get(event.workload)
        if state is not None and state.spec.body.program == "replica":
            draft.put_workload(event.workload, replace(state, removing=True), draft.run_of(state))
        else:
            real(draft, event)

    patch.setitem(fold._HANDLERS, RemoveRequested, handler)


def _lists_what_retires(patch: Patch) -> None:
    real = publish._service

    def service(snapshot: Snapshot, state: ServiceState, socket: Any) -> Any:
        kept = tuple(replace(ref, retiring=False) for ref in state.replicas)
        runs = [
            (key, replace(run, state=RunState.RUNNING) if run.state is RunState.STOPPING else run)
            for key, run in snapshot.runs.sorted_items()
        ]
        blind = replace(snapshot, runs=Table.of(runs))
        return real(blind, replace(state, replicas=kept), socket)

    patch.setattr(publish, "_service", service)


def _holds_for_ever(patch: Patch) -> None:
    real = publish._service
    patch.setattr(publish, "_service", lambda *given: replace(real(*given), hold_ms=3_600_000))


def _reads_unknown_as_zero(patch: Patch) -> None:
    real = votes._of_load
    patch.setattr(votes, "_of_load", lambda load, scaling, target: real(load or 0, scaling, target))


def _needs_no_margin(patch: Patch) -> None:
    patch.setattr(votes, "MARGIN_MILLI", 0)


def _lets_the_forecast_lower(patch: Patch) -> None:
    real = autoscale.ballot

    def ballot(snapshot: Snapshot, state: ServiceState, memo: Any = None) -> autoscale.Ballot:
        found = real(snapshot, state, memo)
        return found if found.foresight is None else found._replace(votes=found.votes[-1:])

    patch.setattr(autoscale, "ballot", ballot)


def _forecasts_from_what_is_not_known(patch: Patch) -> None:
    patch.setattr(autoscale, "is_known", lambda _state: True)


def _waits_for_no_delay(patch: Patch) -> None:
    patch.setattr(autoscale, "delay_ms", lambda _scaling, _target, _wanted: 0)


def _forgets_since_when(patch: Patch) -> None:
    def scale(draft: Draft, decision: Scale) -> None:
        state = draft.services[decision.workload]
        draft.services[decision.workload] = replace(
            state, desired=decision.desired, desired_ms=0, target=decision.target
        )

    patch.setitem(apply._APPLY, Scale, scale)


def _goes_to_zero_from_any(patch: Patch) -> None:
    def step(scaling: Scaling, target: int, wanted: int) -> int:
        del scaling, target
        return wanted

    patch.setattr(autoscale, "_step", step)


def _goes_beyond_the_most(patch: Patch) -> None:
    real = autoscale._step
    patch.setattr(
        autoscale, "_step", lambda scaling, target, wanted: real(scaling, target, wanted) + (wanted > target)
    )


def _starts_slowly_and_goes_to_zero(patch: Patch) -> None:
    patch.setattr(autoscale, "_too_slow_from_zero", lambda _state: False)


def _never_counts_a_crash(patch: Patch) -> None:
    real = apply._requeue

    def requeue(draft: Draft, decision: Requeue) -> None:
        real(draft, decision)
        state = draft.workloads[decision.workload]
        if state.service is not None:
            draft.put_workload(decision.workload, replace(state, failures=1), None)

    patch.setitem(apply._APPLY, Requeue, requeue)


def _always_comes_back_at_once(patch: Patch) -> None:
    def backoff(policy: Policy, failures: int) -> int:
        del policy, failures
        return 0

    patch.setattr(recover, "backoff_ms", backoff)


def _tries_for_ever_what_can_never_be_loaded(patch: Patch) -> None:
    patch.setattr(rollout, "_hopeless", lambda _item: False)


def _rolls_out_what_serves(patch: Patch) -> None:
    patch.setattr(services, "same_revision", lambda _one, _other: False)


def _takes_over_once_ready(patch: Patch) -> None:
    patch.setattr(rollout, "_lasts", lambda _snapshot, _state, item: item.ready)


def _takes_ready_for_proven(patch: Patch) -> None:
    patch.setattr(recover, "served", lambda _owner, _state, run, _policy: run.ready_ms is not None)


def _waits_a_second_each_time(patch: Patch) -> None:
    real = recover.backoff_ms
    patch.setattr(recover, "backoff_ms", lambda policy, _failures: real(policy, 1))


def _counts_what_was_lost(patch: Patch) -> None:
    real = recover._requeue

    def requeue(state: WorkloadState, not_before_ms: int, why: Reason, *, counted: bool) -> Requeue:
        return real(state, not_before_ms, why, counted=counted or state.service is not None)

    patch.setattr(recover, "_requeue", requeue)


def _takes_what_was_lost_for_a_crash(patch: Patch) -> None:
    def crashes(_snapshot: Snapshot, _state: ServiceState, item: rollout.Replica) -> int:
        return item.job.runs if item.job.last_run is not None else 0

    patch.setattr(rollout, "_crashes", crashes)


CASES: list[tuple[Callable[[Patch], None], Callable[..., None]]] = [
    (_retires_the_ready_first, laws.ready_never_falls_below_the_target),
    (_spares_one_too_many, laws.ready_never_falls_below_the_target),
    (_replaces_before_the_new_is_ready, laws.ready_never_falls_below_the_target),
    (_a_failed_rollout_takes_the_old_along, laws.ready_never_falls_below_the_target),
    (_forgets_the_surge, laws.replicas_stay_within_the_surge),
    (_promotes_too_early, laws.only_the_newest_is_given_up),
    (_tries_what_has_failed_again, laws.a_revision_is_begun_for_a_change),
    (_drops_the_wrong_replica, laws.replicas_belong_both_ways),
    (_ends_replicas_on_request, laws.replicas_belong_both_ways),
    (_ends_replicas_on_request, laws.retired_once_and_for_good),
    (_lists_what_retires, laws.the_gateway_is_told_the_truth),
    (_holds_for_ever, laws.the_gateway_is_told_the_truth),
    (_reads_unknown_as_zero, laws.targets_move_only_after_their_delay),
    (_needs_no_margin, laws.targets_move_only_after_their_delay),
    (_lets_the_forecast_lower, laws.targets_move_only_after_their_delay),
    (_forecasts_from_what_is_not_known, laws.targets_move_only_after_their_delay),
    (_waits_for_no_delay, laws.targets_move_only_after_their_delay),
    (_forgets_since_when, laws.targets_move_only_after_their_delay),
    (_goes_to_zero_from_any, laws.targets_move_only_after_their_delay),
    (_starts_slowly_and_goes_to_zero, laws.targets_move_only_after_their_delay),
    (_goes_beyond_the_most, laws.targets_are_within_bounds),
    (_never_counts_a_crash, laws.replicas_come_back),
    (_always_comes_back_at_once, laws.replicas_come_back),
    (_tries_for_ever_what_can_never_be_loaded, laws.what_can_never_be_loaded_is_not_tried),
    (_rolls_out_what_serves, laws.a_revision_is_begun_for_a_change),
    (_takes_over_once_ready, laws.only_the_newest_is_given_up),
    (_takes_ready_for_proven, laws.replicas_come_back),
    (_waits_a_second_each_time, laws.bad_ends_wait_longer_each_time),
    (_counts_what_was_lost, laws.replicas_come_back),
    (_takes_what_was_lost_for_a_crash, laws.what_was_lost_is_no_crash),
]


@pytest.mark.parametrize(("plant", "law"), CASES, ids=lambda item: str(item.__name__).lstrip("_"))
def test_a_planted_bug_is_caught(
    plant: Callable[[Patch], None], law: Callable[..., None], monkeypatch: Patch
) -> None:
    """The law that is meant for it fails on some story."""
    plant(monkeypatch)
    assert any(broken_by(Story(seed, CYCLES), law) for seed in SEEDS)


def test_a_replica_too_few_at_rest_is_caught(monkeypatch: Patch) -> None:
    """A rollout that never replaces what it lacks leaves a service short of its target."""
    honest = rollout._keep

    def keep(*given: Any) -> Iterator[Decision]:
        yield from (item for item in honest(*given) if not isinstance(item, Spawn))

    monkeypatch.setattr(rollout, "_keep", keep)
    assert _restless()


def test_a_failed_revision_that_stays_is_caught(monkeypatch: Patch) -> None:
    """A rollout that keeps the replicas of a revision that it gave up."""
    honest = rollout._keep

    def keep(snapshot: Snapshot, state: ServiceState, serving: Any, replicas: Any) -> Iterator[Decision]:
        ours = [item for item in replicas if item.ref.revision == serving.number]
        return honest(snapshot, state, serving, ours)

    monkeypatch.setattr(rollout, "_keep", keep)
    assert _restless()


def test_a_service_that_never_goes_is_caught(monkeypatch: Patch) -> None:
    """Removed, drained, and never forgotten: nothing is at rest while the gateway runs for it."""
    monkeypatch.setattr(rollout, "_gateway", lambda _snapshot, needed: iter(()))
    assert _restless()


def _restless() -> int:
    """Stories whose end is no rest."""
    caught = 0
    for seed in SEEDS:
        home, batches = told_by(Story(seed, CYCLES))
        for batch in batches:
            play(home, batch)
        home.settle()
        try:
            laws.services_are_at_rest(View(home.snapshot))
        except AssertionError:
            caught += 1
        if caught:
            break
    return caught
