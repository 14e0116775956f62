"""Decisions held against a snapshot that is fresher than theirs: the last look before intent is recorded."""

from collections.abc import Sequence

from steersman.model.decisions import Decision
from steersman.model.snapshot import Snapshot
from steersman.state.apply import apply_decision
from steersman.state.check import holds
from steersman.state.draft import Draft


def still_valid(snapshot: Snapshot, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """Those decisions that still hold, each on the snapshot with the earlier ones applied."""
    draft = Draft(snapshot)
    valid: list[Decision] = []
    for decision in decisions:
        if holds(draft, decision):
            apply_decision(draft, decision, len(valid))
            valid.append(decision)
    return tuple(valid)
