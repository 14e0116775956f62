"""The load on services, from the gateway's counters to signals that autoscale reads.

Theory of operation. While there are services the counters are looked at a few times in the shortest
look-back, not more often than every LOOK_MS_MIN and not less than every LOOK_MS_MAX; without services nothing
is read and nobody is woken. Of a service whose number of replicas may change each signal is worked out over
its own look-back, rounded to three digits, and said only when it has left the dead band around the value
that the snapshot holds, or has come from zero or gone to it: a steady load journals nothing, and what was
lost in a crash is said again.

What one replica can do is measured when requests wait for replicas whose number has not changed: what they
answer then is at most what they can, and exactly that while many wait. So a larger figure is taken from any
such time, a smaller one only from the latter. Requests that wait for their batch to fill do not count.

A gateway process that is silent makes everything unknown, for what it carries is not known. After the first
look of a control plane nothing is said yet: a rate takes two. Without a request in the look-back there is no
latency: it is unknown then, and `ongoing_milli` 0 says why. When requests are under way and none has ended,
nothing new is said of it.
"""

import asyncio
from collections.abc import Iterator

from steersman.model.events import Signal
from steersman.model.signals import ARRIVALS, CAPACITY, LATENCY, ONGOING, QUEUED, SERVED
from steersman.model.sketch import quantile
from steersman.model.snapshot import ServiceState, Snapshot
from steersman.ports.clock import Clock
from steersman.ports.gateway import STATS_MS, Gateways
from steersman.ports.sensor import Observation
from steersman.sensors.figures import Figures, ServiceFigures

LOOK_MS_MAX = 1_000
LOOK_MS_MIN = STATS_MS
LOOKS_A_SPAN = 8
"""How often the counters are looked at in the shortest look-back."""
BAND_PER_MILLE = 100
"""A value must move this share to be said again."""
BAND_MILLI_LEAST = 50
"""And at least so many thousandths of a request."""
DIGITS = 3
LOADED_MILLI, OVERLOADED_MILLI = 1_000, 4_000
"""Requests that wait for each replica, on average, while it is busy all the time; and far more than that."""

Value = tuple[str, int | None]


class GatewaySensor:
    """The Sensor port over the gateway's figures. `figures` may be shared with whoever shows them."""

    def __init__(self, gateways: Gateways, clock: Clock, figures: Figures | None = None) -> None:
        self._gateways = gateways
        self._clock = clock
        self.figures = Figures() if figures is None else figures
        self._look_ms: int | None = None

    @property
    def name(self) -> str:
        return "gateway"

    async def observe(self, snapshot: Snapshot) -> Observation:
        services = [state for _, state in snapshot.services.sorted_items()]
        self._look_ms = _look_ms(services)
        if not services:
            return Observation(events=())
        seen = await asyncio.to_thread(self._gateways.observe, self._clock.now_ms())
        self.figures.note(seen, {state.spec.name for state in services})
        signals = [signal for state in services for signal in self._news(state)]
        return Observation(events=(), signals=tuple(signals))

    async def wait_changed(self, timeout_ms: int) -> None:
        wait_ms = timeout_ms if self._look_ms is None else min(timeout_ms, self._look_ms)
        await self._clock.sleep_ms(wait_ms)

    def _news(self, state: ServiceState) -> Iterator[Signal]:
        scaling = state.spec.scaling
        if scaling.min_replicas == scaling.max_replicas or state.removing:
            return
        found = self.figures.service_figures(state.spec.name, scaling.look_back_ms, state.declared_at)
        if found is None and self.figures.known:
            return
        known = {signal.name: signal.value for signal in state.signals}
        values = [*_values(state, found), *_measured(state, found, known.get(CAPACITY))]
        for name, value in values:
            if moved(name, known.get(name), value):
                yield Signal(name=name, subject=state.spec.name, value=value)


def _look_ms(services: list[ServiceState]) -> int | None:
    if not services:
        return None
    shortest = min(state.spec.scaling.look_back_ms for state in services)
    return min(max(shortest // LOOKS_A_SPAN, LOOK_MS_MIN), LOOK_MS_MAX)


def _values(state: ServiceState, found: ServiceFigures | None) -> Iterator[Value]:
    """What there is to say of each signal that this service is scaled by."""
    scaling = state.spec.scaling
    backlog = any(metric.name == "backlog" for metric in scaling.metrics)
    queued = scaling.queued_requests_milli is not None or scaling.forecast or backlog
    names = [ONGOING, ARRIVALS, *([QUEUED] if queued else []), *([SERVED] if backlog else [])]
    if found is None:
        yield from ((name, None) for name in names)
        if scaling.latency_p99_ms is not None:
            yield LATENCY, None
        return
    values = {
        ONGOING: found.ongoing_milli,
        ARRIVALS: found.arrivals_milli,
        QUEUED: found.queued_milli,
        SERVED: found.answered_milli,
    }
    yield from ((name, rounded(values[name])) for name in names)
    if scaling.latency_p99_ms is None:
        return
    latency = quantile(found.latency_us, 990)
    if latency is not None:
        yield LATENCY, rounded(round(latency))
    elif found.ongoing_milli == 0:
        yield LATENCY, None


def _measured(state: ServiceState, found: ServiceFigures | None, known: int | None) -> Iterator[Value]:
    """What one replica can do, when it could be seen."""
    if found is None or not found.ready or not state.spec.scaling.forecast:
        return
    filling_milli = found.arrivals_milli * state.spec.limits.batch_wait_ms // 1_000
    waiting_milli = (found.queued_milli - filling_milli) // found.ready
    each_milli = found.answered_milli // found.ready
    more = waiting_milli >= LOADED_MILLI and (known is None or each_milli > known)
    if each_milli and (more or waiting_milli >= OVERLOADED_MILLI):
        yield CAPACITY, rounded(each_milli)


def rounded(value: int) -> int:
    """A value to three digits; what is not zero does not become zero."""
    step: int = 10 ** max(len(str(value)) - DIGITS, 0)
    return (value + step // 2) // step * step


def moved(name: str, known: int | None, value: int | None) -> bool:
    """Whether a value has left the dead band of the one that is known; to and from zero it always has."""
    if known is None or value is None:
        return known is not value
    if (known == 0) != (value == 0):
        return True
    least = 0 if name == LATENCY else BAND_MILLI_LEAST
    return abs(value - known) > max(known * BAND_PER_MILLE // 1000, least)
