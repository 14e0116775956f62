"""What must hold of a home at every position, each law as one function that raises AssertionError.

Theory: the checkers share no code with what they check (only the nouns, and `fold` to look between two
decisions of one plan): they count again from the base tables, in the plainest way, and search by brute
force. `test_planted.py` plants a bug for every checker and shows that it bites.
"""

from collections.abc import Callable

from msgspec.structs import replace
from tests.properties import service_laws
from tests.properties.counting import (
    Turn,
    View,
    asked,
    capacity,
    cheapest_by_brute_force,
    held,
    live_ranks,
    lost_work,
    may_yield,
    reserved,
    room_on,
    usable,
    used,
)
from tests.properties.fingerprint import plan_bytes
from tests.properties.sharing import books, is_part, wants_part
from tests.scenarios.home import Home

from steersman.decide.cycle import decide
from steersman.model.decisions import Finish, Forget, Requeue, Reserve, Start, Stop
from steersman.model.events import FleetDeclared, NodeHealth, RankExited, WorkloadDeclared
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase, Run, RunState, Snapshot, WorkloadState
from steersman.state.derive import rebuild
from steersman.state.ends import worst_end

FINAL = (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED)


# ---- laws of a snapshot ---------------------------------------------------------------------------------


def indexes_follow_from_the_tables(snapshot: View) -> None:
    """Every kept index equals the one made anew from the base tables."""
    assert snapshot.snapshot.indexes == rebuild(snapshot.snapshot)


def leases_are_counted_right(snapshot: View) -> None:
    """A node's books say what its live ranks hold: leases, amounts, free devices; no device twice."""
    for key, node in snapshot.nodes.items():
        ranks = [(run, at, rank) for run, at, rank in live_ranks(snapshot) if rank.placement.node == key]
        assert sorted(node.leases) == sorted((run.id, at) for run, at, _ in ranks)
        assert node.used_cpu_milli == sum(rank.placement.cpu_milli for _, _, rank in ranks)
        assert node.used_memory_bytes == sum(rank.placement.memory_bytes for _, _, rank in ranks)
        made = books(node, [rank.placement for _, _, rank in ranks])
        assert sorted(node.free_devices) == sorted(name for name, book in made.items() if book.empty)
        sliced = {name: 1000 - book.milli for name, book in made.items() if book.milli}
        assert {item.device: item.free_milli for item in node.shares if not item.instances} == sliced
        cut = {name for name, book in made.items() if book.slices}
        assert {item.device for item in node.shares if item.instances} == cut
        assert node.declared or node.leases, f"{key} left the fleet and nothing runs there"
    for run, _, rank in live_ranks(snapshot):
        assert rank.placement.node in snapshot.nodes, run.id


def reservations_are_counted_right(snapshot: View) -> None:
    """A node's books say what is kept there, only queued workloads keep, and what is kept will be there."""
    for key, node in snapshot.nodes.items():
        kept = {name: amount for name, amount in reserved(snapshot, NodeId(key)).items() if amount}
        booked = {"cpu": node.reserved_cpu_milli, "memory": node.reserved_memory_bytes}
        booked |= dict(node.reserved_accelerators)
        assert kept == {name: amount for name, amount in booked.items() if amount}, key
        if kept:
            have, staying = capacity(node), used(snapshot, NodeId(key), leaving=False)
            yielded = reserved(snapshot, NodeId(key), only=Code.WAITING_PREEMPTION)
            for name, amount in kept.items():
                assert amount <= have.get(name, 0), f"{key} is promised twice: {name}"
                there = yielded.get(name, 0)
                assert not there or there + staying.get(name, 0) <= have.get(name, 0), (key, name)
    for name, state in snapshot.workloads.items():
        assert not state.reservations or state.phase is Phase.QUEUED, name
        assert all(item.node in snapshot.nodes for item in state.reservations), name


def one_run_per_workload(snapshot: View) -> None:
    """Exactly the active workloads have a run, theirs, and no run is without its workload."""
    owners = []
    for name, state in snapshot.workloads.items():
        assert (state.run is not None) == (state.phase is Phase.ACTIVE), name
        if state.run is not None:
            assert snapshot.runs[state.run].workload == name
            owners.append(state.run)
    assert sorted(owners) == list(snapshot.runs)


