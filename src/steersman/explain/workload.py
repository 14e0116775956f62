"""The whole answer to `steer explain NAME`: where it stands, why, what is in the way, and what happened."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

import msgspec

from steersman.decide.admit import too_large
from steersman.decide.quota import Book, demand
from steersman.explain.clusters import cluster_fix, trouble, troubled
from steersman.explain.fixes import nearest_fix
from steersman.explain.forecast import Forecast
from steersman.explain.history import Moment, history
from steersman.explain.refusals import REFUSALS_SHOWN_MAX, ROOM, Refusal, Rival, counts, refusals, rivals
from steersman.explain.standing import standing
from steersman.explain.words import describe, fix
from steersman.model.errors import ConflictError
from steersman.model.events import Event
from steersman.model.reasons import Code, Reason
from steersman.model.resources import WHOLE_MILLI, Resources
from steersman.model.snapshot import Phase, Run, Snapshot, WorkloadState
from steersman.model.units import format_bytes, format_cpu, format_duration_ms
from steersman.state.derive import shape_of
from steersman.state.draft import Draft


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """`where`, `why` and `size` are sentences; `facts` are further ones; `refused` counts nodes by code.
    `forecast` is that of a service."""

    name: str
    phase: str
    where: str
    why: str
    size: str
    code: str = ""
    fix: str | None = None
    facts: tuple[str, ...] = ()
    refused: tuple[tuple[str, int], ...] = ()
    refusals: tuple[Refusal, ...] = ()
    rivals: tuple[Rival, ...] = ()
    moments: tuple[Moment, ...] = ()
    forecast: Forecast | None = None


NAMES_SHOWN_MAX = 5
RIVALS_SHOWN_MAX = 3
NONE_YIELDS = (
    "wait until one of those in the way ends (they save no checkpoints, so none yields to a higher "
    "priority), stop one, or add a node to the fleet"
)


def explain(snapshot: Snapshot, name: str, records: Iterable[tuple[int, int, Event]]) -> Explanation:
    """Explain one workload; `records` are (position, time, event) of the journal, in order.

    Raises ConflictError when there is no such workload.
    """
    state = snapshot.workloads.get(name)
    if state is None:
        raise _unknown(snapshot, name)
    reason = current_reason(snapshot, state)
    queued = state.phase is Phase.QUEUED
    found = refusals(snapshot, state) if queued else ()
    against = in_the_way(snapshot, state) if queued else ()
    return Explanation(
        name=name,
        phase=state.phase.value,
        where=_where(snapshot, state),
        why="not judged yet" if reason is None else describe(reason),
        size=_size(state),
        code="" if reason is None else reason.code.value,
        fix=_fix(snapshot, state, reason, against),
        facts=(*standing(snapshot, state), *_troubles(snapshot, state), *_facts(state)),
        refused=tuple((code.value, count) for code, count in counts(found)),
        refusals=found[:REFUSALS_SHOWN_MAX],
        rivals=against[:RIVALS_SHOWN_MAX],
        moments=history(name, records),
    )


def _unknown(snapshot: Snapshot, name: str) -> ConflictError:
    names = [other for other, _ in snapshot.workloads.sorted_items()]
    near = get_close_matches(name, names, n=NAMES_SHOWN_MAX, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif names:
        hint = f"there are: {', '.join(names[:NAMES_SHOWN_MAX])}"
    else:
        hint = "declare one with: steer up FILE"
    return ConflictError(f"there is no workload {name!r}", hint=hint, code="unknown-workload")


def _fix(
    snapshot: Snapshot, state: WorkloadState, reason: Reason | None, against: Sequence[Rival]
) -> str | None:
    """What to do about it; for who could not run even on the empty fleet, what would let it run there."""
    mended = cluster_fix(snapshot, state.spec.resources.infra, reason)
    if mended is not None:
        return mended
    if reason is not None and reason.code is Code.NO_INFRA:
        return fix(reason, state.spec.name)
    found = nearest(snapshot, state)
    if found is not None and (reason is None or reason.code is not Code.WAITING_INPUT):
        return found
    if reason is not None and reason.code in ROOM and against and not any(one.resumes for one in against):
        return NONE_YIELDS
    return None if reason is None else fix(reason, state.spec.name)


def nearest(snapshot: Snapshot, state: WorkloadState) -> str | None:
    """The nearest change that would let it run; None when it has run, or could on the empty fleet."""
    if state.phase not in (Phase.DECLARED, Phase.QUEUED) or not snapshot.indexes.sizes:
        return None
    found = nearest_fix(state.spec, snapshot.indexes.sizes)
    return None if found is None else found.words


def current_reason(snapshot: Snapshot, state: WorkloadState) -> Reason | None:
    """Why it stands where it does: as recorded, or worked out when only the head of its queue has one."""
    if state.phase is Phase.DECLARED and state.reason is None:
        return too_large(state.spec, snapshot.indexes.sizes)
    if state.phase is Phase.QUEUED and state.spec.queue in snapshot.queues and not _is_awaited(state):
        refused = Book(Draft(snapshot)).refusal(state.spec.queue, demand(shape_of(state)))
        return _as_of(snapshot.now_ms, state.reason) if refused is None else refused
    return _as_of(snapshot.now_ms, state.reason)


def _as_of(now_ms: int, reason: Reason | None) -> Reason | None:
    """A reason that tells how long something still takes, as of now."""
    facts = {} if reason is None else dict(reason.facts)
    if reason is None or "until_ms" not in facts:
        return reason
    left_ms = max(int(facts["until_ms"]) - now_ms, 0)
    most_ms = int(facts.pop("max_duration_ms", 0)) - int(facts["left_ms"]) + left_ms
    facts["left_ms"] = left_ms
    if most_ms > 0:
        facts["max_duration_ms"] = most_ms
    return msgspec.structs.replace(reason, facts=tuple(sorted(facts.items())))


def in_the_way(snapshot: Snapshot, state: WorkloadState) -> tuple[Rival, ...]:
    """The runs that a queued workload waits for; who has no reason of its own yet waits for room."""
    reason = current_reason(snapshot, state)
    return rivals(snapshot, state, Code.NO_CORES if reason is None else reason.code)


def _is_awaited(state: WorkloadState) -> bool:
    return state.reason is not None and state.reason.code in (
        Code.WAITING_PREEMPTION,
        Code.WAITING_FAIR_SHARE,
    )


def _where(snapshot: Snapshot, state: WorkloadState) -> str:
    if state.run is not None:
        run = snapshot.runs[state.run]
        nodes = sorted({rank.placement.node for rank in run.ranks})
        capacity = f" ({capacity_of(run)})" if capacity_of(run) else ""
        return f"run {run.id} is {run.state.value} on {', '.join(nodes)}{capacity}{_for(snapshot, run)}"
    if state.phase is Phase.BACKOFF:
        left_ms = max(state.not_before_ms - snapshot.now_ms, 0)
        return f"waits {format_duration_ms(left_ms)} before its next try"
    if state.phase is Phase.QUEUED:
        return f"waits in queue {state.spec.queue} with priority {state.spec.priority}"
    if state.phase is Phase.DECLARED:
        return "declared, and held"
    return f"{state.phase.value} after {state.runs} run(s)"


def capacity_of(run: Run) -> str:
    """The market and pool that a run is on; nothing for on-demand nodes of no pool."""
    if not run.pool and run.market == "on-demand":
        return ""
    return f"{run.market}, pool {run.pool}" if run.pool else run.market


def _for(snapshot: Snapshot, run: Run) -> str:
    if run.started_ms is None:
        return ""
    return f" for {format_duration_ms(max(snapshot.now_ms - run.started_ms, 0))}"


def part_of(asked: Resources) -> str:
    """The part of a device that a rank asks for, as it is written; empty when it asks for whole ones."""
    share = format_cpu(asked.device_milli) if asked.device_milli < WHOLE_MILLI else ""
    return asked.mig_profile or share


def _size(state: WorkloadState) -> str:
    asked = state.spec.resources
    parts = [f"{format_cpu(asked.cpu_milli)} core(s)", f"{format_bytes(asked.memory_bytes)} of memory"]
    parts += [f"{part_of(asked) or count} x {kind}" for kind, count in asked.accelerators]
    ranks = state.spec.body.num_nodes
    text = ", ".join(parts)
    return f"{ranks} ranks of {text} each, as declared" if ranks > 1 else f"{text}, as declared"


def _troubles(snapshot: Snapshot, state: WorkloadState) -> Iterator[str]:
    if state.phase in (Phase.DECLARED, Phase.QUEUED):
        yield from map(trouble, troubled(snapshot, state.spec.resources.infra))


def _facts(state: WorkloadState) -> list[str]:
    facts = []
    if state.choice is not None:
        facts.append(f"runs on: {describe(state.choice.reason)}")
    if state.spec.body.work_ms is not None and state.saved_work_ms:
        saved = format_duration_ms(state.saved_work_ms // 1_000 * 1_000)
        facts.append(f"{saved} of {format_duration_ms(state.spec.body.work_ms)} of work are saved")
    if state.interruptions:
        facts.append(f"{state.interruptions} interruption(s)")
    if state.preemptions or state.attempts:
        facts.append(
            f"{state.runs} run(s): {state.preemptions} preempted, {state.attempts} failed and counted"
        )
    if state.spec.body.checkpoint.enabled:
        facts.append(_saving(state))
    if state.reservations:
        nodes = ", ".join(sorted({kept.node for kept in state.reservations}))
        facts.append(f"room is reserved for it on {nodes}")
    facts += [
        f"artifact {item.name}: {format_bytes(item.size_bytes)}, {item.digest}" for item in state.artifacts
    ]
    if state.removing:
        facts.append("will be forgotten once it has ended")
    return facts


def _saving(state: WorkloadState) -> str:
    saved = "nothing saved yet" if state.saved_step is None else f"newest checkpoint: step {state.saved_step}"
    if state.interval_ms is None:
        return saved
    kind = "declared" if state.spec.body.checkpoint.interval_ms is not None else "automatic (Young/Daly)"
    took = "" if state.save_ms is None else f"; a save takes {format_duration_ms(state.save_ms)}"
    return f"{saved}; saves every {format_duration_ms(state.interval_ms)}, {kind}{took}"
