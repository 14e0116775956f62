"""What must hold of services, each law as one function that raises AssertionError; used through `checkers`.

Theory: as in `checkers`, a law counts again from the base tables and shares no code with what it checks. The
law of scaling has its own plain reading of the signals (`side`): three comparisons, no votes and no steps.
"""

from collections.abc import Callable

from tests.properties.counting import Turn, View
from tests.scenarios.home import Home
from tests.scenarios.serving import target_of

from steersman.decide.foresight import capacity_of, foresee
from steersman.engine.publish import gateway_config
from steersman.model.decisions import (
    FailRollout,
    Forget,
    Promote,
    Requeue,
    Retire,
    Revise,
    Scale,
    Spawn,
    Stop,
)
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code
from steersman.model.service import GATEWAY_NAME
from steersman.model.snapshot import ReplicaRef, Run, RunState, ServiceState, WorkloadState
from steersman.spec.diff import diff_services


def answers(view: View, ref: ReplicaRef) -> bool:
    """Whether a replica runs and has said that it is ready."""
    run = view.workloads[ref.name].run
    found = None if run is None else view.runs[run]
    return found is not None and found.state is RunState.RUNNING and found.ready_ms is not None


def stays(state: ServiceState) -> list[ReplicaRef]:
    """Replicas that are not being retired."""
    return [ref for ref in state.replicas if not ref.retiring]


def ends(state: ServiceState) -> bool:
    """Whether all its replicas are to go."""
    return state.removing or state.stop_requested


# ---- laws of a snapshot ---------------------------------------------------------------------------------


def replicas_belong_both_ways(view: View) -> None:
    """A service lists exactly the jobs that it owns, each once; what is retiring is on its way out."""
    for name, state in view.services.items():
        owned = {job for job, found in view.workloads.items() if found.service == name}
        listed = [ref.name for ref in state.replicas]
        assert len(listed) == len(set(listed)), name
        assert set(listed) == owned, name
        for ref in state.replicas:
            job = view.workloads[ref.name]
            serves = job.spec.body.replica
            assert serves is not None, ref
            assert (serves.service, serves.revision, job.revision) == (name, ref.revision, ref.revision)
            assert ref.retiring == job.removing, ref
            assert 1 <= ref.revision <= state.revisions, ref
    for key, found in view.workloads.items():
        assert found.service is None or found.service in view.services, key
        assert (found.spec.body.program == "gateway") == (found.spec.name == GATEWAY_NAME), key


def revisions_are_in_order(view: View) -> None:
    """The newest rolls or has served or failed; nothing serves and rolls at once."""
    for name, state in view.services.items():
        known = [item.number for item in (state.serving, state.rolling, state.failed) if item is not None]
        assert len(known) == len(set(known)), name
        assert max(known, default=state.revisions) <= state.revisions, name
        assert state.rolling is None or state.rolling.number == state.revisions, name
        assert (state.failed is None) == (state.failed_reason is None), name
        numbers = [int(ref.name.rpartition(".")[2]) for ref in state.replicas]
        assert numbers == sorted(numbers), name
        assert max(numbers, default=0) <= state.spawned, name


def the_gateway_is_told_the_truth(view: View) -> None:
    """Listed are the live runs of replicas that are wanted, all of them, and nobody who was told to end."""
    config = gateway_config(view.snapshot, target_of)
    if config is None:
        assert not view.services
        return
    assert [item.name for item in config.services] == [
        name for name, state in view.services.items() if not state.removing
    ]
    for item in config.services:
        told = {target.run: each.revision for each in item.revisions for target in each.replicas}
        want = {}
        for ref in stays(view.services[item.name]):
            run = view.workloads[ref.name].run
            if run is not None and view.runs[run].state in {RunState.STARTING, RunState.RUNNING}:
                want[run] = ref.revision
        assert told == want, item.name
        assert item.hold_ms <= view.services[item.name].spec.limits.timeout_ms


