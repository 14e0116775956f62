"""How long jobs take, learned from what ran: classes, buckets, and the fold of a stint.

Theory of operation. Attained service falls in log-spaced buckets. Each class that a job belongs to (coarse to
fine, all known when it is declared) keeps a count and a sum of log durations. A job's scale is the mean,
shrunk down that chain: a class of which little is known speaks like its parent. There is one histogram, over
attained bucket less scale bucket: ends, and exposure. A job that still runs adds exposure and no end, so that
censoring is exact (a hazard constant in each piece).

The classes of a live job: all; how many devices it holds; its queue and owner beside; and the stem of its
name. Size tells most of what is known of everybody; who runs it is the best single predictor that traces know
(the same people run the same kind of job); and jobs that are one family are named alike (``sweep-1``,
``sweep-2``). Labels are left out: what their keys mean is anybody's.

What is used for the order is renewed only when noticeably more was learned, so that it stays put in between.
"""

import math
from bisect import bisect_right
from typing import NamedTuple

from steersman.model.durations import BUCKETS, Learned, Tally
from steersman.model.queue import ACCELERATORS
from steersman.model.resources import WHOLE_MILLI, Resources
from steersman.model.snapshot import Shape
from steersman.model.table import Table
from steersman.model.workload import Workload
from steersman.state.usage import amounts_of

FIRST_EDGE_S = 64
"""About one restart: below it, durations do not differ in effect. 64 s times 2 ** 23.5 is 24 years."""
STEP_NATS = math.log(2) / 2
"""Width of a bucket: a factor of the square root of 2, in which a heavy-tailed hazard hardly moves."""
EDGES_S = (0, *(round(FIRST_EDGE_S * 2 ** (k / 2)) for k in range(BUCKETS)))
SHORTEST_S = 60
"""A job that ended sooner counts as this long in the scale of its classes, for the same reason."""
PRIOR_LOG_MILLI = 9_000
"""Milli-nats of the typical duration when nothing has ended: 2.25 h."""
SHRINK = (1, 3, 3, 3)
"""Weight of the parent's mean at each level of the chain of classes, in jobs; deeper levels as the last."""
REFRESH_SHARE = 50
"""The order stands on a new version when one fiftieth more was learned: 2 % more moves no index by much."""
CLASSES_MAX = 20_000
"""So many classes are remembered; beyond them new fine ones are not, and speak like their parents."""
COARSE = 2
"""The first levels of a chain are remembered in any case: there are few of them."""


class Stint(NamedTuple):
    """A piece of a job's service: after what it had attained, how long, and whether the job ended with it."""

    classes: tuple[str, ...]
    attained_s: int
    ran_s: int
    ended: bool


def is_ordered(spec: Workload) -> bool:
    """Whether it is a job of unknown duration on accelerators: what a service needs never ends by itself."""
    return spec.body.program == "command" and bool(spec.resources.accelerators)


def devices_milli(asked: Resources | Shape, ranks: int) -> int:
    """What so many ranks hold of accelerators, in thousandths of a device; at least one."""
    return max(dict(amounts_of(asked)).get(ACCELERATORS, 0) * ranks, 1)


def classes_of(spec: Workload) -> tuple[str, ...]:
    """What is known of a job when it is declared, from coarse to fine."""
    size = f"devices={devices_milli(spec.resources, spec.body.num_nodes) / WHOLE_MILLI:g}"
    whose = f"{size} queue={spec.queue} owner={spec.owner or ''}"
    return ("all", size, whose, f"{whose} name={stem_of(spec.name)}")


def stem_of(name: str) -> str:
    """A name without the number at its end; the whole name when it is nothing else."""
    return name.rstrip("0123456789").rstrip("-_.") or name


def bucket(seconds: int) -> int:
    """The bucket in which so much attained service falls; what is beyond the last edge falls in the last."""
    return min(bisect_right(EDGES_S, seconds), BUCKETS) - 1


def _log_milli(learned: Learned, classes: tuple[str, ...]) -> float:
    """Milli-nats of the typical duration: means of the classes, each shrunk to its parent's."""
    mean = float(PRIOR_LOG_MILLI)
    for level, name in enumerate(classes):
        tally = learned.classes.get(name)
        if tally is not None:
            weight = SHRINK[min(level, len(SHRINK) - 1)]
            mean = (tally.log_milli + weight * mean) / (tally.ended + weight)
    return mean


def scale_bucket(learned: Learned, classes: tuple[str, ...]) -> int:
    """The bucket of the typical duration of a chain of classes."""
    place = round((_log_milli(learned, classes) / 1000 - math.log(FIRST_EDGE_S)) / STEP_NATS) + 1
    return min(max(place, 0), BUCKETS - 1)


def typical_s(learned: Learned, classes: tuple[str, ...]) -> int:
    """The typical duration of a chain of classes: a geometric mean."""
    return round(math.exp(_log_milli(learned, classes) / 1000))


def fold(learned: Learned, stint: Stint) -> Learned:
    """What is known after one stint: its exposure and, if it ended the job, one end."""
    begin_s, end_s = stint.attained_s, stint.attained_s + stint.ran_s
    shift = BUCKETS - scale_bucket(learned, stint.classes)
    first, last = bucket(begin_s), bucket(max(end_s - 1, begin_s))
    exposed = list(learned.exposed_milli)
    for place in range(first, last + 1):
        low_s, high_s = EDGES_S[place], EDGES_S[place + 1]
        until_s = end_s if place == last else high_s
        exposed[place + shift] += round(1000 * (until_s - max(begin_s, low_s)) / (high_s - low_s))
    ends, classes = learned.ends, learned.classes
    if stint.ended:
        at = last + shift
        ends = (*ends[:at], ends[at] + 1, *ends[at + 1 :])
        classes = _counted(classes, stint.classes, round(1000 * math.log(max(end_s, SHORTEST_S))))
    return Learned(classes, ends, tuple(exposed), learned.stints + 1)


def _counted(classes: Table[Tally], names: tuple[str, ...], log_milli: int) -> Table[Tally]:
    editor = classes.edit()
    for level, name in enumerate(names):
        before = editor.get(name)
        if before is None and level >= COARSE and len(classes) >= CLASSES_MAX:
            break
        ended, sum_milli = before or (0, 0)
        editor[name] = Tally(ended + 1, sum_milli + log_milli)
    return editor.freeze()


def refreshed(used: Learned, learned: Learned) -> Learned:
    """What the order stands on from now on: what was learned, when that is noticeably more than is used."""
    return learned if learned.stints > used.stints + used.stints // REFRESH_SHARE else used