def states_agree_with_ranks(snapshot: View) -> None:
    """A run keeps the ranks it began with, and has ended exactly when every one is proven gone."""
    for run in snapshot.runs.values():
        assert [rank.placement.rank for rank in run.ranks] == list(range(len(run.ranks))), run.id
        gone = all(rank.end is not None for rank in run.ranks)
        assert gone == (run.state is RunState.ENDED), run.id
        assert gone == (run.ended_ms is not None), run.id


SNAPSHOT_LAWS: tuple[Callable[[View], None], ...] = (
    indexes_follow_from_the_tables,
    leases_are_counted_right,
    reservations_are_counted_right,
    one_run_per_workload,
    states_agree_with_ranks,
    *service_laws.SNAPSHOT_LAWS,
)


# ---- laws of a cycle ------------------------------------------------------------------------------------


def nothing_is_over_committed(cycle: Turn) -> None:
    """A new lease goes only where it fits; a node over its capacity (it shrank) never gets worse."""
    fresh = {
        placement.node
        for item in cycle.plan.decisions
        if isinstance(item, Start)
        for placement in item.placements
    }
    for key, node in cycle.after.nodes.items():
        have = capacity(node)
        now, before = used(cycle.after, NodeId(key)), used(cycle.seen, NodeId(key))
        for name, amount in now.items():
            limit = have.get(name, 0)
            assert amount <= (limit if key in fresh else max(limit, before.get(name, 0))), (key, name)
    for key in sorted(fresh):
        node = cycle.after.nodes[key]
        assert usable(node), f"{key} takes no work"
        known = {device.id for device in node.node.devices}
        for run, _, rank in live_ranks(cycle.after):
            if (
                rank.placement.node == key
                and run.decided_ms == cycle.after.now_ms
                and run.id not in cycle.seen.runs
            ):
                assert set(rank.placement.devices) <= known, run.id


def gangs_start_whole(cycle: Turn) -> None:
    """A start has every rank once, each with exactly what it asked for."""
    for item in cycle.plan.decisions:
        if not isinstance(item, Start):
            continue
        state = cycle.after.workloads[item.workload]
        assert [placement.rank for placement in item.placements] == list(range(state.spec.body.num_nodes))
        assert len(cycle.after.runs[item.run].ranks) == state.spec.body.num_nodes
        for placement in item.placements:
            got = held(cycle.after.nodes[placement.node], placement)
            want = {name: amount for name, amount in asked(state).items() if amount}
            kinds = {name: amount for name, amount in got.items() if amount}
            if wants_part(state):
                assert is_part(placement), item.workload
                assert len(placement.devices) == 1, item.workload
                wanted = state.spec.resources
                assert wanted.mig_profile in {"", placement.mig_profile}
                assert wanted.mig_profile or placement.device_milli >= wanted.device_milli
            assert _with_asked_kinds(kinds, state) == want, item.workload


def _with_asked_kinds(kinds: dict[str, int], state: WorkloadState) -> dict[str, int]:
    """What was got, each kind under the name by which it was asked for."""
    names = {kind: asked for asked, _ in state.spec.resources.accelerators for kind in asked.split("|")}
    return {names.get(kind, kind): amount for kind, amount in kinds.items()}


def only_the_right_runs_yield(cycle: Turn) -> None:
    """Who is preempted can resume, has a lower priority, was not protected, and yields to a named need."""
    for at, item in enumerate(cycle.plan.decisions):
        if isinstance(item, Stop) and item.cause == "preempted":
            snapshot = cycle.at(at)
            facts = dict(item.reason.facts)
            winner = cycle.after.workloads[str(facts["by"])]
            assert item.reason.code is Code.PREEMPTED
            assert may_yield(snapshot, snapshot.runs[item.run], winner.spec.priority), item.run
            assert winner.reservations, f"{item.run} yields to nobody"


def the_cheapest_yield(cycle: Turn) -> None:
    """For a need of one rank the work lost is the least that any node could make room for."""
    decisions = cycle.plan.decisions
    for at, item in enumerate(decisions):
        if not isinstance(item, Reserve) or item.reason.code is not Code.WAITING_PREEMPTION:
            continue
        snapshot = cycle.at(at)
        state = snapshot.workloads[item.workload]
        best = cheapest_by_brute_force(snapshot, item.workload) if state.spec.body.num_nodes == 1 else -1
        if best == -1:
            continue
        victims = []
        for other in decisions[at + 1 :]:
            if not isinstance(other, Stop) or other.cause != "preempted":
                break
            victims.append(other.run)
        paid = sum(lost_work(snapshot.runs[run], snapshot.now_ms) for run in victims)
        assert paid == best, f"{item.workload} makes {victims} lose {paid}; {best} would do"