SNAPSHOT_LAWS: tuple[Callable[[View], None], ...] = (
    replicas_belong_both_ways,
    revisions_are_in_order,
    the_gateway_is_told_the_truth,
)


# ---- laws of a cycle ------------------------------------------------------------------------------------


def ready_never_falls_below_the_target(turn: Turn) -> None:
    """No decision takes the number of ready replicas, those of a revision that was given up left out, below
    what it was or the target, whichever is less; but for a service that is stopped or removed."""
    for name, state in turn.seen.services.items():
        if ends(state):
            continue
        target = state.target
        lost = {state.failed.number} if state.failed is not None else set()
        left = {ref.name: ref for ref in stays(state) if answers(turn.seen, ref)}
        for item in turn.plan.decisions:
            if item.workload != name:
                continue
            if isinstance(item, Scale):
                target = item.target
            elif isinstance(item, FailRollout):
                lost.add(item.revision)
            elif isinstance(item, Retire) and item.replica in left:
                before = sum(ref.revision not in lost for ref in left.values())
                del left[item.replica]
                after = sum(ref.revision not in lost for ref in left.values())
                assert after >= min(target, before), (
                    f"{item.replica}: {before} ready, then {after} of {target}"
                )


def replicas_stay_within_the_surge(turn: Turn) -> None:
    """A replica is added only up to the target, with the surge while there are two revisions."""
    for name in sorted({item.workload for item in turn.plan.decisions if isinstance(item, Spawn)}):
        if name == GATEWAY_NAME:
            assert turn.seen.services
            continue
        state = turn.after.services[name]
        left = stays(state)
        newest = state.serving if state.rolling is None else state.rolling
        assert newest is not None
        least = state.target if state.rolling is None else max(state.target, 1)
        several = state.rolling is not None or any(ref.revision != newest.number for ref in left)
        assert len(left) <= least + (state.spec.rollout.surge_max if several else 0), name
        assert sum(ref.revision == newest.number for ref in left) <= least, name
        spawned = [
            item.revision for item in turn.plan.decisions if isinstance(item, Spawn) and item.workload == name
        ]
        assert set(spawned) == {newest.number}, name


def retired_once_and_for_good(turn: Turn) -> None:
    """A replica is retired once; only a retired one is told to end; no name is used while it is taken."""
    gone = {ref.name for state in turn.seen.services.values() for ref in state.replicas if ref.retiring} | {
        name for name, state in turn.seen.workloads.items() if state.removing
    }
    forgotten: set[str] = set()
    for item in turn.plan.decisions:
        if isinstance(item, Retire):
            assert item.replica not in gone, item.replica
            gone.add(item.replica)
        elif isinstance(item, Forget):
            forgotten.add(item.workload)
        elif isinstance(item, Spawn):
            assert item.job.name in forgotten or item.job.name not in turn.seen.workloads, item.job.name
        elif isinstance(item, Stop) and turn.seen.workloads[item.workload].spec.body.program != "command":
            assert item.workload in gone, item.workload
            assert item.cause == "removed", item


def targets_are_within_bounds(turn: Turn) -> None:
    """After one cycle every target is what its declaration allows, and a step has a direction."""
    for name, state in turn.after.services.items():
        scaling = state.spec.scaling
        if not ends(state):
            assert scaling.min_replicas <= state.target <= scaling.max_replicas, name
    scaled = [item.workload for item in turn.plan.decisions if isinstance(item, Scale)]
    assert len(scaled) == len(set(scaled)), scaled


