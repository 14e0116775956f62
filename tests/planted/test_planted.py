"""Every checker bites: a bug is planted in the real core, and the checker meant for it finds it.

Theory: a law that nothing can break proves nothing. Each case swaps one function of the core for a slightly
wrong one, plays fixed stories, and asks that the named law fails on one of them. A planted bug that stops
the core itself (an assertion in it) ends that story early; what was played until then still counts.
"""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from msgspec.structs import replace
from tests.properties import checkers
from tests.properties.checkers import CYCLE_LAWS, HOME_LAWS
from tests.properties.counting import Turn, View
from tests.properties.fingerprint import state_bytes
from tests.properties.strategies import Story, play, told_by
from tests.scenarios.home import Home, declared, job

from steersman.decide import fit, preempt, recover, schedule, start
from steersman.decide.choose import SpotMemo
from steersman.model import table
from steersman.model.decisions import Decision, Placement, Requeue
from steersman.model.events import NodeHealth, Observed
from steersman.model.ids import RunId, WorkloadName, run_id
from steersman.model.policy import Policy
from steersman.model.snapshot import (
    NodeState,
    Phase,
    RankEnd,
    Run,
    RunState,
    Shape,
    Signature,
    Snapshot,
    WorkloadState,
)
from steersman.state import apply, derive, fold, lease
from steersman.state import draft as drafts
from steersman.state.derive import WorkloadEntries
from steersman.state.draft import Draft

Patch = pytest.MonkeyPatch
STORIES_MAX = 80
CYCLES = 30


def _forgets_devices(patch: Patch) -> None:
    real = lease.end_lease

    def end_lease(draft: Draft, run: RunId, placement: Placement) -> None:
        real(draft, run, replace(placement, devices=()))

    patch.setattr(fold, "end_lease", end_lease)


def _forgets_the_victims_index(patch: Patch) -> None:
    real = derive.workload_entries

    def entries(state: WorkloadState | None, run: Run | None) -> WorkloadEntries:
        return real(state, run)._replace(victims=())

    patch.setattr(drafts, "workload_entries", entries)


def _forgets_to_book_what_is_kept(patch: Patch) -> None:
    patch.setattr(apply, "take_reservations", lambda _draft, _kept: None)


def _keeps_runs_that_are_over(patch: Patch) -> None:
    real = Draft.put_workload

    def put(self: Draft, name: WorkloadName, state: WorkloadState | None, run: Run | None) -> None:
        before = self.workloads.get(name)
        old = None if before is None or before.run is None else self.runs.get(before.run)
        real(self, name, state, run)
        if old is not None and old.id not in self.runs:
            self.runs[old.id] = old

    patch.setattr(Draft, "put_workload", put)


def _never_ends_a_run(patch: Patch) -> None:
    def move(before: RunState, _cause: str, after: RunState) -> RunState:
        return before if after is RunState.ENDED else after

    patch.setattr(fold, "move_run", move)


def _starts_anywhere(patch: Patch) -> None:
    def spread(draft: Draft, shape: Shape) -> list[fit.Chosen] | None:
        if shape[2]:
            return None
        for free in draft.capacity.ordered():
            for entry in draft.capacity.member(free).since(()):
                return [fit.Chosen(entry[2], shape[3])]
        return None

    patch.setattr(start, "spread", spread)
    patch.setattr(start, "is_for_packer", lambda _shape: False)


def _starts_half_a_gang(patch: Patch) -> None:
    real = fit.placements
    patch.setattr(start, "placements", lambda draft, shape, chosen: real(draft, shape, chosen)[:1])


def _preempts_what_cannot_resume(patch: Patch) -> None:
    def can_yield(_state: WorkloadState, run: Run) -> bool:
        return run.state is not RunState.STOPPING

    patch.setattr(preempt, "can_yield", can_yield)
    patch.setattr(derive, "can_yield", can_yield)


def _preempts_what_is_protected(patch: Patch) -> None:
    patch.setattr(preempt, "protected_until_ms", lambda _run, _least: 0)


def _preempts_everyone(patch: Patch) -> None:
    def exact(_draft: Draft, _state: Any, runs: list[RunId], _shape: Shape, _ranks: int) -> tuple[RunId, ...]:
        return tuple(runs)

    patch.setattr(preempt, "_exact", exact)


def _ignores_what_was_saved(patch: Patch) -> None:
    real = preempt.lost_work
    patch.setattr(preempt, "lost_work", lambda run, now_ms: real(replace(run, saved_ms=None), now_ms))


