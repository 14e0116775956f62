"""What the gateway's counters say of the last seconds, kept in memory only.

Theory of operation. Every gateway process writes counters that only grow. A rate over a span is the
difference of two looks, divided by the time between them: the newest look, and the newest of those that are
at least the span old. Of a process that began within the span the whole life counts. A counter that went
backwards is another process's, or another service's of the same name: counting begins anew with it.

What processes that are gone had counted is added up, so that totals never fall while this control plane
lives. When there are LOOKS_MAX looks the older ones are thinned, the more the older they are: a long span is
then a few per cent longer than asked for.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import msgspec

from steersman.model.sketch import GAMMA, merge, quantile, since
from steersman.ports.gateway import GatewayStats, ModelStats

LOOKS_MAX = 384
"""Looks kept of one gateway process."""
LOOKS_AN_AGE = 32
"""An old look is kept when it is this share of its age apart from the next."""
KEPT_MS_MAX = 3_900_000
"""Older looks are dropped: no look-back is longer than an hour."""
SILENT_MS_MAX = 60_000
"""A process that was silent for longer is taken for gone, though nothing has taken its place."""
SPAN_MS = 10_000
"""Over which people are shown rates and percentiles."""
ANSWERED = ("ok", "model-error")
"""Outcomes of requests that a replica has worked on to the end."""
LONG_SPAN_MS = 60_000
"""The same for one service looked at closely."""

Key = tuple[str, int]
"""(service, revision)"""
Process = tuple[int, int]
"""(pid, started_ms)"""


class Look(NamedTuple):
    """The counters of one process at one time."""

    at_ms: int
    cpu_us: int
    models: Mapping[Key, ModelStats]


class RevisionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One revision over a span; revision 0 is what waits, or was refused, before a replica was chosen.

    `counts` are the differences, with `ongoing` and `queued` as they are now. `per_second` are rates by
    outcome. `total` is everything since this control plane looks.
    """

    revision: int
    counts: ModelStats
    total: ModelStats

    @property
    def ended(self) -> int:
        """Requests that ended in the span, whatever the outcome."""
        return sum(self.counts.outcomes.values())


class ServiceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A service over a span of `span_ms`, all processes of the gateway together.

    `ongoing_milli` and `queued_milli` are means over the span; `arrivals_milli` and `answered_milli` requests
    a second. `ready` is how many replicas answered all the time; None: their number changed.
    `latency_us` is a sketch. `gateway_cpu_us` is its share, by requests, of what the gateway used.
    """

    span_ms: int
    ongoing_milli: int
    queued_milli: int
    arrivals_milli: int
    answered_milli: int
    ready: int | None
    ongoing: int
    queued: int
    outcomes: dict[str, int]
    latency_us: dict[int, int]
    gateway_cpu_us: int
    replica_cpu_us: int
    revisions: tuple[RevisionFigures, ...]


class Figures:
    """The looks at all gateway processes, and what follows from them."""

    def __init__(self) -> None:
        self._looks: dict[Process, list[Look]] = {}
        self._index: dict[Process, int] = {}
        self._gone: dict[Key, ModelStats] = {}
        self._gone_cpu_us = 0
        self._position = 0
        self._missing = True

    def note(self, seen: Collection[GatewayStats], services: Collection[str]) -> None:
        """Take a look: the figures of the processes that are fresh. Other services are forgotten."""
        self._gone = {key: total for key, total in self._gone.items() if key[0] in services}
        here: dict[Process, GatewayStats] = {(each.pid, each.started_ms): each for each in seen}
        now_ms = max((each.at_ms for each in seen), default=0)
        for process in [process for process in self._looks if process not in here]:
            replaced = any(each.process == self._index[process] for each in seen)
            if replaced or now_ms - self._looks[process][-1].at_ms > SILENT_MS_MAX:
                self._retire(process)
        for process, stats in here.items():
            if stats.ended and process not in self._looks:
                continue  # it was let go before, or is of an earlier life
            self._index[process] = stats.process
            self._add(process, stats)
            if stats.ended:
                self._retire(process)
        serving = {each.process for each in seen if not each.ended}
        self._missing = not serving or {self._index[process] for process in self._looks} != serving
        self._position = min((each.config_position for each in seen if not each.ended), default=0)

    def service_figures(self, name: str, span_ms: int, declared_at: int = 0) -> ServiceFigures | None:
        """A service's figures over a span. None: unknown, for a process is silent, was looked at once only,
        or has not heard of what was declared at that position."""
        if self._missing or self._position < declared_at:
            return None
        pairs = [_pair(process, looks, span_ms) for process, looks in self._looks.items()]
        known = [pair for pair in pairs if pair is not None]
        return _figures(name, known, self._totals(name)) if len(known) == len(pairs) else None

    def totals(self, name: str) -> dict[int, ModelStats]:
        """Everything counted of a service, by revision; the gauges are those of now."""
        return dict(sorted(self._totals(name).items()))

    @property
    def known(self) -> bool:
        """Whether every gateway process that was seen is still heard of."""
        return not self._missing

    @property
    def gateway_cpu_us(self) -> int:
        """CPU time of all gateway processes that were seen."""
        return self._gone_cpu_us + sum(looks[-1].cpu_us for looks in self._looks.values())

    def _add(self, process: Process, stats: GatewayStats) -> None:
        models = {(each.service, each.revision): each for each in stats.models}
        looks = self._looks.setdefault(process, [])
        if looks and stats.at_ms == looks[-1].at_ms:
            return
        if looks:
            for key, before in looks[-1].models.items():
                after = models.get(key)
                if after is None or _backwards(before, after):
                    self._gone[key] = _sum([self._gone.get(key), before], gauges=False)
        if looks and stats.at_ms < looks[-1].at_ms:  # the clock was set back: earlier times mean nothing now
            looks.clear()
        looks.append(Look(stats.at_ms, stats.cpu_us, models))
        if len(looks) > LOOKS_MAX:
            looks[:] = _thinned(looks)

    def _retire(self, process: Process) -> None:
        last = self._looks.pop(process)[-1]
        del self._index[process]
        self._gone_cpu_us += last.cpu_us
        for key, model in last.models.items():
            self._gone[key] = _sum([self._gone.get(key), model], gauges=False)

    def _totals(self, name: str) -> dict[int, ModelStats]:
        found: dict[int, list[ModelStats | None]] = {}
        for key, total in self._gone.items():
            if key[0] == name:
                found.setdefault(key[1], []).append(total)
        for looks in self._looks.values():
            for key, model in looks[-1].models.items():
                if key[0] == name:
                    found.setdefault(key[1], []).append(model)
        return {revision: _sum(parts) for revision, parts in found.items()}


def _thinned(looks: list[Look]) -> list[Look]:
    """The looks with gaps of at least their age divided by LOOKS_AN_AGE; the newest stays."""
    kept = [looks[-1]]
    newest_ms = looks[-1].at_ms
    for look in reversed(looks[:-1]):
        age_ms = newest_ms - look.at_ms
        if age_ms <= KEPT_MS_MAX and (kept[-1].at_ms - look.at_ms) * LOOKS_AN_AGE >= age_ms:
            kept.append(look)
    return kept[:LOOKS_MAX][::-1]


class _Pair(NamedTuple):
    """Two looks at one process, and all from the one to the other; nothing had been counted at the first
    when it had not begun."""

    first: Look
    last: Look
    looks: tuple[Look, ...]


def _pair(process: Process, looks: list[Look], span_ms: int) -> _Pair | None:
    last = looks[-1]
    from_ms = last.at_ms - span_ms
    began_ms = process[1]
    if from_ms <= began_ms < last.at_ms:
        first = Look(began_ms, 0, {})
        return _Pair(first, last, (first, *looks))
    older = [look for look in looks if look.at_ms <= from_ms]
    first = older[-1] if older else looks[0]
    if first.at_ms >= last.at_ms:
        return None
    return _Pair(first, last, tuple(look for look in looks if look.at_ms >= first.at_ms))


def _figures(name: str, pairs: Iterable[_Pair], totals: Mapping[int, ModelStats]) -> ServiceFigures:
    parts: dict[int, list[ModelStats | None]] = {}
    ongoing = queued = arrivals = answered = 0.0
    ready: set[int] = set()
    cpu_us = span_ms = 0
    for first, last, looks in pairs:
        passed_ms = last.at_ms - first.at_ms
        span_ms = max(span_ms, passed_ms)
        mine = ended = 0
        for key, after in last.models.items():
            before = first.models.get(key)
            counts = _difference(after, before)
            ended += sum(counts.outcomes.values())
            if key[0] == name:
                mine += sum(counts.outcomes.values())
                parts.setdefault(key[1], []).append(counts)
                ongoing += counts.ongoing_us / passed_ms
                queued += counts.queued_us / passed_ms
                came = sum(counts.outcomes.values()) + after.ongoing - (before.ongoing if before else 0)
                arrivals += came * 1_000_000 / passed_ms
                done = sum(counts.outcomes.get(outcome, 0) for outcome in ANSWERED)
                answered += done * 1_000_000 / passed_ms
        ready.update(_ready(name, look) for look in looks)
        cpu_us += (last.cpu_us - first.cpu_us) * mine // ended if ended else 0
    revisions = {revision: _sum(found) for revision, found in sorted(parts.items())}
    whole = _sum(list(revisions.values()))
    return ServiceFigures(
        span_ms=span_ms,
        ongoing_milli=round(ongoing),
        queued_milli=round(queued),
        arrivals_milli=max(round(arrivals), 0),
        answered_milli=round(answered),
        ready=ready.pop() if len(ready) == 1 else None,
        ongoing=whole.ongoing,
        queued=whole.queued,
        outcomes=whole.outcomes,
        latency_us=whole.latency_us,
        gateway_cpu_us=cpu_us,
        replica_cpu_us=whole.replica_cpu_us,
        revisions=tuple(
            RevisionFigures(revision=revision, counts=counts, total=totals.get(revision, counts))
            for revision, counts in revisions.items()
        ),
    )


def _ready(name: str, look: Look) -> int:
    """The replicas of a service that a process of the gateway could reach."""
    return sum(model.ready_replicas for key, model in look.models.items() if key[0] == name)


def _backwards(before: ModelStats, after: ModelStats) -> bool:
    """Whether these cannot be two states of one counter."""
    return (
        after.ongoing_us < before.ongoing_us
        or after.rows < before.rows
        or any(after.outcomes.get(name, 0) < count for name, count in before.outcomes.items())
    )


def _difference(after: ModelStats, before: ModelStats | None) -> ModelStats:
    """What came since; the gauges are those of now."""
    if before is None or _backwards(before, after):
        return after
    return msgspec.structs.replace(
        after,
        outcomes=_less(after.outcomes, before.outcomes),
        ongoing_us=after.ongoing_us - before.ongoing_us,
        queued_us=max(after.queued_us - before.queued_us, 0),
        rows=after.rows - before.rows,
        batches=max(after.batches - before.batches, 0),
        retried=max(after.retried - before.retried, 0),
        replica_cpu_us=max(after.replica_cpu_us - before.replica_cpu_us, 0),
        latency_us=since(after.latency_us, before.latency_us),
        waited_us=since(after.waited_us, before.waited_us),
        model_us=since(after.model_us, before.model_us),
    )


def _less(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    left = ((name, count - before.get(name, 0)) for name, count in after.items())
    return {name: count for name, count in left if count}


def _sum(parts: Iterable[ModelStats | None], *, gauges: bool = True) -> ModelStats:
    """Counters added up; without `gauges`, of what is gone, nothing is under way."""
    known = [part for part in parts if part is not None]
    outcomes: dict[str, int] = {}
    for part in known:
        for name, count in part.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + count
    return ModelStats(
        service=known[0].service if known else "",
        revision=known[0].revision if known else 0,
        outcomes=dict(sorted(outcomes.items())),
        ongoing=sum(part.ongoing for part in known) if gauges else 0,
        queued=sum(part.queued for part in known) if gauges else 0,
        ongoing_us=sum(part.ongoing_us for part in known),
        queued_us=sum(part.queued_us for part in known),
        rows=sum(part.rows for part in known),
        batches=sum(part.batches for part in known),
        retried=sum(part.retried for part in known),
        ready_replicas=max((part.ready_replicas for part in known), default=0) if gauges else 0,
        replica_cpu_us=sum(part.replica_cpu_us for part in known),
        latency_us=merge(*(part.latency_us for part in known)),
        waited_us=merge(*(part.waited_us for part in known)),
        model_us=merge(*(part.model_us for part in known)),
    )


# Sketches in words that people read.


def quantile_ms(sketch: Mapping[int, int], per_mille: int) -> float | None:
    """A quantile of a sketch of microseconds, in milliseconds; None without values."""
    found = quantile(sketch, per_mille)
    return None if found is None else round(found / 1000, 3)


def mean_ms(sketch: Mapping[int, int]) -> float | None:
    """The mean of a sketch of microseconds, in milliseconds."""
    count = sum(sketch.values())
    return round(sum_us(sketch) / count / 1000, 3) if count else None


def sum_us(sketch: Mapping[int, int]) -> float:
    """About the sum of all values: every one counts as its bucket's middle."""
    return sum(number * (2 * GAMMA**index / (GAMMA + 1)) for index, number in sketch.items())
