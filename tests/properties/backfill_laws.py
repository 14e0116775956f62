"""Random lives of a home with gangs among small jobs, which keep to what they said, for the laws of backfill.

Theory: every run begins at once and ends within its `max_duration`, if it has one, and every end is a cycle
of its own, so that whoever is promised a start by a time must have started by then, to the millisecond.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace
from tests.properties.counting import View, room_on, usable
from tests.scenarios.home import RESUMABLE, Cycle, Home, declared, fleet, job, node

from steersman.decide.cycle import decide
from steersman.model.decisions import Hold, Reserve, Start
from steersman.model.events import Event, PolicySet
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase, RunState
from steersman.model.workload import Workload
from steersman.state.derive import rebuild

PROMISED = Code.ROOM_PROMISED
GRACE_MS = 500


class Life(NamedTuple):
    """What happens follows from the seed. `known`: every job has a max_duration."""

    seed: int
    steps: int = 30
    known: bool = True
    patience_ms: int | None = 0


class _Lived:
    def __init__(self, life: Life) -> None:
        self.life, self.chance = life, random.Random(life.seed)
        policy = Policy(preempt_run_ms_min=1_000, backfill_patience_ms=life.patience_ms)
        nodes = [node(name, cores=4, gib=64, devices=("A100",) * 2) for name in ("one", "three", "two")]
        self.home = Home(fleet(*nodes), PolicySet(policy=policy))
        self.ends: dict[RunId, int] = {}

    def news(self, number: int) -> Workload:
        chance = self.chance
        gang = chance.random() < 0.25
        known = self.life.known or chance.random() < 0.3
        made = job(
            f"job-{number:03}",
            cores=chance.choice((2, 3, 4)) if gang else chance.choice((1, 1, 2)),
            gpus=chance.choice(((), (), (("A100", 1),), (("A100", 2),))),
            ranks=chance.choice((1, 2, 3)) if gang else 1,
            priority=chance.choice((0,) * 9 + (5,)),
            max_duration_ms=chance.choice((2_000, 5_000, 20_000, 60_000)) if known else None,
        )
        if not gang and chance.random() < 0.15:
            part = replace(made.resources, accelerators=(("A100", 1),), device_milli=500)
            made = replace(made, resources=part)
        checkpoint = RESUMABLE if chance.random() < 0.3 else made.body.checkpoint
        return replace(made, body=replace(made.body, stop_grace_ms=GRACE_MS, checkpoint=checkpoint))

    def begin(self) -> None:
        """Who was started begins at once; it is fixed when it will end."""
        for name, state in list(self.home.snapshot.workloads.sorted_items()):
            if state.phase is not Phase.ACTIVE or state.run is None:
                continue
            run = self.home.snapshot.runs[state.run]
            if run.state is RunState.STARTING:
                self.home.begin(name)
                most_ms = state.spec.body.max_duration_ms or 30_000
                self.ends[run.id] = self.home.now_ms + self.chance.randrange(1_000, most_ms + 1)
            elif run.state is RunState.STOPPING and run.stop_ms is not None:
                self.ends[run.id] = min(self.ends[run.id], run.stop_ms + self.chance.randrange(GRACE_MS + 1))

    def until(self, at_ms: int) -> None:
        """Every end until then, each in its time."""
        while True:
            self.begin()
            if self.home.cycles[-1].plan.wake_at_ms == self.home.now_ms:
                self.home.cycle(after_ms=0)
                continue
            due = sorted((end, run) for run, end in self.ends.items() if end <= at_ms)
            if not due:
                return
            end_ms, run = due[0]
            del self.ends[run]
            if run in self.home.snapshot.runs:
                owner = self.home.snapshot.runs[run].workload
                self.home.end(owner, after_ms=max(end_ms - self.home.now_ms, 0))


def lived(life: Life) -> Home:
    """A home whose jobs and ends follow from the seed."""
    made = _Lived(life)
    for number in range(life.steps):
        events: list[Event] = [declared(made.news(number))]
        made.home.cycle(*events, after_ms=0)
        made.until(made.home.now_ms + made.chance.choice((0, 0, 500, 3_000)))
    made.until(made.home.now_ms + 20_000_000)
    return made.home


class Promised(NamedTuple):
    """A promise as it was made: by when, and the runs that were on its nodes."""

    until_ms: int | None
    runs: frozenset[RunId]


def _promised(cycle: Cycle, decision: Reserve) -> Promised:
    until = dict(decision.reason.facts).get("until_ms")
    nodes = (cycle.after.nodes[kept.node] for kept in decision.reservations)
    return Promised(
        None if until is None else int(until), frozenset(run for item in nodes for run, _ in item.leases)
    )


def promises(home: Home) -> Iterator[tuple[Cycle, dict[WorkloadName, Promised]]]:
    """The promises that stand after each cycle, as they were made."""
    standing: dict[WorkloadName, Promised] = {}
    for cycle in home.cycles:
        for decision in cycle.plan.decisions:
            if isinstance(decision, Reserve | Start):
                standing.pop(decision.workload, None)
            if isinstance(decision, Reserve) and decision.reason.code is PROMISED:
                standing[decision.workload] = _promised(cycle, decision)
        yield cycle, dict(standing)


def who_is_promised_a_start_starts_by_then(home: Home) -> None:
    """Nothing that came behind delays it: while its promise stands, its time is not past."""
    for cycle, standing in promises(home):
        for name, promise in standing.items():
            if promise.until_ms is not None:
                assert cycle.after.now_ms <= promise.until_ms, (name, promise)


def expected_ms(cycle: Cycle, name: WorkloadName) -> int | None:
    """When the promised room is there at the latest, by counting that shares nothing with the decider's."""
    table, state = cycle.after.workloads.edit(), cycle.after.workloads[name]
    for other, item in cycle.after.workloads.sorted_items():
        if other != name and item.reason is not None and item.reason.code is PROMISED:
            table[other] = replace(item, reservations=())  # they are served in their own time
    view = View(replace(cycle.after, workloads=table.freeze()))
    ends = {}
    for _, run in cycle.after.runs.sorted_items():
        owner = cycle.after.workloads[run.workload].spec.body
        if run.state is RunState.STOPPING:
            ends[run.id] = (run.stop_ms or 0) + owner.stop_grace_ms
        elif owner.max_duration_ms is not None:
            begun = run.decided_ms if run.started_ms is None else run.started_ms
            ends[run.id] = begun + owner.max_duration_ms + owner.stop_grace_ms
    for at in (cycle.after.now_ms, *sorted(ends.values())):
        gone = [run for _, run in cycle.after.runs.sorted_items() if ends.get(run.id, at + 1) <= at]
        ranks = sum(
            min(room_on(view, kept.node, name, gone), kept.amount.cpu_milli // state.spec.resources.cpu_milli)
            for kept in state.reservations
        )
        if ranks >= state.spec.body.num_nodes:
            return at
    return None


def unknown_ends_are_waited_for_and_no_others(home: Home) -> None:
    """While nobody knows when the promised room is there, a run that was there at first is in the way."""
    for cycle, standing in promises(home):
        for name, promise in standing.items():
            there = any(run in cycle.after.runs for run in promise.runs)
            assert there or expected_ms(cycle, name) is not None, (name, promise)


def a_promised_start_never_moves_later(home: Home) -> None:
    """From cycle to cycle, while the promise stands, once its time is known."""
    before: dict[WorkloadName, tuple[Promised, int]] = {}
    for cycle, standing in promises(home):
        now: dict[WorkloadName, tuple[Promised, int]] = {}
        for name, promise in standing.items():
            at = expected_ms(cycle, name)
            if at is None:
                assert promise.until_ms is None, name
                assert name not in before or before[name][0] is not promise, name
                continue
            if name in before and before[name][0] is promise:
                assert at <= max(before[name][1], cycle.after.now_ms), (name, promise)
            now[name] = (promise, at)
        before = now


def who_is_held_back_is_held_for_somebody_before_it(home: Home) -> None:
    """For one that has room promised, or had until this cycle, and is of no lower priority."""
    before: set[WorkloadName] = set()
    for cycle, standing in promises(home):
        made = {item.workload for item in cycle.plan.decisions if item.reason.code is PROMISED}
        held_for, before = before | set(standing) | made, set(standing)
        for decision in cycle.plan.decisions:
            if decision.reason.code is Code.WAITING_BACKFILL:
                holder = WorkloadName(str(dict(decision.reason.facts)["by"]))
                mine = cycle.after.workloads[decision.workload].spec.priority
                assert holder in held_for, decision
                assert cycle.after.workloads[holder].spec.priority >= mine, decision


def what_is_suggested_works(home: Home) -> None:
    """With the max_duration that the fix names, who was held back starts in that very cycle."""
    for cycle in home.cycles:
        for decision in cycle.plan.decisions:
            most = dict(decision.reason.facts).get("max_duration_ms")
            if decision.reason.code is not Code.WAITING_BACKFILL or most is None:
                continue
            assert isinstance(decision, Hold)
            table = cycle.seen.workloads.edit()
            state = table[decision.workload]
            body = replace(state.spec.body, max_duration_ms=int(most))
            table[decision.workload] = replace(state, spec=replace(state.spec, body=body))
            mended = replace(cycle.seen, workloads=table.freeze())
            plan = decide(replace(mended, indexes=rebuild(mended)))
            assert any(
                isinstance(item, Start) and item.workload == decision.workload for item in plan.decisions
            ), decision


def a_memo_changes_nothing(home: Home) -> None:
    """Every plan follows from what was seen alone."""
    for cycle in home.cycles:
        assert decide(cycle.seen) == cycle.plan


def nobody_is_held_back(home: Home) -> None:
    """Nothing is promised, and whoever could start has started."""
    for cycle in home.cycles:
        codes = {decision.reason.code for decision in cycle.plan.decisions}
        assert not codes & {PROMISED, Code.WAITING_BACKFILL}
        view = View(cycle.after)
        for name, state in cycle.after.workloads.sorted_items():
            if state.phase is Phase.QUEUED:
                nodes = [NodeId(key) for key, item in view.nodes.items() if usable(item)]
                room = sum(room_on(view, key, name) for key in nodes)
                assert room < state.spec.body.num_nodes, name


LAWS = (
    who_is_promised_a_start_starts_by_then,
    unknown_ends_are_waited_for_and_no_others,
    a_promised_start_never_moves_later,
    who_is_held_back_is_held_for_somebody_before_it,
    what_is_suggested_works,
    a_memo_changes_nothing,
)