def replicas_come_back(turn: Turn) -> None:
    """A replica or the gateway is tried again for ever: at once when it had served, else after a back-off.
    What is lost with its machine is not counted, but for the gateway, which is of no revision."""
    for at, item in enumerate(turn.plan.decisions):
        state = turn.seen.workloads.get(item.workload)
        if not isinstance(item, Requeue) or state is None or state.spec.body.program == "command":
            continue
        assert state.run is not None
        run, policy, owned = turn.seen.runs[state.run], turn.seen.policy, state.service is not None
        waits_ms = item.not_before_ms - turn.seen.now_ms
        least, most = policy.backoff_ms_base, policy.backoff_ms_max
        well = served_well(turn.seen, state, run)
        assert waits_ms == (0 if well else min(least * 2 ** min(state.failures, 40), most)), item.workload
        after = turn.at(at + 1).workloads[item.workload]
        counted = 0 if well else 1 if run.saved_ms is not None else state.failures + 1
        assert after.failures == (state.failures if owned and lost(run) else counted), item.workload


def lost(run: Run) -> bool:
    """Whether it went with its machine."""
    return any(rank.end is not None and rank.end.cause == "lost" for rank in run.ranks)


def served_well(view: View, job: WorkloadState, run: Run) -> bool:
    """Whether a run that ended had served for a while; of the gateway, running is serving."""
    least, since_ms = view.policy.crash_loop_run_ms, run.ready_ms
    if job.service is None:
        since_ms = run.started_ms
    else:
        least = max(least, view.services[job.service].spec.rollout.ready_ms_min)
    return since_ms is not None and run.ended_ms is not None and run.ended_ms >= since_ms + least


def lasts(view: View, name: str, ref: ReplicaRef) -> bool:
    """Whether a replica has been ready for as long as its service asks of one that takes over."""
    run = view.workloads[ref.name].run
    since_ms = None if run is None else view.runs[run].ready_ms
    least = view.services[name].spec.rollout.ready_ms_min
    return answers(view, ref) and since_ms is not None and view.now_ms - since_ms >= least


def says_never(view: View, ref: ReplicaRef) -> bool:
    """Whether a replica's last word was that its model can never be loaded."""
    run = view.workloads[ref.name].last_run
    return run is not None and run.ranks[0].end is not None and run.ranks[0].end.exit_code == 78


def only_the_newest_is_given_up(turn: Turn) -> None:
    """A revision is promoted with as many ready for long enough as the target and no other left; it is given
    up only when none of it is, and there is another to fall back to or its model can never be loaded."""
    for item in turn.plan.decisions:
        if isinstance(item, Promote):
            state = turn.after.services[item.workload]
            left = stays(state)
            assert {ref.revision for ref in left} == {item.revision}, item
            assert sum(lasts(turn.seen, item.workload, ref) for ref in left) >= max(state.target, 1), item
        elif isinstance(item, FailRollout):
            state = turn.seen.services[item.workload]
            mine = [ref for ref in stays(state) if ref.revision == item.revision]
            assert not [ref for ref in mine if lasts(turn.seen, item.workload, ref)], item
            assert state.serving is not None or any(says_never(turn.after, ref) for ref in mine), item


def a_revision_is_begun_for_a_change(turn: Turn) -> None:
    """Never for what is on its way, serves or was given up, as it was declared then; and while nothing is on
    its way, never for a declaration that what serves can serve as well."""
    for item in turn.plan.decisions:
        if not isinstance(item, Revise):
            continue
        state = turn.seen.services[item.workload]
        wanted = (state.generation, item.model_digest)
        for known in (state.serving if state.rolling is None else state.rolling, state.failed):
            assert known is None or (known.generation, known.model_digest) != wanted, item
        serving = state.serving
        if serving is not None and state.rolling is None and serving.model_digest == item.model_digest:
            assert diff_services(serving.spec, state.spec).restarts, item


def what_can_never_be_loaded_is_not_tried(turn: Turn) -> None:
    """No revision stays on its way of which a replica said so, and none has been ready for long enough."""
    for name, state in turn.after.services.items():
        if ends(state) or state.rolling is None:
            continue
        mine = [ref for ref in stays(state) if ref.revision == state.rolling.number]
        if not any(lasts(turn.after, name, ref) for ref in mine):
            assert not [ref.name for ref in mine if says_never(turn.after, ref)], name


