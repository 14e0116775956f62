"""Who takes turns: jobs on accelerators yield to those of their priority that are likelier to end soon.

Theory of operation. This acts only when the policy orders by index, and then at most once a period: in the
cycle that sees a turn (`state.attained`). It comes after `schedule`, on what that leaves: whoever is queued
now does not fit as things are. The jobs of one kind of accelerator, one priority and one queue (all that are
not declared count as one) are held against one another by `order.choose`, as in `steer replay jobs`: those
that run and can resume, and those that wait. So priority is never touched, nor what queues owe one another:
between queues it is quota, fair share and reclaim that say who yields.

A run yields only to a job that was chosen and outranks it, its own value counted three times; first those
that were not chosen, then, when the chosen one needs room that only others could give, any that it outranks.
Room is made as for a preemption by priority (`preempt`): victims that lose the least work, by the rules of
what fits, and what they give back is reserved for the winner. Where nothing of this lets the winner start,
nobody yields.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from steersman.decide import order, preempt
from steersman.decide.lineup import group_in
from steersman.decide.order import Group, Indices, Memo
from steersman.decide.quota import Book, demand
from steersman.model.decisions import Decision, Reservation, Reserve, Stop
from steersman.model.devices import will_do
from steersman.model.ids import RunId, WorkloadName
from steersman.model.queue import Amounts
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import Line, Run, Shape, Snapshot, WorkloadState
from steersman.model.table import Entry
from steersman.state import durations
from steersman.state.apply import apply_decision
from steersman.state.attained import attained_ms
from steersman.state.derive import can_yield, shape_of
from steersman.state.draft import Draft
from steersman.state.usage import added, usage_of


class Field(NamedTuple):
    """Who is held against one another: a kind of accelerator, a priority, a queue or all undeclared ones."""

    kind: str
    priority: int
    group: str


class Rivals(NamedTuple):
    """Those of a field: `runs` by workload, and their `values` in micro-nats, larger first; who `waits`, and
    how it stands in the order; all of them in `groups`; what the runs hold, in thousandths of a device."""

    runs: dict[str, RunId]
    values: dict[str, int]
    waits: dict[str, Group]
    groups: order.Groups
    held: list[int]


def is_turn(snapshot: Snapshot) -> bool:
    """Whether this cycle takes a turn."""
    return snapshot.policy.order != "age" and snapshot.durations.turned_at == snapshot.observed_at


def next_turn_ms(snapshot: Snapshot) -> int | None:
    """When a turn comes next while somebody waits and somebody could yield; None: nobody does."""
    policy, indexes = snapshot.policy, snapshot.indexes
    if policy.order == "age" or not (indexes.lines and indexes.victims):
        return None
    return max(snapshot.durations.turned_ms + policy.order_period_ms, snapshot.now_ms)


def rotate(snapshot: Snapshot, memo: Memo) -> tuple[Decision, ...]:
    """Who yields to whom for the order's sake, at a turn. `memo` changes no decision."""
    restart_s = snapshot.policy.restart_ms_prior // 1000
    return _Turn(snapshot, memo.indices(snapshot.durations.used, restart_s)).taken()


