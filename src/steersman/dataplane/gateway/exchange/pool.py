"""The replicas of one signature, the calls that wait for them, and the batches between the two.

Theory. Admission decides at once, from what is measured: a call is let in when its predicted finish (seconds
of work ahead of it over the number of replicas, the batch under way, its own batch's promise) is before its
deadline and its wait is short enough for the service's latency objective. What is let in is never thrown out
for load. Then it waits in the fair queue; whenever a link has a credit, the queue's first pick takes as many
of its bucket along as n* allows, in one frame. The queue is looked at once an iteration of the event loop,
after everything that arrived in it was admitted, so that what arrives together goes together.

The life of a call is its `state`: a `Lane` while it waits, a `Group` while it waits for its second try, a
`Batch` while it is under way, None once it was answered. Every ending passes through `_end`, which takes the
call off the deadline wheel exactly once.

A second try is for calls whose replica was lost, together, or whose batch of several failed, each alone, so
that the call which is at fault fails alone. Nobody gets a third, and a stream that has begun gets no second.
"""

import asyncio
from collections import deque
from typing import Any, Protocol

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.exchange.admission import Refusals
from steersman.dataplane.gateway.exchange.batch import (
    BATCH_BYTES_MAX,
    CALL_BYTES_MAX,
    ERROR_CHARS_MAX,
    Batch,
    Group,
    cut,
    failed_rows,
    frame,
    measured,
)
from steersman.dataplane.gateway.exchange.batching import LatencyModel
from steersman.dataplane.gateway.exchange.credits import Credits
from steersman.dataplane.gateway.exchange.link import ROWS_MAX, Link
from steersman.dataplane.gateway.exchange.meter import Meter
from steersman.dataplane.gateway.exchange.queue import Bucket, FairQueue, Lane
from steersman.dataplane.gateway.exchange.wheel import Wheel
from steersman.dataplane.gateway.signature import Signature
from steersman.ports.gateway import Outcome, ServiceConfig
from steersman.ports.replica_wire import CANCEL, Frame

OVERDUE_FACTOR = 10
OVERDUE_S_MIN = 5.0
"""A batch hangs when it takes longer than the factor times its prediction, this, and the service's limit."""
NO_REPLICA = "no replica is ready"
RETRY_S = 1.0
_RUN_WEIGHT = 0.1


class Service(Protocol):
    """What a pool asks of the service it belongs to."""

    config: ServiceConfig
    keyed: bool
    waiting: Meter
    wheel: Wheel
    loop: asyncio.AbstractEventLoop

    def successor(self, pool: "Pool") -> "Pool | None":
        """Where calls of a pool without replicas go: another that has some, or the pool now in its place."""
        ...

    def reread(self, call: Call, pool: "Pool") -> Answer | None:
        """Have another pool's codec read a call's body into it; an answer when it cannot."""
        ...