def _preempts_again_while_waiting(patch: Patch) -> None:
    patch.setattr(schedule, "_victims_leaving", lambda _draft, _state: False)


def _waits_without_bound(patch: Patch) -> None:
    def backoff(policy: Policy, failures: int) -> int:
        return policy.backoff_ms_base << (failures - 1)

    patch.setattr(recover, "backoff_ms", backoff)


def _forgets_to_count_tries(patch: Patch) -> None:
    real = apply._requeue

    def requeue(draft: Draft, decision: Requeue) -> None:
        attempts = draft.workloads[decision.workload].attempts
        real(draft, decision)
        after = draft.workloads[decision.workload]
        draft.put_workload(decision.workload, replace(after, attempts=attempts), None)

    patch.setitem(apply._APPLY, Requeue, requeue)


def _tries_once_too_often(patch: Patch) -> None:
    real = recover._final_failure

    def final(snapshot: Snapshot, state: WorkloadState, run: Run, kind: Any) -> Any:
        return real(snapshot, replace(state, attempts=state.attempts - 1), run, kind)

    patch.setattr(recover, "_final_failure", final)


def _raises_the_dead(patch: Patch) -> None:
    real = fold._HANDLERS[NodeHealth]

    def handler(draft: Draft, event: NodeHealth) -> None:
        real(draft, event)
        for name, state in draft.workloads.sorted_items():
            if state.phase is Phase.SUCCEEDED:
                draft.put_workload(WorkloadName(name), replace(state, phase=Phase.QUEUED), None)

    patch.setitem(fold._HANDLERS, NodeHealth, handler)


def _takes_unknown_for_dead(patch: Patch) -> None:
    real_wants, real_judge = derive._active_wants, recover._judge

    def wants(state: WorkloadState, run: Run) -> bool:
        return real_wants(state, run) or any(rank.unknown for rank in run.ranks)

    def judge(snapshot: Snapshot, state: WorkloadState, run: Run, memo: SpotMemo) -> list[Decision]:
        if any(rank.unknown for rank in run.ranks):
            assert state.reason is not None
            return [Requeue(workload=state.spec.name, not_before_ms=0, counted=False, reason=state.reason)]
        return real_judge(snapshot, state, run, memo)

    patch.setattr(derive, "_active_wants", wants)
    patch.setattr(recover, "_judge", judge)


def _names_runs_by_their_try(patch: Patch) -> None:
    patch.setattr(start, "run_id", lambda name, _position: run_id(name, 1))


def _preempts_its_equals(patch: Patch) -> None:
    real = preempt.find

    def find(draft: Draft, book: Any, winner: WorkloadState, asked: Any) -> Any:
        higher = replace(winner.spec, priority=winner.spec.priority + 1)
        return real(draft, book, replace(winner, spec=higher), asked)

    patch.setattr(preempt, "find", find)


def _takes_a_redeclared_node_for_empty(patch: Patch) -> None:
    real = lease.with_fleet_node

    def with_fleet_node(draft: Draft, before: NodeState | None, after: NodeState) -> NodeState:
        return replace(real(draft, before, after), free_devices=after.free_devices)

    patch.setattr(fold, "with_fleet_node", with_fleet_node)


def _ends_a_lease_by_time(patch: Patch) -> None:
    real = fold._HANDLERS[Observed]

    def handler(draft: Draft, event: Observed) -> None:
        real(draft, event)
        for (run,) in list(draft.live.since(())):
            if draft.workloads[draft.runs[run].workload].overdue:
                fold._end_rank(draft, run, 0, RankEnd(cause="lost"), None)

    patch.setitem(fold._HANDLERS, Observed, handler)


def _sorts_by_less_than_all(patch: Patch) -> None:
    """Nodes in the order in which they came to have what they have free, which no table holds."""

    def freeze(self: Any) -> dict[Any, Any]:
        frozen = ((key, member.freeze()) for key, member in self._members.items())
        return {key: seq for key, seq in frozen if seq}

    def holding(draft: Draft, shape: Shape) -> list[Signature]:
        asked = shape.accelerators
        return [
            free
            for free, member in draft.capacity._members.items()
            if member.first() is not None and all(dict(free).get(kind, 0) >= n for kind, n in asked)
        ]

    patch.setattr(type(Draft(Snapshot()).capacity), "freeze", freeze)
    patch.setattr(fit, "holding", holding)
    patch.setattr(start, "is_for_packer", lambda _shape: False)


