"""The reference schedule of a service that may go to zero: the yardstick of `cost_over_oracle`.

Theory of operation. With foresight the k-th replica is on while k are needed to serve the work of the
last SLO within the SLO. Each level is a ski rental with a known end: through a gap no longer than a cold
start it is kept, over a longer one it is launched anew, and a launch costs the cold start. Exact by level, in
time that is linear in the seconds and in the changes of the need. It is no lower bound for all schedules:
others may let work wait for a busy replica. That bound needs a solver and is in bench/.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

ROUNDING = 1e-9
"""Replicas: so much less than a whole one is no need for one more."""


def level_schedule(work: Sequence[float], capacity: float, cold_start_s: float, slo_s: float) -> float:
    """Replica-seconds, paid from the launch."""
    ended: list[float] = []  # by level, when it was last needed; inf while it is
    cost = 0.0
    for second, need in enumerate(_needs(work, capacity, max(1, int(slo_s)))):
        cost += need
        while len(ended) < need:
            ended.append(-math.inf)
        for level in range(need - 1, -1, -1):
            if ended[level] == math.inf:
                break
            cost += min(second - ended[level], cold_start_s)
            ended[level] = math.inf
        for level in range(len(ended) - 1, need - 1, -1):
            if ended[level] == math.inf:
                ended[level] = second
    return cost


def _needs(work: Sequence[float], capacity: float, window: int) -> Iterator[int]:
    """Replicas needed in each second."""
    total = [0.0, *accumulate(work)]
    for second in range(1, len(total)):
        rate = (total[second] - total[max(0, second - window)]) / window
        yield max(0, math.ceil(rate / capacity - ROUNDING))
