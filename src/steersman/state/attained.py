"""What service jobs attained, what was learned of it, and when those that share accelerators take turns.

Theory of operation. A stint of a job ends when its run has ended and is judged; whether the job's work ended
with it is for the ends of its ranks to say. While jobs take turns, what runs is counted at a turn as well,
when it has come to another bucket: so a long job is known to be long before it ends. A turn comes when the
last was a period ago or more, while somebody waits for accelerators and somebody runs who could yield; the
cycle that sees it takes it.
"""

from msgspec.structs import replace

from steersman.model.snapshot import Run, WorkloadState
from steersman.state import durations
from steersman.state.draft import Draft


def attained_ms(state: WorkloadState, run: Run | None, now_ms: int) -> int:
    """How long the job has run in this lineage, with the run that is under way or was the last."""
    if run is None or run.started_ms is None:
        return state.attained_ms
    until_ms = now_ms if run.ended_ms is None else run.ended_ms
    return state.attained_ms + max(until_ms - run.started_ms, 0)


def counted(draft: Draft, state: WorkloadState, run: Run, *, ended: bool = False) -> WorkloadState:
    """The workload once all that its run attained is in what was learned; `ended`: its work is done."""
    if not durations.is_ordered(state.spec):
        return state
    so_far_ms = attained_ms(state, run, draft.now_ms)
    before_s, after_s = state.counted_ms // 1000, so_far_ms // 1000
    if not ended and after_s <= before_s:
        return state
    stint = durations.Stint(durations.classes_of(state.spec), before_s, max(after_s - before_s, 0), ended)
    learned = durations.fold(draft.durations.learned, stint)
    draft.durations = replace(draft.durations, learned=learned)
    return replace(state, counted_ms=max(so_far_ms, state.counted_ms))


def pass_time(draft: Draft) -> None:
    """A look at the world: what the order stands on is renewed, and a turn that is due comes."""
    known = draft.durations
    used = durations.refreshed(known.used, known.learned)
    if used is not known.used:
        draft.durations = replace(known, used=used)
    if draft.policy.order == "age" or not _is_due(draft):
        return
    draft.durations = replace(draft.durations, turned_ms=draft.now_ms, turned_at=draft.position)
    for (name,) in list(draft.live.since(())):
        run = draft.runs[name]
        state = draft.workloads[run.workload]
        so_far_s = attained_ms(state, run, draft.now_ms) // 1000
        is_further = durations.bucket(so_far_s) > durations.bucket(state.counted_ms // 1000)
        if is_further and durations.is_ordered(state.spec):
            draft.put_workload(run.workload, counted(draft, state, run), run)


def _is_due(draft: Draft) -> bool:
    if draft.now_ms - draft.durations.turned_ms < draft.policy.order_period_ms:
        return False
    return bool(draft.lines) and draft.victims.first() is not None