class Pool:
    """See the module. `codec` is what the front made for this signature."""

    __slots__ = (
        "_again",
        "_flushing",
        "_loop",
        "_rows_max",
        "_service",
        "_timer",
        "_wheel",
        "attached",
        "bare_since",
        "codec",
        "credits",
        "queue",
        "refusals",
        "row_s",
        "run_s",
        "signature",
    )

    def __init__(self, service: Service, signature: Signature, codec: Any) -> None:
        self._service = service
        self._loop, self._wheel = service.loop, service.wheel
        self._again: deque[Group] = deque()
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self.signature = signature
        self.codec = codec
        self.queue = FairQueue()
        self.credits = Credits()
        self.refusals = Refusals(self.queue, self.credits)
        self.attached = 0  # links connected, whether they take batches or not
        self.run_s = self.row_s = 0.0  # means of the last batches, and of their rows
        self.bare_since: float | None = service.loop.time()  # no replica takes batches since then
        self._rows_max = 1
        self.configure()

    @property
    def revision(self) -> int:
        """The newest revision that serves in this pool; 0 while none does."""
        return max((link.revision for link in self.credits.links), default=0)

    @property
    def waiting(self) -> int:
        """Calls that wait, second tries included."""
        return self.queue.live + sum(len(group.calls) for group in self._again)

    def configure(self) -> None:
        """Take the service's limits as they are now."""
        config = self._service.config
        most = min(config.limits.batch_size_max, self.signature.batch_size_max, ROWS_MAX)
        self._rows_max = 1 if self.signature.stream else max(most, 1)
        objective = self._objective()
        for bucket in self.queue.buckets.values():
            bucket.model.configure(self._rows_max, objective)

    def admit(self, call: Call) -> None:
        """Take a call. Its `done` is called exactly once: before this returns when it is refused, else later.
        Its deadline, band, caller, weight, rows and shapes may not change until then."""
        now = self._loop.time()
        answer = self._admission(call, now)
        if answer is not None:
            self._service.waiting.count(answer.outcome)
            call.done(call, answer)

    def _admission(self, call: Call, now: float) -> Answer | None:
        """Let a call in, here or into the pool in this one's place; or the refusal."""
        service = self._service
        if self.bare_since is not None:
            other = service.successor(self)
            if other is not None:
                return service.reread(call, other) or other.let_in(call, now)
            if service.config.hold_ms <= 0:
                return Answer("no-replica", error=NO_REPLICA, retry_after_s=RETRY_S)
        return self.let_in(call, now)

    def let_in(self, call: Call, now: float) -> Answer | None:
        """Put a call into this pool's queue, unless it must be refused."""
        if not 1 <= call.rows <= self._rows_max:
            return Answer("invalid", error=f"a request of {call.rows} rows; the most is {self._rows_max}")
        service = self._service
        bucket = self.queue.buckets.get(call.shapes) or self._add_bucket(call.shapes)
        self.refusals.run_s = self.run_s
        queued_max = service.config.limits.queued_max
        answer = self.refusals.full(call, service.waiting.queued, queued_max, service.keyed)
        if answer is None:
            answer = self.refusals.late(call, bucket, self._objective(), now)
        if answer is None:
            self._wheel.add(call)
            service.waiting.change(1, 1, now)
            self.queue.push(call, bucket)
            self.wake()
        return answer

    def adopt(self, call: Call) -> None:
        """Take over a waiting call, already let in, of a pool that has no replica any more. It is one that
        `take_all` gave."""
        answer = self._service.reread(call, self)
        if answer is None and call.rows > self._rows_max:
            answer = Answer("invalid", error=f"a request of {call.rows} rows; the most is {self._rows_max}")
        if answer is not None:
            give_up(self._service, call, answer)
            return
        self.queue.push(call, self.queue.buckets.get(call.shapes) or self._add_bucket(call.shapes))
        self.wake()

    def cancel(self, call: Call) -> None:
        """Nobody waits for this call any more: it ends as ``client-gone`` and its `done` is called. Nothing
        for a call that has ended."""
        give_up(self._service, call, Answer("client-gone", error="the caller has gone"))

    def join(self, link: Link) -> None:
        """A replica of this signature is ready."""
        link.pool = self
        self.attached += 1
        self.credits.join(link)
        self.bare_since = None
        self.wake()

    def leave(self, link: Link) -> None:
        """It must get no new batch; what is under way goes on. Nothing when it has left before."""
        self.credits.leave(link)
        if not self.credits.links and self.bare_since is None:
            self.bare_since = self._loop.time()

    def lose(self, link: Link) -> None:
        """The connection is gone: what was under way is tried once more elsewhere."""
        self.leave(link)
        self.attached -= 1
        now = self._loop.time()
        batches, link.batches = list(link.batches.values()), {}
        for batch in reversed(batches):  # each goes to the front, so the oldest comes first
            self._retry(link, batch, now)

    def take_all(self) -> Group:
        """Every waiting call, in order, out of the queue; they still count as waiting."""
        calls = [call for group in self._again for call in group.calls if call.state is group]
        self._again.clear()
        calls += self.queue.drain()
        taken = Group(calls, None)
        for call in calls:
            call.state = taken
        return taken

    def refuse_all(self, group: Group) -> None:
        """Answer calls that `take_all` gave: there is no replica."""
        for call in group.calls:
            if call.state is group:
                outcome: Outcome = "replica-lost" if call.tries else "no-replica"
                give_up(self._service, call, Answer(outcome, error=NO_REPLICA, retry_after_s=RETRY_S))

    def wake(self) -> None:
        """Look at the queue in the next iteration of the loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # what links report

    def result(self, link: Link, batch: Batch, result: Frame) -> None:
        """A batch is answered, or its answer is not one."""
        now = self._loop.time()
        meta = result.meta
        try:
            outputs = cut(batch, result, self.signature)
            failed = failed_rows(batch, result)
        except ValueError as error:
            self._failed(link, batch, f"wrong-shape: {error}", now)
            return
        took = now - batch.sent
        run_s = min(measured(meta.get("run_us")) / 1e6 or took, took)
        self._learn(batch, run_s, now)
        live = batch.live
        meter = self._freed(link, batch, now)
        meter.note_batch(live, run_s, measured(meta.get("cpu_us")))
        self.wake()
        row = 0
        for call, output in zip(batch.calls, outputs, strict=True):
            end = row + call.rows
            if call.state is batch:
                why = next((failed[at] for at in range(row, end) if at in failed), None) if failed else None
                if why is not None:
                    self._end(call, Answer("model-error", error=why), meter)
                else:
                    self._end(call, Answer("ok", output), meter)
            row = end

    def error(self, link: Link, batch: Batch, found: Frame) -> None:
        """A batch failed in the replica."""
        text = str(found.meta.get("error", ""))[:ERROR_CHARS_MAX] or "the model failed"
        self._failed(link, batch, text, self._loop.time())

    def part(self, link: Link, batch: Batch, found: Frame) -> None:
        """A piece of a stream."""
        now = self._loop.time()
        batch.heard = now
        call = batch.calls[0]
        over = batch.number not in link.batches
        error = found.meta.get("error")
        meter = self._freed(link, batch, now) if over else None
        live = call.state is batch
        if live and len(found.payload) and error is None and call.part is not None:
            batch.begun = True
            call.part(call, bytes(found.payload))
            live = call.state is batch  # the front may have given it up
        if meter is None:
            return
        self._learn(batch, now - batch.sent, now)
        meter.note_batch(int(live), now - batch.sent, measured(found.meta.get("cpu_us")))
        self.wake()
        if live and error is not None:
            self._end(call, Answer("model-error", error=str(error)[:ERROR_CHARS_MAX]), meter)
        elif live:
            self._end(call, Answer("ok", []), meter)

    # the way out

    def _flush(self) -> None:
        self._flushing = False
        now = self._loop.time()
        while True:
            link = self.credits.free(self.run_s)
            if link is None:
                return
            group = self._next_group(now)
            if group is None:
                return
            if self._sendable(group):
                self._send(link, group, now)

    def _next_group(self, now: float) -> Group | None:
        """The next batch's calls: second tries before all others, then the queue's choice."""
        while self._again:
            group = self._again.popleft()
            group.calls = [call for call in group.calls if call.state is group]
            if group.calls:
                return group
        first = self.queue.first()
        if first is None:
            return None
        bucket = first.bucket
        rows = bucket.model.size(bucket.waiting, self.credits.idle)
        wait_s = self._service.config.limits.batch_wait_ms / 1000
        if wait_s > 0 and bucket.waiting < rows and not self._waited(first, wait_s, now):
            return None
        return Group(self.queue.take(first, rows, BATCH_BYTES_MAX, now), bucket)

    def _waited(self, first: Lane, wait_s: float, now: float) -> bool:
        """Whether the first pick has waited long enough; else the queue is looked at again when it has."""
        until = first.calls[0][2].received + wait_s
        if until <= now:
            return True
        if self._timer is None or self._timer.when() > until:
            self.close()
            self._timer = self._loop.call_at(until, self._timer_rang)
        return False

    def _timer_rang(self) -> None:
        self._timer = None
        self._flush()

    def _sendable(self, group: Group) -> bool:
        """Whether its frame can be sent; a call too large for any frame is refused."""
        call = group.calls[0]
        if len(group.calls) > 1 or sum(map(len, call.payload)) <= CALL_BYTES_MAX:
            return True
        call.state = group
        give_up(
            self._service, call, Answer("invalid", error=f"its rows are more than {CALL_BYTES_MAX} bytes")
        )
        return False

    def _send(self, link: Link, group: Group, now: float) -> None:
        calls = group.calls
        assert group.bucket is not None  # only what take_all gives has none
        batch = Batch(link, calls, group.bucket, now)
        limit = self._service.config.limits.timeout_ms / 1000
        batch.overdue_s = max(OVERDUE_FACTOR * batch.bucket.model.predict(batch.rows), OVERDUE_S_MIN, limit)
        meter = batch.meter
        count = len(calls)
        self._service.waiting.change(-count, -count, now)
        meter.change(count, 0, now)
        meter.rows += batch.rows
        meter.batches += 1
        for call in calls:
            call.state = batch
            call.dispatched = now
            meter.note_waited(now - call.received)
        link.send(batch, frame(batch, self.signature, now))
        self.credits.taken(link, batch, batch.bucket.model.predict(batch.rows) or self.run_s)

    def _retry(self, link: Link, batch: Batch, now: float) -> None:
        """The batch came to nothing with its replica."""
        meter = self._freed(link, batch, now)
        calls = [call for call in batch.calls if call.state is batch]
        again = [] if batch.begun else [call for call in calls if not call.tries and call.deadline > now]
        self._again_later(Group(again, batch.bucket), meter, now)
        for call in calls:
            if call.state is batch:
                late = call.deadline <= now
                lost = Answer("timeout") if late else Answer("replica-lost", error="its replica was lost")
                self._end(call, lost, meter)

    def _failed(self, link: Link, batch: Batch, text: str, now: float) -> None:
        """The replica answers and the batch failed: with several calls each is tried alone."""
        meter = self._freed(link, batch, now)
        calls = [call for call in batch.calls if call.state is batch]
        self.wake()
        if len(batch.calls) > 1:
            for call in reversed(calls):
                if not call.tries and call.deadline > now:
                    self._again_later(Group([call], batch.bucket), meter, now)
        for call in calls:
            if call.state is batch:
                self._end(call, Answer("model-error", error=text), meter)

    def _again_later(self, group: Group, meter: Meter, now: float) -> None:
        count = len(group.calls)
        if not count:
            return
        for call in group.calls:
            call.tries += 1
            call.state = group
        meter.retried += count
        self._service.waiting.change(count, count, now)
        self._again.appendleft(group)
        self.wake()

    def _freed(self, link: Link, batch: Batch, now: float) -> Meter:
        """A credit is back; the batch's live calls are no longer under way."""
        batch.over = True
        self.credits.given_back(link)
        batch.meter.change(-batch.live, 0, now)
        if link.retired and not link.batches:
            link.close()
        return batch.meter

    def _learn(self, batch: Batch, run_s: float, now: float) -> None:
        bucket = batch.bucket
        bucket.model.observe(batch.rows, run_s, now)
        self.queue.reprice(bucket, bucket.model.cost())
        weight = _RUN_WEIGHT if self.run_s else 1.0
        self.run_s += (run_s - self.run_s) * weight
        self.row_s += (run_s / batch.rows - self.row_s) * weight

    def _end(self, call: Call, answer: Answer, meter: Meter) -> None:
        end(self._service, call, answer, meter)

    def _add_bucket(self, shapes: Any) -> Bucket:
        bucket = self.queue.add_bucket(shapes, LatencyModel(self._rows_max, self._objective()))
        bucket.cost = self.row_s  # until its own batches are measured
        return bucket

    def _objective(self) -> float | None:
        objective_ms = self._service.config.slo_latency_ms
        return None if objective_ms is None else objective_ms / 1000


def give_up(service: Service, call: Call, answer: Answer) -> None:
    """End a live call now, wherever it is, in whichever pool; nothing for one that has ended."""
    state = call.state
    if state is None:
        return
    meter = service.waiting
    if isinstance(state, Batch):
        meter = state.meter
        if not state.over:
            state.live -= 1
            meter.change(-1, 0, service.loop.time())
            if not state.live:
                state.link.say(CANCEL, state.number)
    else:
        if isinstance(state, Lane):
            FairQueue.remove(call)
        meter.change(-1, -1, service.loop.time())
    end(service, call, answer, meter)


def end(service: Service, call: Call, answer: Answer, meter: Meter) -> None:
    """The one way in which an admitted call ends."""
    call.state = None
    service.wheel.remove(call)
    meter.count(answer.outcome)
    if answer.outcome != "client-gone":
        meter.note_latency(service.loop.time() - call.received)
    call.done(call, answer)
