"""Whether a call is let in: refusals at the door, so that none is needed later.

Theory. Under overload a queue only adds waiting; what counts is to refuse early what would come late. The
predicted wait is the seconds of replica work ahead of the call, by the queue's own order (higher bands, and
the fair share of its caller: a flood of one caller does not refuse another's), over the number of replicas,
and until the first of the batches under way should be done when no replica is idle; rows that go in its own
batch are not ahead of it. The predicted finish adds the promise of the call's own batch. Refused is what
would finish after its deadline, and what would wait longer than the service's latency objective leaves room
for: then those who are let in keep to the objective whatever the load. Without an objective a call waits as
long as its deadline lets it: nobody has said that this is too long.

A prediction that refuses everything could never be corrected, so an idle replica that has measured nothing
for PROBE_S gets a call whatever is predicted.
"""

from math import inf

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.exchange.credits import Credits
from steersman.dataplane.gateway.exchange.queue import Bucket, FairQueue

PROBE_S = 1.0
SHARED_PART = 8
"""Where callers have keys, the last eighth of the queue is for those who hold less than an eighth of it."""
GAPS = 4
"""Of calls that come at random with a mean gap, one comes within four gaps with a probability of 98 %."""
GAP_WEIGHT = 1 / 16
GAP_S_MAX = 1.0
RETRY_S_MIN = 0.1
RETRY_S_MAX = 60.0


class Refusals:
    """The rules of one pool. `run_s`: how long its batches take, on average; 0 when none came back yet."""

    __slots__ = ("_came", "_credits", "_gap_s", "_queue", "run_s")

    def __init__(self, queue: FairQueue, links: Credits) -> None:
        self._queue, self._credits = queue, links
        self._came, self._gap_s = -GAP_S_MAX, GAP_S_MAX
        self.run_s = 0.0

    def full(self, call: Call, queued: int, queued_max: int, keyed: bool) -> Answer | None:
        """``queue-full``, when as many wait already as may."""
        part = queued_max // SHARED_PART
        if queued < queued_max - (part if keyed else 0):
            return None
        if queued < queued_max and self._queue.waiting_of(call) < part:
            return None
        backlog_s = sum(band.backlog_s for band in self._queue.bands)
        wait_s = backlog_s / (self._credits.servers or 1)
        return Answer("queue-full", error=f"{queued} requests wait already", retry_after_s=_retry(wait_s))

    def late(self, call: Call, bucket: Bucket, objective_s: float | None, now: float) -> Answer | None:
        """``deadline``, when the call would come too late or wait too long."""
        self._gap_s += (min(now - self._came, GAP_S_MAX) - self._gap_s) * GAP_WEIGHT
        self._came = now
        if call.deadline <= now:
            return Answer("deadline", error="its deadline has passed")
        servers, idle = self._credits.servers, self._credits.idle
        model = bucket.model
        rows = max(
            model.star if objective_s is not None else min(model.star, bucket.waiting + call.rows), call.rows
        )
        run_s = model.promise(rows) if model.batches else self.run_s
        if not servers or run_s <= 0:
            return None
        if idle and not self._queue.live and now - model.measured_at > PROBE_S:
            return None
        company = min(max(model.star - call.rows, 0), bucket.waiting)  # they run in its own batch
        ahead_s = max(self._queue.ahead_s(call) - company * bucket.cost, 0.0)
        wait_s = ahead_s / servers + self._credits.wait_s(self.run_s, now)
        spare_s = call.deadline - now - run_s - wait_s
        if spare_s < 0:
            error = f"it would be answered {_ms(-spare_s)} ms after its deadline"
            return Answer("deadline", error=error, retry_after_s=_retry(-spare_s))
        least_s = min(2 * model.promise(1), run_s + GAPS * self._gap_s)
        allowed_s = inf if objective_s is None else max(objective_s, least_s) - run_s
        if wait_s <= allowed_s:
            return None
        error = f"it would wait {_ms(wait_s)} ms for a replica; {_ms(allowed_s)} ms is the most"
        return Answer("deadline", error=error, retry_after_s=_retry(wait_s - allowed_s))


def _retry(seconds: float) -> float:
    return min(max(seconds, RETRY_S_MIN), RETRY_S_MAX)


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
