"""Calls that wait for a replica: which goes next, and with whom.

Theory. Three rules, one inside the other:

* **Bands.** The highest priority band with a waiting call makes the first pick of a batch; a lower band that
  waits makes it at least once in FIRST_PICK_EVERY batches, so that none starves.
* **Fairness between callers** inside a band: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996) on
  flows, a flow being one caller. A flow has a start tag in virtual time; the smallest goes next, and what it
  sends moves its tag on by rows / weight. A flow that begins to wait takes max(own tag, virtual time), so
  that silence saves up nothing and a burst is not forgotten. Two backlogged callers' service differs from
  their weights' ratio by at most one batch each. When a band runs empty, virtual time moves to its largest
  tag.
* **Earliest deadline first** inside a flow.

Only rows of equal shapes share a batch, so a flow's calls lie in lanes, one a shape bucket. The first pick
fixes the bucket; the rest of the batch comes from the lanes of that bucket by the same rules.

All orders are binary heaps with lazy keys: an entry may lag behind (its flow was served, its call is gone)
but is never ahead, so settling the top is enough: O(log n) amortised an operation, and no operation looks at
all calls. A taken or removed call leaves its heap entry behind; a lane is swept when most of it is such
entries.

A waiting call's `state` is its lane. The queue also keeps, per band, the seconds of replica time that its
rows will take (`backlog_s`), from each bucket's cost a row; admission reads it.
"""

from heapq import heapify, heappop, heappush, heapreplace

from steersman.dataplane.gateway.call import BANDS, Call, Shapes
from steersman.dataplane.gateway.exchange.batching import LatencyModel

FIRST_PICK_EVERY = 16
"""A band that waits makes the first pick of at least one in so many batches."""
BUCKETS_MAX = 1_024
"""Shape buckets remembered without a waiting call; the oldest goes first, with what was learnt of it."""
FORGET_LOOKS = 8
"""So many are looked at for one to forget whenever one is added."""
LANES_KEPT = 64
"""With more buckets than this an empty lane is dropped, else kept for the next call."""
FLOWS_KEPT = 4_096
"""Callers remembered while they have nothing waiting."""
STALE_MAX = 32
"""Entries of gone calls that a lane may hold beside as many as live ones."""


class Bucket:
    """Rows of equal shapes. `heaps[band]` orders the lanes by their flow's start tag."""

    __slots__ = ("cost", "heaps", "model", "rows", "shapes", "waiting")

    def __init__(self, shapes: Shapes, model: LatencyModel) -> None:
        self.shapes = shapes
        self.model = model
        self.cost = 0.0
        self.waiting = 0
        self.rows = [0] * BANDS
        self.heaps: list[list[tuple[float, int, Lane]]] = [[] for _ in range(BANDS)]


class Flow:
    """One caller in one band. `heads` orders its lanes by the earliest deadline in each."""

    __slots__ = ("band", "heads", "lanes", "listed", "live", "rows", "start", "weight")

    def __init__(self, band: "Band") -> None:
        self.band = band
        self.start = 0.0
        self.weight = 1
        self.live = self.rows = 0
        self.listed = False
        self.lanes: dict[Bucket, Lane] = {}
        self.heads: list[tuple[float, int, Lane]] = []


class Lane:
    """The calls of one flow in one bucket, by deadline."""

    __slots__ = ("bucket", "calls", "flow", "listed", "live")

    def __init__(self, flow: Flow, bucket: Bucket) -> None:
        self.flow = flow
        self.bucket = bucket
        self.live = 0
        self.listed = False
        self.calls: list[tuple[float, int, Call]] = []


class Band:
    """One priority. `virtual` is the start tag of the last first pick, `latest` the largest tag given;
    `passed` counts first picks that went elsewhere while it waited."""

    __slots__ = (
        "backlog_s",
        "flows",
        "heap",
        "index",
        "latest",
        "passed",
        "queue",
        "rows",
        "virtual",
        "weight",
    )

    def __init__(self, queue: "FairQueue", index: int) -> None:
        self.queue = queue
        self.index = index
        self.virtual = self.latest = self.backlog_s = 0.0
        self.rows = self.weight = self.passed = 0
        self.flows: dict[str, Flow] = {}
        self.heap: list[tuple[float, int, Flow]] = []