CYCLE_LAWS: tuple[Callable[[Turn], None], ...] = (
    ready_never_falls_below_the_target,
    replicas_stay_within_the_surge,
    retired_once_and_for_good,
    targets_are_within_bounds,
    replicas_come_back,
    only_the_newest_is_given_up,
    a_revision_is_begun_for_a_change,
    what_can_never_be_loaded_is_not_tried,
)


# ---- laws of a history ----------------------------------------------------------------------------------


def expected(state: ServiceState, now_ms: int) -> int:
    """What the forecast asks for, as the policy says; the number there is while arrivals are unknown."""
    known = {item.name: item.value for item in state.signals}
    found = foresee(state, now_ms)
    if found is None:
        return 0
    return state.target if known.get("arrivals_milli") is None else capacity_of(found).target


def side(state: ServiceState, now_ms: int) -> int:
    """Which way signals and forecast point: 1 more replicas, -1 fewer, 0 stay; unknown points nowhere."""
    scaling, target = state.spec.scaling, state.target
    known = {item.name: item.value for item in state.signals}
    ongoing, queued, latency = (
        known.get(name) for name in ("ongoing_milli", "queued_milli", "latency_p99_us")
    )
    if scaling.min_replicas == scaling.max_replicas:
        return 0
    comes = expected(state, now_ms)
    if target == 0:
        return 1 if (ongoing or 0) + (queued or 0) + comes > 0 else 0
    each, queue, limit = (
        scaling.target_ongoing_requests_milli,
        scaling.queued_requests_milli,
        scaling.latency_p99_ms,
    )
    more = [ongoing is not None and ongoing > target * each, comes > target]
    fewer = [comes < target, ongoing is not None and ongoing * 11 <= (target - 1) * each * 10]
    if queue is not None:
        more.append(queued is not None and queued > target * queue)
        fewer.append(queued is not None)
    if limit is not None:
        more.append(latency is not None and latency > limit * 1_000)
        least = 0 if latency is None else latency * target
        fits = target == 1 or least < limit * 1_000 * (target - 1)
        fewer.append(ongoing == 0 if latency is None else fits and latency <= limit * 1_000)
    if any(more):
        return 1 if target < scaling.max_replicas else 0
    slow = state.cold_start_ms is not None and state.cold_start_ms >= state.spec.limits.timeout_ms
    if target == scaling.min_replicas or (target == 1 and slow):
        return 0
    return -1 if all(fewer) else 0


def targets_move_only_after_their_delay(home: Home) -> None:
    """A target changes for its bounds, or when the signals have pointed that way for all of its delay."""
    for at, cycle in enumerate(home.cycles):
        for item in cycle.plan.decisions:
            if not isinstance(item, Scale) or item.reason.code is Code.SCALE_BOUNDS:
                continue
            state = cycle.seen.services[item.workload]
            if item.target == state.target:
                continue
            way = 1 if item.target > state.target else -1
            assert way == side(state, cycle.seen.now_ms), f"{item.workload}: {state.target} to {item.target}"
            assert item.target > 0 or state.target == 1, "the last one goes alone"
            _pointed_that_way(home, at, state, way)


def _pointed_that_way(home: Home, at: int, state: ServiceState, way: int) -> None:
    scaling, now_ms = state.spec.scaling, home.cycles[at].seen.now_ms
    delay = scaling.upscale_delay_ms if state.target else 0
    if way < 0:
        delay = scaling.downscale_to_zero_delay_ms if state.target == 1 else scaling.downscale_delay_ms
    since_ms = now_ms
    for cycle in reversed(home.cycles[:at]):
        before = cycle.seen.services.get(state.spec.name)
        if before is None or before.declared_at != state.declared_at:
            break
        if ends(before):
            continue
        if before.target != state.target or side(before, cycle.seen.now_ms) != way:
            break
        since_ms = cycle.seen.now_ms
    waited = now_ms - since_ms
    assert waited >= delay, f"{state.spec.name} moved after {waited} of {delay} ms"