def _lived_until_lost(run: Run, policy: Policy) -> bool:
    """Its machine took it along after it had run for so long that it was no bad start."""
    if run.started_ms is None or run.ended_ms is None or worst_end(run).cause != "lost":
        return False
    return run.ended_ms - run.started_ms >= policy.crash_loop_run_ms


def unfinished_tries_are_bounded(cycle: Turn) -> None:
    """A try that counts is followed by another only below the limit, after a back-off that doubles
    up to its cap."""
    for at, item in enumerate(cycle.plan.decisions):
        if not isinstance(item, Requeue) or not item.counted:
            continue
        snapshot = cycle.at(at)
        state = snapshot.workloads[item.workload]
        if state.spec.body.program != "command":
            continue  # see `service_laws.replicas_come_back`
        policy = snapshot.policy
        assert state.attempts + 1 < state.spec.body.retry.attempts_max, item.workload
        assert state.run is not None
        run = snapshot.runs[state.run]
        failures = 1 if run.saved_ms is not None or _lived_until_lost(run, policy) else state.failures + 1
        delay = policy.backoff_ms_base
        for _ in range(failures - 1):
            delay = min(delay * 2, policy.backoff_ms_max)
        assert item.not_before_ms - snapshot.now_ms == min(delay, policy.backoff_ms_max), item.workload
        after = cycle.after.workloads.get(item.workload)
        if after is not None and after.declared_at == state.declared_at:
            assert after.attempts == state.attempts + 1, item.workload
            assert after.failures == failures, item.workload


def the_end_is_the_end(cycle: Turn) -> None:
    """A finished workload changes its phase by a new declaration only, or goes when it was removed."""
    declared = {item.workload.name for item in cycle.batch if isinstance(item, WorkloadDeclared)}
    for name, before in cycle.before.workloads.items():
        if before.phase in FINAL and name not in declared:
            after = cycle.after.workloads.get(name)
            if after is None:
                assert cycle.seen.workloads[name].removing, name
            else:
                assert (after.phase, after.outcome, after.finished_ms) == (
                    before.phase,
                    before.outcome,
                    before.finished_ms,
                ), name
    final = {
        name for name, state in cycle.seen.workloads.items() if state.phase in FINAL and not state.removing
    }
    for item in cycle.plan.decisions:
        assert item.workload not in final, item
        if isinstance(item, Finish):
            final.add(item.workload)


def only_the_dead_are_judged(cycle: Turn) -> None:
    """A verdict falls only on a run whose every rank is proven gone; unknown is not gone."""
    requeued = set()
    for item in cycle.plan.decisions:
        before = cycle.seen.workloads.get(item.workload)
        run = None if before is None else before.run
        if isinstance(item, Requeue | Finish | Forget) and run is not None:
            assert all(rank.end is not None for rank in cycle.seen.runs[run].ranks), run
            requeued.add(item.workload)
        if isinstance(item, Start):
            assert run is None or item.workload in requeued, item.workload


def only_proof_ends_a_rank(cycle: Turn) -> None:
    """A rank keeps its lease until its end was reported or its node was found dead; nobody decides that."""
    proven = {(item.run, item.rank) for item in cycle.batch if isinstance(item, RankExited)}
    dead = {item.node for item in cycle.batch if isinstance(item, NodeHealth) and item.health == "dead"}
    seen = {(run.id, at) for run, at, _ in live_ranks(cycle.seen)}
    for run, at, rank in live_ranks(cycle.before):
        ended = (run.id, at) in proven or rank.placement.node in dead
        assert ended or (run.id, at) in seen, f"{run.id}/{at} is taken for ended"
    assert seen <= {(run.id, at) for run, at, _ in live_ranks(cycle.after)}


CYCLE_LAWS: tuple[Callable[[Turn], None], ...] = (
    nothing_is_over_committed,
    gangs_start_whole,
    only_the_right_runs_yield,
    the_cheapest_yield,
    unfinished_tries_are_bounded,
    the_end_is_the_end,
    only_the_dead_are_judged,
    only_proof_ends_a_rank,
    *service_laws.CYCLE_LAWS,
)


# ---- laws of a history ----------------------------------------------------------------------------------


