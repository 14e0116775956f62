"""The autoscalers people use today, as documented, at their defaults: baselines of `autoscale`.

    HPA         ceil(ready x utilisation / target) every 15 s of a 30 s mean, nothing within 10 %; pods that
                are not ready count as idle when it grows; at most double, or four more, at a time; the
                most it wanted in 300 s before it shrinks
    KEDA        ceil(work queued and in flight / target of a replica), polled every 30 s, through the same
                HPA; from zero at the first work; it wants zero 300 s after the last, and the HPA
                remembers the one for 300 s more, as in the table that the figures are compared with
    Ray Serve   ceil(mean of ongoing work in 30 s / target); 30 s in a row before more, 600 s before less;
                never zero
    Knative     ceil(mean concurrency of 60 s / target) every 2 s; when that of 6 s asks for twice what is
                ready, it panics: for 60 s it only grows; at most 1,000 times and at least half of what is
                ready; zero only after 30 s of grace

Theory: the target of all of them is 70 % of what a replica does. They see the seconds of the product's own
simulator, so that only the policy differs. tests/unit/bench/test_scalers.py holds each to its rules.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from steersman.sim.replay.autoscale import Decider, Second

TARGET = 0.7
SYNC_S = 15
TOLERANCE = 0.1
SHRINK_AFTER_S = 300
GROW_LEAST = 4
POLL_S, COOLDOWN_S = 30, 300
RAY_MEAN_S, RAY_GROW_S, RAY_SHRINK_S = 30, 30, 600
STABLE_S, PANIC_S, TICK_S, GRACE_S = 60, 6, 2, 30
PANIC_AT, GROW_RATE, SHRINK_RATE = 2, 1_000, 2
ROUNDING = 1e-9
"""Replicas: so much above a whole number is that number."""


class Scaled(NamedTuple):
    """What is scaled: work a second of a replica, seconds that a request is served, fewest and most."""

    capacity: float
    service_s: int
    least: int
    most: int

    @property
    def each(self) -> float:
        """Work in flight on one replica that is as busy as it should be."""
        return TARGET * self.capacity * self.service_s

    def within(self, wanted: int, least: int = 0) -> int:
        """At least `least`, too."""
        return min(max(wanted, self.least, least), self.most)

    def wanted(self, work: float) -> int:
        """Replicas that keep this work in flight at the target."""
        return math.ceil(work / self.each - ROUNDING)


class _Behaviour:
    """How far and how soon a HorizontalPodAutoscaler goes where it wants to."""

    def __init__(self) -> None:
        self._asked: deque[tuple[int, int]] = deque()

    def go(self, seen: Second, wanted: int) -> int:
        while self._asked and self._asked[0][0] <= seen.second - SHRINK_AFTER_S:
            self._asked.popleft()
        self._asked.append((seen.second, wanted))
        if wanted < seen.replicas:
            return min(max(number for _, number in self._asked), seen.replicas)
        return min(wanted, max(2 * seen.replicas, seen.replicas + GROW_LEAST))


class _Ongoing:
    """Work that waits or is being served."""

    def __init__(self, service_s: int) -> None:
        self._served = deque([0.0], maxlen=service_s + 1)

    def after(self, seen: Second) -> float:
        self._served.append(seen.served)
        return seen.arrived - self._served[0]


def _by_utilisation(seen: Second, mean: float) -> int:
    """What an HPA wants."""
    ratio = mean / TARGET
    if seen.ready == 0:
        return max(seen.replicas, 1)
    if ratio > 1 + TOLERANCE:
        spread = ratio * seen.ready / seen.replicas
        return seen.replicas if spread <= 1 + TOLERANCE else math.ceil(spread * seen.replicas)
    return math.ceil(ratio * seen.ready) if ratio < 1 - TOLERANCE else seen.replicas


def hpa(scaled: Scaled) -> Decider:
    """Kubernetes, on utilisation; never zero."""
    used: deque[float] = deque(maxlen=30)
    behaviour, before = _Behaviour(), 0.0

    def look(seen: Second) -> int | None:
        nonlocal before
        served, before = seen.served - before, seen.served
        idle = float(seen.arrived > seen.served)
        used.append(served / (seen.ready * scaled.capacity) if seen.ready else idle)
        if (seen.second + 1) % SYNC_S:
            return None
        wanted = _by_utilisation(seen, sum(used) / len(used))
        return scaled.within(behaviour.go(seen, wanted), 1)

    return look


def keda(scaled: Scaled) -> Decider:
    """KEDA on the length of the queue."""
    ongoing, behaviour = _Ongoing(scaled.service_s), _Behaviour()
    polled, active = 0.0, 0

    def wanted(seen: Second) -> int:
        if seen.replicas == 0:
            return int(polled > 0)
        steady = abs(polled / scaled.each / seen.replicas - 1) <= TOLERANCE
        number = seen.replicas if steady else scaled.wanted(polled)
        return number if number or seen.second - active >= COOLDOWN_S else 1

    def look(seen: Second) -> int | None:
        nonlocal polled, active
        now = ongoing.after(seen)
        active = seen.second if now > ROUNDING else active
        polled = now if seen.second % POLL_S == 0 else polled
        if (seen.second + 1) % SYNC_S:
            return None
        return scaled.within(behaviour.go(seen, wanted(seen)))

    return look


def ray_serve(scaled: Scaled) -> Decider:
    """Ray Serve on ongoing requests."""
    ongoing, seen_lately = _Ongoing(scaled.service_s), deque[float](maxlen=RAY_MEAN_S)
    up = down = 0

    def look(seen: Second) -> int | None:
        nonlocal up, down
        seen_lately.append(ongoing.after(seen))
        wanted = scaled.wanted(sum(seen_lately) / len(seen_lately))
        up = up + 1 if wanted > seen.replicas else 0
        down = down + 1 if wanted < seen.replicas else 0
        if up < RAY_GROW_S and down < RAY_SHRINK_S:
            return None
        up = down = 0
        return scaled.within(wanted, 1)

    return look


def knative(scaled: Scaled) -> Decider:
    """Knative's KPA on concurrency."""
    ongoing, seen_lately = _Ongoing(scaled.service_s), deque[float](maxlen=STABLE_S)
    panic_until, panic_most, active = -1, 0, 0

    def look(seen: Second) -> int | None:
        nonlocal panic_until, panic_most, active
        seen_lately.append(now := ongoing.after(seen))
        active = seen.second if now > ROUNDING else active
        if (seen.second + 1) % TICK_S:
            return None
        ready = max(seen.ready, 1)
        stable = scaled.wanted(sum(seen_lately) / len(seen_lately))
        lately = list(seen_lately)[-PANIC_S:]
        urgent = min(scaled.wanted(sum(lately) / len(lately)), GROW_RATE * ready)
        wanted = max(min(stable, GROW_RATE * ready), ready // SHRINK_RATE)
        if urgent >= PANIC_AT * ready:
            panic_most = seen.replicas if panic_until < seen.second else panic_most
            panic_until = seen.second + STABLE_S
        if seen.second < panic_until:
            wanted = panic_most = max(panic_most, seen.replicas, urgent, wanted)
        if wanted == 0 and seen.second - active < STABLE_S + GRACE_S:
            wanted = 1
        return scaled.within(wanted)

    return look


SCALERS: dict[str, Callable[[Scaled], Decider]] = {
    "HPA": hpa,
    "KEDA": keda,
    "Ray Serve": ray_serve,
    "Knative": knative,
}