def bad_ends_wait_longer_each_time(home: Home) -> None:
    """A replica that ended badly again, ready or not, waits at least twice as long as the last time; one that
    was lost neither more nor less for it. What it waited under other lengths of the back-off says nothing:
    a policy may ask for less from one cycle to the next, and `replicas_come_back` holds each to its own."""
    waited: dict[str, int] = {}
    lengths = None
    for cycle in home.cycles:
        view = View(cycle.seen)
        if lengths != (lengths := (view.policy.backoff_ms_base, view.policy.backoff_ms_max)):
            waited.clear()
        for item in cycle.plan.decisions:
            job = view.workloads.get(item.workload)
            if isinstance(item, Forget):
                waited.pop(item.workload, None)
            if not isinstance(item, Requeue) or job is None or job.service is None or job.run is None:
                continue
            run, waits_ms = view.runs[job.run], item.not_before_ms - view.now_ms
            before_ms = waited.get(item.workload, 0)
            if served_well(view, job, run):
                waited[item.workload] = 0
            elif not lost(run):
                assert waits_ms >= min(2 * before_ms, view.policy.backoff_ms_max), item.workload
                waited[item.workload] = waits_ms


def what_was_lost_is_no_crash(home: Home) -> None:
    """A revision is given up for crashes only after as many ends of a replica that were its own, or for one
    that says that its model can never be loaded."""
    own: dict[tuple[str, int], int] = {}
    for cycle in home.cycles:
        view, after = View(cycle.seen), View(cycle.after)
        for item in cycle.plan.decisions:
            job = view.workloads.get(item.workload)
            if isinstance(item, Requeue) and job is not None and job.run is not None:
                key = (item.workload, job.declared_at)
                own[key] = own.get(key, 0) + (not lost(view.runs[job.run]))
            elif isinstance(item, FailRollout) and item.reason.code is Code.REPLICA_CRASHED:
                name = WorkloadName(str(dict(item.reason.facts)["replica"]))
                limit = view.services[item.workload].spec.rollout.crashes_max
                count = own.get((name, after.workloads[name].declared_at), 0)
                never = says_never(after, ReplicaRef(name=name, revision=item.revision))
                assert never or count >= limit, item


HOME_LAWS: tuple[Callable[[Home], None], ...] = (
    targets_move_only_after_their_delay,
    bad_ends_wait_longer_each_time,
    what_was_lost_is_no_crash,
)


def services_are_at_rest(view: View) -> None:
    """Nothing is left to decide: nobody of a revision that was given up stays, and the target is met.

    There is a gateway exactly while there are services. One that was told to end when there were none ends
    first, though there are services again by then: nothing can be decided until its program is gone.
    """
    for name, state in view.services.items():
        left = stays(state)
        if ends(state):
            assert not left, name
        elif state.rolling is not None:
            assert left, name
            new = [ref for ref in left if ref.revision == state.rolling.number]
            assert len(new) <= max(state.target, 1), name
        elif state.serving is not None:
            ours = [ref for ref in left if ref.revision == state.serving.number]
            assert len(ours) == state.target or len(left) > len(ours), name
            assert state.failed is None or all(ref.revision != state.failed.number for ref in left), name
        else:
            lost_one = 0 if state.failed is None else state.failed.number
            assert all(answers(view, ref) and ref.revision != lost_one for ref in left), name
            assert len(left) <= state.target, name
        assert state.reason is not None, name
    gateway = view.workloads.get(GATEWAY_NAME)
    if gateway is not None and gateway.removing and view.services:
        assert gateway.run is not None
        assert view.runs[gateway.run].state is RunState.STOPPING
    else:
        assert bool(view.services) == (gateway is not None and not gateway.removing)
