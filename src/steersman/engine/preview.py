"""What would be decided: the live path without the journal and without the drivers."""

from collections.abc import Sequence

from steersman.decide.cycle import decide
from steersman.model.decisions import Plan
from steersman.model.events import Event, Observed
from steersman.model.snapshot import Snapshot
from steersman.state.fold import fold


def preview(snapshot: Snapshot, events: Sequence[Event], now_ms: int) -> tuple[Snapshot, Plan]:
    """The state with these events folded in at `now_ms`, and the plan that would follow. Changes nothing."""
    batch: list[Event] = [Observed(now_ms=now_ms), *events]
    after = fold(snapshot, enumerate(batch, start=snapshot.position + 1))
    return after, decide(after)
