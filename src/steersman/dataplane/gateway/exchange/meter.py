"""Counters of one revision of one service, cheap enough for every request.

Theory. Requests under way are counted as an integral over time: on each change the area since the last one is
added, so that the control plane gets the exact mean over any span from two readings, however rarely it looks.
A batch is one change, not one a request. Latencies go to mergeable sketches: one bucket computation a request
and stage, and for the model's own time one a batch. There is one meter a configured revision and one,
revision 0, for what is refused or waits before a replica is chosen: callers cannot make more.
"""

from steersman.model.sketch import bucket
from steersman.ports.gateway import ModelStats, Outcome


class Meter:
    """Counters of one revision; times are of the event loop's clock, in seconds."""

    __slots__ = (
        "_area_ongoing",
        "_area_queued",
        "_at",
        "batches",
        "latency",
        "model",
        "ongoing",
        "outcomes",
        "queued",
        "replica_cpu_us",
        "retried",
        "revision",
        "rows",
        "service",
        "waited",
    )

    def __init__(self, service: str, revision: int, now: float) -> None:
        self.service, self.revision = service, revision
        self.ongoing = self.queued = 0
        self.rows = self.batches = self.retried = self.replica_cpu_us = 0
        self.outcomes: dict[str, int] = {}
        self.latency: dict[int, int] = {}
        self.waited: dict[int, int] = {}
        self.model: dict[int, int] = {}
        self._area_ongoing = self._area_queued = 0.0
        self._at = now

    def change(self, ongoing: int, queued: int, now: float) -> None:
        """So many more (or less) are under way, so many of them waiting."""
        span = now - self._at
        if span > 0:
            self._area_ongoing += self.ongoing * span
            self._area_queued += self.queued * span
            self._at = now
        self.ongoing += ongoing
        self.queued += queued

    def count(self, outcome: Outcome) -> None:
        """A request ended like this."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def note_latency(self, seconds: float) -> None:
        """A request was answered, so long after it was received."""
        index = bucket(seconds * 1e6)
        self.latency[index] = self.latency.get(index, 0) + 1

    def note_waited(self, seconds: float) -> None:
        """A request went to a replica, so long after it was received."""
        index = bucket(seconds * 1e6)
        self.waited[index] = self.waited.get(index, 0) + 1

    def note_batch(self, calls: int, run_s: float, cpu_us: int) -> None:
        """A batch of so many requests came back; the replica says what it took."""
        self.replica_cpu_us += cpu_us
        if calls:
            index = bucket(run_s * 1e6)
            self.model[index] = self.model.get(index, 0) + calls

    def read(self, now: float, ready: int) -> ModelStats:
        """The figures as they stand."""
        self.change(0, 0, now)
        return ModelStats(
            service=self.service,
            revision=self.revision,
            outcomes=dict(self.outcomes),
            ongoing=self.ongoing,
            queued=self.queued,
            ongoing_us=int(self._area_ongoing * 1e6),
            queued_us=int(self._area_queued * 1e6),
            rows=self.rows,
            batches=self.batches,
            retried=self.retried,
            ready_replicas=ready,
            replica_cpu_us=self.replica_cpu_us,
            latency_us=dict(self.latency),
            waited_us=dict(self.waited),
            model_us=dict(self.model),
        )
