"""The least mean completion time that any order of gangs could reach, as the yardstick of a replay.

Theory of operation. Two things bound it from below, and the larger counts. No job takes less than its
duration. And no order beats one machine of all devices that serves the job with the least remaining service
first, as if a gang could use any number of devices: SRPT is optimal for the mean flow time on one machine
(Schrage 1968), and every schedule of gangs is a schedule of that machine. Restarts and rounds only add.
"""

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple


class Gang(NamedTuple):
    """A job of a trace: when it comes, what it holds all of while it runs, how long it must run in all."""

    arrival_s: float
    gpus: int
    duration_s: float
    model: str


def fluid_srpt_s(gangs: Sequence[Gang], capacity: int) -> float:
    """Mean flow time in seconds of the least remaining service first on one machine of `capacity` GPUs."""
    left: list[tuple[float, float]] = []  # GPU-seconds, arrival
    flow_s, now_s, coming = 0.0, gangs[0].arrival_s, 0
    while left or coming < len(gangs):
        if not left:
            now_s = max(now_s, gangs[coming].arrival_s)
        while coming < len(gangs) and gangs[coming].arrival_s <= now_s:
            gang = gangs[coming]
            heappush(left, (gang.gpus * gang.duration_s, gang.arrival_s))
            coming += 1
        service, arrival_s = heappop(left)
        until_s = gangs[coming].arrival_s if coming < len(gangs) else math.inf
        end_s = now_s + service / capacity
        if end_s <= until_s:
            now_s = end_s
            flow_s += now_s - arrival_s
        else:
            heappush(left, (service - (until_s - now_s) * capacity, arrival_s))
            now_s = until_s
    return flow_s / len(gangs)


def mean_jct_bound_s(gangs: Sequence[Gang], capacity: int) -> float:
    """Lower bound on the mean job completion time, seconds. The gangs are sorted by arrival; there is one."""
    mean_s = sum(gang.duration_s for gang in gangs) / len(gangs)
    return max(mean_s, fluid_srpt_s(gangs, capacity))
