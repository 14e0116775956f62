"""Which call goes next: bands, callers, deadlines, buckets; against a plain model of it."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.dataplane.gateway.call import Call, Shapes
from steersman.dataplane.gateway.exchange import queue as queues
from steersman.dataplane.gateway.exchange.batching import LatencyModel
from steersman.dataplane.gateway.exchange.queue import FIRST_PICK_EVERY, FairQueue

BYTES_MAX = 2**20


def _call(caller: str = "", band: int = 1, deadline: float = 100.0, weight: int = 1, rows: int = 1) -> Call:
    call = Call(lambda call, answer: None)
    call.caller, call.band, call.deadline, call.weight, call.rows = caller, band, deadline, weight, rows
    call.payload = [b"x" * rows]
    return call


def _push(queue: FairQueue, call: Call, shapes: Shapes = ()) -> Call:
    call.shapes = shapes
    bucket = queue.buckets.get(shapes) or queue.add_bucket(shapes, LatencyModel(64, None))
    queue.push(call, bucket)
    return call


def _take(queue: FairQueue, rows: int = 1, bytes_max: int = BYTES_MAX) -> list[Call]:
    first = queue.first()
    return [] if first is None else queue.take(first, rows, bytes_max, 0.0)


def test_the_earliest_deadline_goes_first_within_a_caller() -> None:
    queue = FairQueue()
    for deadline in (5.0, 3.0, 9.0, 1.0, 7.0):
        _push(queue, _call(deadline=deadline), shapes=((int(deadline) % 2,),))
    assert [_take(queue)[0].deadline for _ in range(5)] == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert queue.first() is None


def test_callers_are_served_by_their_weights() -> None:
    queue = FairQueue()
    for number in range(400):
        _push(queue, _call("heavy", weight=3, deadline=number))
        _push(queue, _call("light", deadline=number))
    served = Counter(call.caller for _ in range(20) for call in _take(queue, rows=8))
    assert served == {"heavy": 120, "light": 40}


def test_silence_saves_up_nothing_and_a_new_caller_is_not_behind_a_flood() -> None:
    queue = FairQueue()
    for number in range(1_000):
        _push(queue, _call("flood", deadline=number))
    for _ in range(300):
        _take(queue)
    for number in range(10):
        _push(queue, _call("new", deadline=1e6 + number))
    assert Counter(_take(queue)[0].caller for _ in range(20)) == {"flood": 10, "new": 10}


def test_one_call_at_a_time_does_not_get_more_than_its_share() -> None:
    queue = FairQueue()
    for number in range(1_000):
        _push(queue, _call("backlogged", weight=3, deadline=number))
    served: Counter[str] = Counter()
    _push(queue, _call("closed loop"))
    for _ in range(400):
        call = _take(queue)[0]
        served[call.caller] += 1
        if call.caller == "closed loop":
            _push(queue, _call("closed loop"))
    assert served["closed loop"] == pytest.approx(100, abs=2)


def test_higher_bands_go_first_and_lower_ones_do_not_starve() -> None:
    queue = FairQueue()
    for number in range(500):
        for band in (0, 1, 2):
            _push(queue, _call(band=band, deadline=number))
    picks = [_take(queue)[0].band for _ in range(320)]
    assert Counter(picks)[2] > 270
    for band in (0, 1):
        places = [index for index, picked in enumerate(picks) if picked == band]
        assert places[0] < FIRST_PICK_EVERY
        assert all(b - a <= FIRST_PICK_EVERY for a, b in pairwise(places))


def test_a_batch_is_of_one_shape_and_keeps_to_rows_and_bytes() -> None:
    queue = FairQueue()
    for number in range(10):
        _push(queue, _call(deadline=number, rows=2), shapes=((number % 2,),))
    batch = _take(queue, rows=7)
    assert [call.deadline for call in batch] == [0, 2, 4]
    assert len(_take(queue, rows=64, bytes_max=5)) == 2


def test_a_batch_stops_growing_where_the_smallest_slack_would_be_missed() -> None:
    queue = FairQueue()
    model = LatencyModel(64, None)
    for rows in (1, 2, 4, 8, 1, 2, 4, 8):
        model.observe(rows, 0.01 * rows, 0.0)
    bucket = queue.add_bucket((), model)
    for number in range(20):
        queue.push(_call(deadline=0.051 + number), bucket)
    first = queue.first()
    assert first is not None
    assert len(queue.take(first, 16, BYTES_MAX, 0.0)) == 5
    for number in range(5):  # lost whatever is done: it does not make the batch small
        queue.push(_call(deadline=0.001 + number), bucket)
    first = queue.first()
    assert first is not None
    assert len(queue.take(first, 16, BYTES_MAX, 0.0)) == 16


def test_many_shapes_and_callers_are_forgotten_when_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "BUCKETS_MAX", 100)
    monkeypatch.setattr(queues, "FLOWS_KEPT", 50)
    queue = FairQueue()
    waits = _push(queue, _call("stays", band=0, deadline=1e9), shapes=((-1,),))
    for number in range(2_000):
        _push(queue, _call(f"caller {number}", band=2, deadline=number), shapes=((number,),))
        if _take(queue)[0] is waits:
            _take(queue)
            _push(queue, waits, shapes=((-1,),))
    assert len(queue.buckets) <= 101
    assert all(len(band.flows) <= 51 for band in queue.bands)
    assert sum(len(flow.lanes) for band in queue.bands for flow in band.flows.values()) <= 51 * 65


def test_calls_that_left_do_not_pile_up() -> None:
    queue = FairQueue()
    stays = _push(queue, _call(deadline=0.0))
    for number in range(5_000):
        queue.remove(_push(queue, _call(deadline=1.0 + number)))
    lane = stays.state
    assert len(lane.calls) < 100
    assert len(lane.flow.heads) < 100
    assert _take(queue, 64) == [stays]


CALLS = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 2),
    st.integers(0, 50),
    st.integers(1, 3),
    st.integers(0, 2),
)
STEPS = st.lists(st.one_of(CALLS, st.integers(1, 8), st.just("leave"), st.just("reprice")), max_size=120)


@given(STEPS)
def test_the_queue_equals_a_model_that_looks_at_all_calls(steps: list[object]) -> None:
    """Counts, first picks within a caller, one shape a batch, nothing lost and nothing twice."""
    queue, waiting, gone = FairQueue(), [], 0
    for step in steps:
        if isinstance(step, tuple):
            caller, band, deadline, rows, shape = step
            waiting.append(_push(queue, _call(caller, band, float(deadline), rows=rows), shapes=((shape,),)))
        elif isinstance(step, int):
            first = queue.first()
            batch = _take(queue, step)
            if first is not None:
                assert batch[0].deadline == min(
                    call.deadline
                    for call in waiting
                    if (call.caller, call.band) == (batch[0].caller, batch[0].band)
                )
                assert len({call.shapes for call in batch}) == 1
                assert len(batch) == 1 or sum(call.rows for call in batch) <= step
                for call in batch:
                    waiting.remove(call)
                    gone += 1
        elif step == "leave" and waiting:
            queue.remove(waiting.pop(len(waiting) // 2))
        elif queue.buckets:
            queue.reprice(next(iter(queue.buckets.values())), 0.5)
        _check_counts(queue, waiting)
    assert sorted(map(id, queue.drain())) == sorted(map(id, waiting))
    _check_counts(queue, [])


def _check_counts(queue: FairQueue, waiting: list[Call]) -> None:
    assert queue.live == len(waiting)
    for band in queue.bands:
        here = [call for call in waiting if call.band == band.index]
        assert band.rows == sum(call.rows for call in here)
        assert band.weight == len({call.caller for call in here})
        assert band.backlog_s == pytest.approx(
            sum(call.rows * queue.buckets[call.shapes].cost for call in here), abs=1e-9
        )
        for name, flow in band.flows.items():
            assert flow.live == sum(call.caller == name for call in here)
    for shapes, bucket in queue.buckets.items():
        assert bucket.waiting == sum(call.rows for call in waiting if call.shapes == shapes)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), min_size=2), st.integers(1, 16))
def test_backlogged_callers_differ_from_their_shares_by_a_batch_at_most(
    weights: dict[str, int], rows: int
) -> None:
    """Start-time fair queueing's bound, after every batch."""
    queue = FairQueue()
    for number in range(300):
        for name, weight in weights.items():
            _push(queue, _call(name, weight=weight, deadline=number))
    served = dict.fromkeys(weights, 0)
    while sum(served.values()) < 150:
        for call in _take(queue, rows):
            served[call.caller] += 1
        normal = [served[name] / weight for name, weight in weights.items()]
        assert max(normal) - min(normal) <= 2