def run_ids_are_never_used_again(home: Home) -> None:
    """No two starts in the life of a home share a run id."""
    started = [item.run for cycle in home.cycles for item in cycle.plan.decisions if isinstance(item, Start)]
    assert len(started) == len(set(started)), started


def nobody_yields_twice_for_one_need(home: Home) -> None:
    """While room is kept for a need and its nodes stand, nobody else is asked to yield for it."""
    waiting: dict[WorkloadName, set[RunId]] = {}
    for cycle in home.cycles:
        fleet_moved = any(isinstance(event, FleetDeclared | NodeHealth) for event in cycle.batch)
        for name in sorted(waiting):
            state = cycle.seen.workloads.get(name)
            blocked = state is None or not state.reservations
            if fleet_moved or blocked:
                del waiting[name]
        for item in cycle.plan.decisions:
            if isinstance(item, Stop) and item.cause == "preempted":
                by = WorkloadName(str(dict(item.reason.facts)["by"]))
                assert by not in waiting, (
                    f"{item.run} yields to {by}, for which {waiting[by]} yielded already"
                )
        for item in cycle.plan.decisions:
            if isinstance(item, Stop) and item.cause == "preempted":
                waiting.setdefault(WorkloadName(str(dict(item.reason.facts)["by"])), set()).add(item.run)
            if isinstance(item, Start):
                waiting.pop(item.workload, None)


HOME_LAWS: tuple[Callable[[Home], None], ...] = (
    run_ids_are_never_used_again,
    nobody_yields_twice_for_one_need,
    *service_laws.HOME_LAWS,
)


def nobody_waits_in_vain(snapshot: View) -> None:
    """At rest the first of every shape in the queue does not fit, nobody may yield to it now, and no verdict
    is owed to anyone."""
    assert not snapshot.snapshot.indexes.attention
    service_laws.services_are_at_rest(snapshot)
    heads: dict[object, WorkloadState] = {}
    for state in snapshot.workloads.values():
        if state.phase is Phase.QUEUED:
            shape = (state.spec.resources, state.spec.body.num_nodes)
            best = heads.get(shape)
            if best is None or (-state.spec.priority, state.declared_at) < (
                -best.spec.priority,
                best.declared_at,
            ):
                heads[shape] = state
    tried = sorted(
        heads.values(), key=lambda state: (-state.spec.priority, state.declared_at, state.spec.name)
    )
    tries = snapshot.policy.preempt_attempts_per_cycle
    for place, state in enumerate(tried):
        name = state.spec.name
        room = sum(
            room_on(snapshot, NodeId(key), name) for key, node in snapshot.nodes.items() if usable(node)
        )
        assert room < state.spec.body.num_nodes, f"{name} waits and would fit"
        leaving = any(
            rank.placement.node == kept.node and run.state is RunState.STOPPING
            for kept in state.reservations
            for run, _, rank in live_ranks(snapshot)
        )
        if state.spec.body.num_nodes == 1 and not leaving and place < tries:
            best_price = cheapest_by_brute_force(snapshot, name)
            assert best_price in {None, -1}, f"{name} waits though others may yield ({best_price})"


def check_turn(turn: Turn) -> None:
    """The laws of one cycle and of the states in it."""
    for law in SNAPSHOT_LAWS:
        law(turn.seen)
        law(turn.after)
    for cycle_law in CYCLE_LAWS:
        cycle_law(turn)


def check(home: Home) -> None:
    """All laws, on all of a home's life."""
    before = View(Snapshot())
    for cycle in home.cycles:
        turn = Turn(cycle, before)
        check_turn(turn)
        before = turn.after
    for home_law in HOME_LAWS:
        home_law(home)


def plans_follow_from_the_truth(home: Home) -> None:
    """The base tables put in in another order, with indexes made anew, give the same plan, to the byte."""
    for cycle in home.cycles:
        assert plan_bytes(decide(reordered(cycle.seen))) == plan_bytes(cycle.plan)


def reordered(snapshot: Snapshot) -> Snapshot:
    """The same truth, put in in another order, with all indexes made anew."""
    again = replace(
        snapshot,
        workloads=type(snapshot.workloads).of(reversed(snapshot.workloads.sorted_items())),
        runs=type(snapshot.runs).of(reversed(snapshot.runs.sorted_items())),
        nodes=type(snapshot.nodes).of(reversed(snapshot.nodes.sorted_items())),
        services=type(snapshot.services).of(reversed(snapshot.services.sorted_items())),
    )
    return replace(again, indexes=rebuild(again))
