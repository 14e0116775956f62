"""Where a job stands among those that wait for the same accelerators, and why, when the order is by index."""

import math
from collections.abc import Iterator

from steersman.decide.lineup import lined_up
from steersman.decide.order import Memo
from steersman.decide.quota import Book
from steersman.model.devices import will_do
from steersman.model.resources import ALTERNATIVES, ANY_KIND
from steersman.model.snapshot import Phase, Snapshot, WorkloadState
from steersman.model.table import Entry
from steersman.model.units import format_duration_ms
from steersman.state import durations
from steersman.state.derive import shape_of
from steersman.state.draft import Draft


def standing(snapshot: Snapshot, state: WorkloadState) -> list[str]:
    """Sentences on the place of a queued job and what it follows from; none when the order is by age."""
    by_age = snapshot.policy.order == "age" or not durations.is_ordered(state.spec)
    if by_age or state.phase is not Phase.QUEUED:
        return []
    entries = sorted(_waiting(snapshot, state))
    names = [entry[2] for entry in entries]
    if state.spec.name not in names:
        return []  # it waits for a pool to come
    learned = snapshot.durations.used
    typical_ms = 1000 * durations.typical_s(learned, durations.classes_of(state.spec))
    attained_ms = state.attained_ms // 1000 * 1000
    kinds = state.spec.resources.accelerators[0][0]
    place = names.index(state.spec.name) + 1
    where = f"number {place} of {len(names)} that wait for {kinds} in its queue"
    had = f"it has had {format_duration_ms(attained_ms)}"
    return [
        f"{where}: first by priority, then who is likelier to end soon for the devices it takes",
        f"jobs like it typically take {_rough(typical_ms)} ({_known(snapshot, state)}); {had}",
    ]


def _waiting(snapshot: Snapshot, state: WorkloadState) -> Iterator[Entry]:
    """Those of its queue that could take what it asks for, as they stand in the order."""
    book = Book(Draft(snapshot))
    group, mine = book.group(state.spec.queue), shape_of(state).accelerators[0][0]
    for shape, entries in lined_up(snapshot, Memo(), book.group):
        here = shape.accelerators and book.group(shape.queue) == group
        if here and _overlap(mine, shape.accelerators[0][0]):
            yield from entries


def _overlap(one: str, other: str) -> bool:
    """Whether a device could do for both."""
    if ANY_KIND in (one, other):
        return True
    return any(will_do(other, kind) for kind in one.split(ALTERNATIVES))


def _rough(duration_ms: int) -> str:
    """A duration to two digits: more than that is not known."""
    digits = max(int(math.log10(max(duration_ms, 1))) - 1, 0)
    return format_duration_ms(round(duration_ms, -digits) // 1000 * 1000)


def _known(snapshot: Snapshot, state: WorkloadState) -> str:
    """How much this rests on: the finest class of which something is known."""
    classes = snapshot.durations.used.classes
    for name in reversed(durations.classes_of(state.spec)):
        tally = classes.get(name)
        if tally is not None:
            whose = "all jobs" if name == "all" else f"jobs of {name}"
            return f"learned of {tally.ended} that ended, {whose}"
    return "nothing has ended yet: a guess"