class _Turn:
    """One turn in the making: what was proposed is applied, so that nobody yields twice."""

    def __init__(self, snapshot: Snapshot, indices: Indices) -> None:
        self._snapshot = snapshot
        self._indices = indices
        self._now_s = snapshot.now_ms // 1000
        self._draft = Draft(snapshot)
        self._book = Book(self._draft)
        self._decisions: list[Decision] = []
        self._least: dict[tuple[str, str], dict[int, int]] = {}
        """By kind and group and priority, the fewest devices that one who waits asks for."""

    def taken(self) -> tuple[Decision, ...]:
        """Field by field, the highest priority first."""
        tries = self._snapshot.policy.preempt_attempts_per_cycle
        fields = self._fields()
        for field in sorted(fields, key=lambda item: (-item.priority, item)):
            rivals = fields[field]
            capacity = sum(rivals.held) + self._free_milli(field.kind)
            chosen = order.choose(rivals.groups, capacity, self._now_s, self._indices, {})
            winners = [name for name in chosen if name in rivals.waits][:tries]
            tries -= len(winners)
            if winners:
                self._settle(field, rivals, winners, frozenset(chosen))
        return tuple(self._decisions)

    # ---- who is held against whom -------------------------------------------------------------------------

    def _fields(self) -> dict[Field, Rivals]:
        """The fields in which somebody runs who can resume, with all that run and wait in them."""
        found: dict[Field, Rivals] = {}
        for run in self._running():
            self._add_run(found, run)
        for line, entries in self._waiting():
            self._add_line(found, line, entries)
        for rivals in found.values():
            for jobs in rivals.groups.values():
                jobs.sort()
        return found

    def _add_run(self, found: dict[Field, Rivals], run: Run) -> None:
        state = self._snapshot.workloads[run.workload]
        spec, arrival_s = state.spec, state.declared_ms // 1000
        place = durations.bucket(attained_ms(state, run, self._snapshot.now_ms) // 1000)
        devices = durations.devices_milli(spec.resources, spec.body.num_nodes)
        stands = Group("", durations.classes_of(spec), devices, place, order.RUNNING)
        value = value_of(stands, arrival_s, self._now_s, self._indices)
        for kind in self._kinds_of(run):
            field = Field(kind, spec.priority, self._book.group(run.queue))
            rivals = found.setdefault(field, Rivals({}, {}, {}, {}, []))
            rivals.runs[spec.name], rivals.values[spec.name] = run.id, value
            rivals.groups.setdefault(stands, []).append((arrival_s, spec.name))
            rivals.held.append(devices)

    def _add_line(self, found: dict[Field, Rivals], line: Line, entries: Iterable[Entry]) -> None:
        stands, group = group_in(line), self._book.group(line.shape.queue)
        jobs: dict[int, list[tuple[int, str]]] = {}
        for priority, _, name in entries:
            arrival_s = self._snapshot.workloads[name].declared_ms // 1000
            jobs.setdefault(-priority, []).append((arrival_s, name))
        asked = line.shape.accelerators[0][0]
        for kind in sorted({field.kind for field in found if will_do(asked, field.kind)}):
            least = self._least.setdefault((kind, group), {})
            for priority, ones in jobs.items():
                least[priority] = min(stands.devices, least.get(priority, stands.devices))
                rivals = found.get(Field(kind, priority, group))
                if rivals is not None:
                    rivals.groups.setdefault(stands, []).extend(ones)
                    rivals.waits.update((name, stands) for _, name in ones)

    def _running(self) -> Iterator[Run]:
        """Every run once of a job that is ordered and could yield."""
        for name in sorted({entry[2] for entry in self._snapshot.indexes.victims}):
            run = self._snapshot.runs[name]
            if durations.is_ordered(self._snapshot.workloads[run.workload].spec):
                yield run

    def _waiting(self) -> Iterator[tuple[Line, Iterable[Entry]]]:
        """Those that wait, by line; who waits for victims to go has had its turn."""
        for line, entries in self._snapshot.indexes.lines.items():
            if line.classes and not line.kept:
                yield line, entries

    def _kinds_of(self, run: Run) -> list[str]:
        """The kinds of the devices that its ranks hold."""
        kinds: set[str] = set()
        for rank in run.ranks:
            node = self._snapshot.nodes[rank.placement.node].node
            kinds |= {device.kind for device in node.devices if device.id in rank.placement.devices}
        return sorted(kinds)

    def _free_milli(self, kind: str) -> int:
        """Wholly free devices of a kind, in thousandths."""
        capacity = self._snapshot.indexes.capacity.items()
        return sum(1000 * dict(free).get(kind, 0) * len(nodes) for free, nodes in capacity)

    # ---- who yields ---------------------------------------------------------------------------------------

    def _settle(self, field: Field, rivals: Rivals, winners: list[str], chosen: frozenset[str]) -> None:
        """Have room made for each of the chosen that wait, as far as that can be."""
        able = {name: value for name, value in rivals.values.items() if self._may_stop(rivals.runs[name])}
        for name in winners:
            state, stands = self._draft.workloads[WorkloadName(name)], rivals.waits[name]
            if state.reservations or self._is_passed_over(stands, field):
                continue  # its turn came in another kind of accelerator, or is not before somebody else's
            value = value_of(stands, state.declared_ms // 1000, self._now_s, self._indices)
            below = [other for other, theirs in able.items() if theirs < value]
            spare = [other for other in below if other not in chosen]
            for others in (spare, below):
                runs = frozenset(rivals.runs[other] for other in others)
                found = self._found(state, runs) if runs else None
                if found is not None:
                    self._propose(state, *found)
                    for victim in found[0]:
                        del able[self._draft.runs[victim].workload]
                    break

    def _is_passed_over(self, stands: Group, field: Field) -> bool:
        """Whether somebody of a higher priority waits who may need no more: room that is made is theirs."""
        waiting = self._least[field.kind, field.group].items()
        return any(priority > field.priority and least <= stands.devices for priority, least in waiting)

    def _may_stop(self, name: RunId) -> bool:
        run = self._draft.runs[name]
        begun_ms = preempt.protected_until_ms(run, self._draft.policy.preempt_run_ms_min)
        return begun_ms <= self._draft.now_ms and can_yield(self._draft.workloads[run.workload], run)

    def _found(
        self, state: WorkloadState, runs: frozenset[RunId]
    ) -> tuple[tuple[RunId, ...], tuple[Reservation, ...]] | None:
        """Victims among these runs and what is then reserved; None when that does not let the job start."""
        shape = shape_of(state)
        asked = demand(shape)
        made, _ = preempt.find(self._draft, _Yielding(runs), state, asked)
        if made is None or not self._together(shape, made.reservations):
            return None
        victims = made.victims
        # What else could keep it out is a budget that is used up: then nobody of its queue is left to yield.
        if self._book.refusal(shape.queue, asked) is not None:
            victims = self._within_quota(shape, asked, victims, runs)
        return (victims, made.reservations) if victims else None

    def _together(self, shape: Shape, kept: tuple[Reservation, ...]) -> bool:
        """Whether the ranks come together as they ask for."""
        if not shape.topology:
            return True
        nodes = [self._draft.nodes[item.node].node for item in kept]
        places = {node.id if shape.topology == "node" else (node.site, node.zone) for node in nodes}
        return len(places) == 1

    def _within_quota(
        self, shape: Shape, asked: Amounts, victims: tuple[RunId, ...], runs: Iterable[RunId]
    ) -> tuple[RunId, ...]:
        """These victims, and the cheapest others until the quota suffices; none: it never does."""
        queue, now_ms = self._book.queues[shape.queue], self._draft.now_ms
        others = sorted(
            (preempt.lost_work(self._draft.runs[run], now_ms), run) for run in runs if run not in victims
        )
        left = [run for _, run in others]
        while not self._book.would_fit(queue, asked, {queue.name: self._given_back(victims)}):
            if not left:
                return ()
            victims = (*victims, left.pop(0))
        return victims

    def _given_back(self, victims: Iterable[RunId]) -> Amounts:
        back: Amounts = ()
        for run in victims:
            back = added(back, usage_of(self._draft.runs[run]))
        return back

    def _propose(
        self, state: WorkloadState, victims: tuple[RunId, ...], kept: tuple[Reservation, ...]
    ) -> None:
        shape = shape_of(state)
        for run in victims:
            self._book.grant(self._draft.runs[run].queue, usage_of(self._draft.runs[run]), -1)
        self._book.grant(shape.queue, demand(shape))
        why = reason(Code.WAITING_PREEMPTION, victims=len(victims), victim=victims[0], rank="out-ranked")
        made: list[Decision] = [Reserve(workload=state.spec.name, reservations=kept, reason=why)]
        made += [self._stop(state, run) for run in victims]
        for decision in made:
            apply_decision(self._draft, decision, 0)
        self._decisions += made

    def _stop(self, winner: WorkloadState, victim: RunId) -> Stop:
        run = self._draft.runs[victim]
        loser = self._draft.workloads[run.workload]
        why = reason(
            Code.OUT_RANKED,
            by=winner.spec.name,
            by_attained_ms=winner.attained_ms,
            by_typical_ms=self._typical_ms(winner),
            attained_ms=attained_ms(loser, run, self._draft.now_ms),
            typical_ms=self._typical_ms(loser),
            lost_core_ms=preempt.lost_work(run, self._draft.now_ms),
        )
        return Stop(
            workload=run.workload,
            run=victim,
            cause="preempted",
            grace_ms=loser.spec.body.stop_grace_ms,
            reason=why,
        )

    def _typical_ms(self, state: WorkloadState) -> int:
        return 1000 * durations.typical_s(self._indices.learned, durations.classes_of(state.spec))


def value_of(stands: Group, arrival_s: int, now_s: int, indices: Indices) -> int:
    """Micro-nats by which a job stands in the order, larger first, as `order.choose` takes it."""
    return order.base_priority(stands, indices) + order.age_bonus(now_s, arrival_s, stands.bucket)


class _Yielding(Book):
    """What `preempt` asks of the quotas, when exactly these runs may yield: all are of the winner's queue."""

    def __init__(self, runs: frozenset[RunId]) -> None:
        self._runs = runs

    def ceiling(self, winner: WorkloadState) -> int:
        return winner.spec.priority + 1

    def may_yield(self, winner: WorkloadState, asked: Amounts, run: Run, loser: WorkloadState) -> bool:
        del winner, asked, loser
        return run.id in self._runs

    def only_borrowed(self, winner: str, asked: Amounts, runs: Iterable[Run]) -> bool:
        del winner, asked, runs
        return True
