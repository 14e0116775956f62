"""Who is taken first of those that wait, when the policy orders by index. A part of `schedule`.

Theory of operation. By age the queue of each shape is as the index `pending` holds it. By index the jobs of a
shape that ask for accelerators stand in lines (the index `lines`): in a line all are alike, so that its order
is that of age; the lines of a shape are merged lazily by the Gittins index of a device-second and what age
adds to it (`order`). A cycle thus costs one look at each line and what it takes, however long the lines are.

Priority comes first, always. Within a priority and a queue all jobs that are ordered stand together where the
oldest of them stands: so nobody who is not ordered (jobs without accelerators, what services need) waits for
ever behind them, for the oldest is served in bounded time (its age raises it), nor they behind them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import merge

from steersman.decide.order import NEW, PREEMPTED, Group, Indices, Memo, age_bonus, base_priority
from steersman.model.snapshot import Line, Shape, Snapshot
from steersman.model.table import Entry, SortedSeq
from steersman.state.durations import devices_milli

GroupOf = Callable[[str], str]
"""The queue itself when it is declared, else the group of those that are not."""


def lined_up(snapshot: Snapshot, memo: Memo, group_of: GroupOf) -> Iterable[tuple[Shape, Iterable[Entry]]]:
    """The queued workloads, by shape, in the order in which they are taken.

    An entry ends with the name; entries of all shapes compare with one another. For whom room is reserved is
    not interchangeable with others of its shape, and stands by itself.
    """
    indexes = snapshot.indexes
    if snapshot.policy.order == "age":
        return indexes.pending.items()
    indices = memo.indices(snapshot.durations.used, snapshot.policy.restart_ms_prior // 1000)
    oldest = _oldest(snapshot, group_of)
    streams: dict[tuple[Shape, bool], list[Iterator[Entry]]] = {}
    for line, entries in indexes.lines.items():
        ages = oldest[group_of(line.shape.queue)]
        stream = _in_line(snapshot, indices, ages, line, entries)
        streams.setdefault((line.shape, line.kept), []).append(stream)
    by_index = [(shape, merge(*lines)) for (shape, _), lines in streams.items()]
    by_age = [(shape, map(_by_age, queue)) for shape, queue in indexes.pending.items()]
    return [*by_index, *(item for item in by_age if not item[0].accelerators)]


def _by_age(entry: Entry) -> Entry:
    priority, age, name = entry
    return (priority, (age, 0, age), name)


def _oldest(snapshot: Snapshot, group_of: GroupOf) -> dict[str, dict[int, int]]:
    """Per group and negated priority, the age of the oldest of the ordered jobs."""
    found: dict[str, dict[int, int]] = {}
    for line, entries in snapshot.indexes.lines.items():
        ages = found.setdefault(group_of(line.shape.queue), {})
        first = entries.first() if line.classes else None
        while first is not None:
            ages[first[0]] = min(first[1], ages.get(first[0], first[1]))
            first = next(entries.since((first[0] + 1,)), None)
    return found


def _in_line(
    snapshot: Snapshot, indices: Indices, oldest: Mapping[int, int], line: Line, entries: SortedSeq
) -> Iterator[Entry]:
    if not line.classes:
        yield from map(_by_age, entries)
        return
    worth = base_priority(group_in(line), indices)
    now_s = snapshot.now_ms // 1000
    for priority, age, name in entries:
        arrival_s = snapshot.workloads[name].declared_ms // 1000
        value = worth + age_bonus(now_s, arrival_s, line.bucket)
        yield (priority, (oldest[priority], -value, age), name)


def group_in(line: Line) -> Group:
    """The group of `order` that those in a line are of. Within a queue the queue has no say."""
    devices = devices_milli(line.shape, line.shape.num_nodes)
    stage = PREEMPTED if line.resumed else NEW
    return Group("", line.classes, devices, line.bucket, stage)
