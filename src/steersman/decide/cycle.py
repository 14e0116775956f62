"""One cycle: the deciders in a fixed order, each on the snapshot with the earlier proposals applied.

Rule 1: only this module knows the deciders. Rule 2: every decided field has one owner:
    recover    what becomes of a run that ended or struggles; what a job runs on; checkpoint intervals
    autoscale  how many replicas a service should have
    rollout    which revision of it serves, and with which replicas
    budget     what runs in a queue that may spend nothing more
    admit      whether a workload may be queued, and whether it may go on
    schedule   where and when a queued workload runs, and who yields to it for priority or quota
    rotate     who yields to whom of the same priority, where jobs take turns
Rule 3: the plan follows from the snapshot alone; the same snapshot gives the same bytes.
"""

from steersman.decide.admit import admit
from steersman.decide.autoscale import autoscale
from steersman.decide.budget import spending
from steersman.decide.choose import SpotMemo
from steersman.decide.foresight import Memo as ForesightMemo
from steersman.decide.order import Memo as OrderMemo
from steersman.decide.placer import Placer
from steersman.decide.recover import recover
from steersman.decide.rollout import rollout
from steersman.decide.rotate import is_turn, next_turn_ms, rotate
from steersman.decide.schedule import schedule
from steersman.model.decisions import Decision, Forget, Plan
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import Snapshot
from steersman.state.apply import apply_decision
from steersman.state.draft import Draft


class Memo:
    """Work that may be kept from cycle to cycle of one home. The plan is the same without it."""

    def __init__(self) -> None:
        self.placer = Placer()
        self.foresight = ForesightMemo()
        self.spot = SpotMemo()
        self.order = OrderMemo()


def decide(snapshot: Snapshot, memo: Memo | None = None) -> Plan:
    """Everything that should be done now, and when to look again."""
    memo = Memo() if memo is None else memo
    decisions: list[Decision] = []
    wakes: list[int | None] = []

    def propose(made: tuple[Decision, ...], wake_at_ms: int | None = None) -> Snapshot:
        wakes.append(wake_at_ms)
        after = _with(snapshot, made, len(decisions))
        decisions.extend(made)
        return after

    snapshot = propose(recover(snapshot, memo.spot))
    snapshot = propose(*autoscale(snapshot, memo.foresight))
    snapshot = propose(*rollout(snapshot))
    admitted = admit(snapshot)
    snapshot = propose(admitted)
    snapshot = propose(*spending(snapshot))
    placed = schedule(snapshot, memo.placer, memo.order)
    if is_turn(snapshot):
        propose(rotate(propose(placed.decisions), memo.order))
    else:
        decisions += placed.decisions
    timer = snapshot.indexes.timers.first()
    wakes += [placed.wake_at_ms, timer[0] if timer else None, next_turn_ms(snapshot)]
    # A verdict of this cycle calls for another: of who waited for its subject, or of the service it was of.
    if snapshot.indexes.attention or any(isinstance(item, Forget) for item in admitted):
        wakes.append(snapshot.now_ms)
    idle = None
    if not decisions:
        queued = sum(len(queue) for queue in snapshot.indexes.pending.values())
        idle = reason(Code.NOTHING_TO_DO, queued=queued, live=len(snapshot.indexes.live))
    wake_at_ms = min((at for at in wakes if at is not None), default=None)
    return Plan(decisions=tuple(decisions), wake_at_ms=wake_at_ms, idle=idle, packing=placed.packing)


def _with(snapshot: Snapshot, decisions: tuple[Decision, ...], first: int) -> Snapshot:
    if not decisions:
        return snapshot
    draft = Draft(snapshot)
    for ordinal, decision in enumerate(decisions, start=first):
        apply_decision(draft, decision, ordinal)
    return draft.freeze()
