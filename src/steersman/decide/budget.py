"""What a queue may still spend: who has to wait for it, and who has to stop.

Theory of operation. What is held costs money and device time as time passes, whether anything is decided or
not; `QueueState.spent` and the index of usage say how much there is by now. A queue whose budget is used up
starts nothing, and what runs in it is told to end, with its grace, and waits in its queue for the next period
or a larger budget. The plan wakes at the moment when a budget will be used up, so that it is exceeded by no
more than one cycle and the grace. Capacity without a known price costs no money, only device time.
"""

from typing import NamedTuple

from steersman.model.decisions import Stop
from steersman.model.ids import RunId
from steersman.model.queue import ACCELERATORS, USD, USD_MICRO, Amounts, QueueState
from steersman.model.reasons import Code, Reason, reason
from steersman.model.snapshot import RunState, Snapshot
from steersman.state.usage import added, period_began_ms, spent_at


class Spending(NamedTuple):
    """What to stop, and when to look again (None: on the next event)."""

    decisions: tuple[Stop, ...]
    wake_at_ms: int | None


def exhausted(state: QueueState, held: Amounts, now_ms: int) -> Reason | None:
    """Why the queue may spend nothing now; None when it may."""
    limits = _limits(state)
    for (resource, limit), spent in zip(limits, spent_at(state, held, now_ms), strict=True):
        if limit is not None and spent >= limit:
            shown = state.spec.budget.usd_micro if resource == USD else limit
            facts: dict[str, str | int] = {"resource": resource, "limit": shown or 0}
            ends_ms = _period_ends_ms(state, now_ms)
            if ends_ms is not None:
                facts["left_ms"] = ends_ms - now_ms
            return reason(Code.BUDGET_EXHAUSTED, owner=f"queue {state.spec.name}", **facts)
    return None


def _limits(state: QueueState) -> tuple[tuple[str, int | None], tuple[str, int | None]]:
    budget = state.spec.budget
    usd = None if budget.usd_micro is None else budget.usd_micro * USD_MICRO
    return (USD, usd), (ACCELERATORS, budget.device_ms)


def _period_ends_ms(state: QueueState, now_ms: int) -> int | None:
    period_ms = state.spec.budget.period_ms
    return None if period_ms is None else period_began_ms(state, now_ms) + period_ms


def spending(snapshot: Snapshot) -> Spending:
    """Stop what runs in queues that may spend nothing, and wake when the next one may not, or may again."""
    decisions: list[Stop] = []
    wakes: list[int | None] = []
    for name, state in snapshot.queues.items():
        held = snapshot.indexes.usage.get(state.spec.name, ())
        why = exhausted(state, held, snapshot.now_ms)
        if why is None:
            wakes.append(_lasts_until_ms(state, held, snapshot.now_ms))
            continue
        wakes.append(_period_ends_ms(state, snapshot.now_ms))
        if added(held, snapshot.indexes.leaving.get(state.spec.name, ()), -1):
            decisions += _stops(snapshot, name, why)
    return Spending(tuple(decisions), min((at for at in wakes if at is not None), default=None))


def _lasts_until_ms(state: QueueState, held: Amounts, now_ms: int) -> int | None:
    """When the budget is used up if all goes on as it does; not looked for beyond the period's end."""
    rates, times_ms = dict(held), []
    for (resource, limit), spent in zip(_limits(state), spent_at(state, held, now_ms), strict=True):
        rate = rates.get(resource, 0)
        if limit is not None and rate:
            times_ms.append(now_ms - (spent - limit) // rate)
    ends_ms = _period_ends_ms(state, now_ms)
    return min([*times_ms, *([] if ends_ms is None else [ends_ms])]) if times_ms else None


def _stops(snapshot: Snapshot, queue: str, why: Reason) -> list[Stop]:
    found = []
    for (name,) in snapshot.indexes.live:
        run = snapshot.runs[RunId(name)]
        if run.queue == queue and run.state is not RunState.STOPPING:
            grace_ms = snapshot.workloads[run.workload].spec.body.stop_grace_ms
            found.append(
                Stop(workload=run.workload, run=run.id, cause="preempted", grace_ms=grace_ms, reason=why)
            )
    return found