class FairQueue:
    """The waiting calls of one pool."""

    __slots__ = ("_number", "bands", "buckets", "live")

    def __init__(self) -> None:
        self._number = 0
        self.live = 0
        self.bands = [Band(self, index) for index in range(BANDS)]
        self.buckets: dict[Shapes, Bucket] = {}

    def add_bucket(self, shapes: Shapes, model: LatencyModel) -> Bucket:
        """A new bucket; one that nobody waits in is forgotten when there are too many."""
        for _ in range(FORGET_LOOKS):
            if len(self.buckets) < BUCKETS_MAX:
                break
            oldest = next(iter(self.buckets))
            bucket = self.buckets.pop(oldest)
            if bucket.waiting:
                self.buckets[oldest] = bucket  # at the end: looked at again after the others
        bucket = self.buckets[shapes] = Bucket(shapes, model)
        return bucket

    def push(self, call: Call, bucket: Bucket) -> None:
        """Have a call wait. Its band, caller, weight, rows and deadline are read now and must not change."""
        band = self.bands[call.band]
        flow = band.flows.get(call.caller)
        if flow is None:
            flow = self._new_flow(band, call.caller)
        self._number = number = self._number + 1
        if not flow.live:
            self._wake(band, flow, call.weight)
        lane = flow.lanes.get(bucket)
        if lane is None:
            lane = flow.lanes[bucket] = Lane(flow, bucket)
        entry = (call.deadline, number, call)
        heappush(lane.calls, entry)
        if lane.calls[0] is entry:
            heappush(flow.heads, (call.deadline, number, lane))
            if len(flow.heads) > 2 * len(flow.lanes) + STALE_MAX:
                _sweep_heads(flow, lane, entry)
        if not lane.listed:
            lane.listed = True
            heappush(bucket.heaps[call.band], (flow.start, number, lane))
        call.state = lane
        rows = call.rows
        lane.live += 1
        flow.live += 1
        flow.rows += rows
        band.rows += rows
        band.backlog_s += rows * bucket.cost
        bucket.rows[call.band] += rows
        bucket.waiting += rows
        self.live += 1

    def first(self) -> Lane | None:
        """Whose call the next batch begins with; None when nothing waits."""
        band = self._due()
        if band is None:
            return None
        heap = band.heap
        while True:
            start, number, flow = heap[0]
            if not flow.live:
                heappop(heap)
                flow.listed = False
            elif start < flow.start:
                heapreplace(heap, (flow.start, number, flow))
            else:
                return self._head(flow)

    def take(self, first: Lane, rows_max: int, bytes_max: int, now: float) -> list[Call]:
        """The batch that begins with this lane: at least one call, then more of its bucket while rows, bytes
        and the smallest slack among them allow."""
        bucket = first.bucket
        call = self._pop_first(first)
        calls, rows, size = [call], call.rows, sum(map(len, call.payload))
        limit = min(rows_max, _rows_for(bucket.model, call.deadline - now))
        tight = now + bucket.model.promise(rows_max)
        while rows < limit:
            lane = self._next(bucket)
            if lane is None:
                break
            call = lane.calls[0][2]
            if call.deadline < tight:
                limit = min(limit, _rows_for(bucket.model, call.deadline - now))
            rows += call.rows
            size += sum(map(len, call.payload))
            if rows > limit or size > bytes_max:
                break
            calls.append(self._pop(lane))
        return calls

    @staticmethod
    def remove(call: Call) -> None:
        """A waiting call leaves its queue, whichever that is."""
        lane: Lane = call.state
        lane.flow.band.queue.uncount(lane, call)
        call.state = None

    def reprice(self, bucket: Bucket, cost: float) -> None:
        """A row of this bucket takes so many seconds from now on."""
        change = cost - bucket.cost
        bucket.cost = cost
        for band, rows in zip(self.bands, bucket.rows, strict=True):
            if rows:
                band.backlog_s += rows * change

    def ahead_s(self, call: Call) -> float:
        """Seconds of one replica's time that go before a call that would come now: the bands above it, and
        of its own what its fair share makes it wait for, which is never more than all of it."""
        band = self.bands[call.band]
        ahead = band.backlog_s
        flow = band.flows.get(call.caller)
        own = flow.rows if flow is not None else 0
        weights = band.weight + (0 if own else max(call.weight, 1))
        if band.rows:
            mean = band.backlog_s / band.rows
            others = (own + call.rows) * (weights / max(call.weight, 1) - 1)
            ahead = min(ahead, (own + others) * mean)
        for above in self.bands[call.band + 1 :]:
            ahead += above.backlog_s
        return ahead

    def waiting_of(self, call: Call) -> int:
        """Calls of the same caller and band that wait."""
        flow = self.bands[call.band].flows.get(call.caller)
        return flow.live if flow is not None else 0

    def drain(self) -> list[Call]:
        """Take every call, in order."""
        calls = []
        while (lane := self.first()) is not None:
            calls.append(self._pop_first(lane))
        return calls

    def _new_flow(self, band: Band, caller: str) -> Flow:
        if len(band.flows) >= FLOWS_KEPT:
            band.flows = {name: flow for name, flow in band.flows.items() if flow.live}
        flow = band.flows[caller] = Flow(band)
        return flow

    def _wake(self, band: Band, flow: Flow, weight: int) -> None:
        flow.weight = max(weight, 1)
        flow.start = max(flow.start, band.virtual)
        band.weight += flow.weight
        if not flow.listed:
            flow.listed = True
            heappush(band.heap, (flow.start, self._number, flow))

    def _due(self) -> Band | None:
        """The band that makes the first pick. Two bands may be due at once; both stay within the bound."""
        top: Band | None = None
        for band in self.bands:
            if band.rows:
                if band.passed >= FIRST_PICK_EVERY - (BANDS - 1):
                    return band
                top = band
        return top

    def _picked(self, picked: Band) -> None:
        for band in self.bands:
            band.passed = band.passed + 1 if band.rows and band is not picked else 0

    def _head(self, flow: Flow) -> Lane:
        """The lane with the flow's earliest deadline."""
        heads = flow.heads
        while True:
            deadline, number, lane = heads[0]
            if not lane.live:
                heappop(heads)
                continue
            entry = _settle(lane)
            if (deadline, number) == entry[:2]:
                return lane
            heapreplace(heads, (entry[0], entry[1], lane))

    def _next(self, bucket: Bucket) -> Lane | None:
        """The lane of this bucket that goes next, its first entry settled."""
        for index in range(BANDS - 1, -1, -1):
            if not bucket.rows[index]:
                continue
            heap = bucket.heaps[index]
            while True:
                start, number, lane = heap[0]
                if not lane.live:
                    heappop(heap)
                    lane.listed = False
                elif start < lane.flow.start:
                    heapreplace(heap, (lane.flow.start, number, lane))
                else:
                    _settle(lane)
                    return lane
        return None

    def _pop_first(self, lane: Lane) -> Call:
        band = lane.flow.band
        self._picked(band)
        band.virtual = lane.flow.start  # the smallest of all that wait
        _settle(lane)
        return self._pop(lane)

    def _pop(self, lane: Lane) -> Call:
        call = heappop(lane.calls)[2]
        flow = lane.flow
        flow.start += call.rows / flow.weight
        flow.band.latest = max(flow.band.latest, flow.start)
        self.uncount(lane, call)
        call.state = None
        return call

    def uncount(self, lane: Lane, call: Call) -> None:
        """Take one call of a lane out of every count."""
        flow, bucket, rows = lane.flow, lane.bucket, call.rows
        band = flow.band
        lane.live -= 1
        flow.live -= 1
        flow.rows -= rows
        band.rows -= rows
        band.backlog_s -= rows * bucket.cost
        bucket.rows[band.index] -= rows
        bucket.waiting -= rows
        self.live -= 1
        if not flow.live:
            band.weight -= flow.weight
            flow.heads.clear()
            if not band.rows:
                band.backlog_s = 0.0  # no rounding is carried on
                band.virtual = band.latest
        if not lane.live:
            lane.calls.clear()
            if len(self.buckets) > LANES_KEPT:
                del flow.lanes[bucket]
        elif len(lane.calls) > 2 * lane.live + STALE_MAX:
            lane.calls = [entry for entry in lane.calls if entry[2].state is lane and entry[2] is not call]
            heapify(lane.calls)


def _settle(lane: Lane) -> tuple[float, int, Call]:
    """The first entry of a lane that has a live call."""
    calls = lane.calls
    while calls[0][2].state is not lane:
        heappop(calls)
    return calls[0]


def _sweep_heads(flow: Flow, lane: Lane, entry: tuple[float, int, Call]) -> None:
    """Leave one entry a live lane; `lane` is about to be live, with this first entry."""
    flow.heads = [(*_settle(one)[:2], one) for one in flow.lanes.values() if one.live and one is not lane]
    flow.heads.append((entry[0], entry[1], lane))
    heapify(flow.heads)


def _rows_for(model: LatencyModel, slack_s: float) -> int:
    """Rows that a slack allows. One that is too small for a single row does not count: it is lost whatever
    the batch, and must not make the others pay with small batches."""
    return model.rows_within(slack_s) or model.rows_max