CASES: list[tuple[Callable[[Patch], None], Callable[..., None]]] = [
    (_forgets_devices, checkers.leases_are_counted_right),
    (_forgets_the_victims_index, checkers.indexes_follow_from_the_tables),
    (_forgets_to_book_what_is_kept, checkers.reservations_are_counted_right),
    (_keeps_runs_that_are_over, checkers.one_run_per_workload),
    (_never_ends_a_run, checkers.states_agree_with_ranks),
    (_starts_anywhere, checkers.nothing_is_over_committed),
    (_starts_half_a_gang, checkers.gangs_start_whole),
    (_preempts_what_cannot_resume, checkers.only_the_right_runs_yield),
    (_preempts_what_is_protected, checkers.only_the_right_runs_yield),
    (_preempts_everyone, checkers.the_cheapest_yield),
    (_ignores_what_was_saved, checkers.the_cheapest_yield),
    (_preempts_again_while_waiting, checkers.nobody_yields_twice_for_one_need),
    (_waits_without_bound, checkers.unfinished_tries_are_bounded),
    (_forgets_to_count_tries, checkers.unfinished_tries_are_bounded),
    (_tries_once_too_often, checkers.unfinished_tries_are_bounded),
    (_raises_the_dead, checkers.the_end_is_the_end),
    (_takes_unknown_for_dead, checkers.only_the_dead_are_judged),
    (_names_runs_by_their_try, checkers.run_ids_are_never_used_again),
    (_preempts_its_equals, checkers.only_the_right_runs_yield),
    (_takes_a_redeclared_node_for_empty, checkers.leases_are_counted_right),
    (_ends_a_lease_by_time, checkers.only_proof_ends_a_rank),
    (_sorts_by_less_than_all, checkers.plans_follow_from_the_truth),
]


def broken_by(story: Story, law: Callable[..., None]) -> bool:
    """Whether the law fails on what could be played of the story."""
    home, batches = told_by(story)
    stopped: BaseException | None = None
    try:
        for batch in batches:
            play(home, batch)
    except (AssertionError, KeyError, AttributeError) as error:
        stopped = error  # the core noticed by itself; the law must still tell from what was played
    try:
        _hold(home, law)
    except AssertionError:
        return True
    except KeyError:
        return False  # the law could not even be asked
    del stopped
    return False


def _hold(home: Home, law: Callable[..., None]) -> None:
    if law in (*HOME_LAWS, checkers.plans_follow_from_the_truth):
        law(home)
        return
    before = View(Snapshot())
    for cycle in home.cycles:
        turn = Turn(cycle, before)
        if law in CYCLE_LAWS:
            law(turn)
        else:
            law(turn.seen)
            law(turn.after)
        before = turn.after


@pytest.mark.parametrize(("plant", "law"), CASES, ids=lambda item: str(item.__name__).lstrip("_"))
def test_a_planted_bug_is_caught(
    plant: Callable[[Patch], None], law: Callable[..., None], monkeypatch: Patch
) -> None:
    """The law that is meant for it fails on some story."""
    plant(monkeypatch)
    assert any(broken_by(Story(seed, CYCLES), law) for seed in range(STORIES_MAX))


def test_waiting_in_vain_is_caught(monkeypatch: Patch) -> None:
    """A scheduler that never makes anyone yield leaves somebody waiting who need not."""
    monkeypatch.setattr(preempt, "find", lambda *_: (None, None))
    caught = 0
    for seed in range(STORIES_MAX):
        home, batches = told_by(Story(seed, CYCLES))
        for batch in batches:
            play(home, batch)
        home.settle()
        try:
            checkers.nobody_waits_in_vain(View(home.snapshot))
        except AssertionError:
            caught += 1
    assert caught


@pytest.mark.parametrize("editor", [table.TableEditor, table.SortedSeqEditor])
def test_a_changed_past_is_caught(editor: type, monkeypatch: Patch) -> None:
    """An editor that writes into what it was made from changes old snapshots, and the comparison tells."""
    if editor is table.TableEditor:

        def own_bucket(self: Any, key: str) -> Any:
            index = crc32(key.encode()) % table.BUCKETS
            if self._buckets[index] is table._EMPTY:
                self._buckets[index] = {}
            return self._buckets[index]

        monkeypatch.setattr(editor, "_own", own_bucket)
    else:
        monkeypatch.setattr(editor, "_own", lambda self, at: self._chunks[at])
    home = Home(declared(job("first")))
    before, picture = home.snapshot, state_bytes(home.snapshot)
    home.fold(declared(job("first", cores=2)), *(declared(job(f"more-{at}")) for at in range(3)))
    assert state_bytes(before) != picture
