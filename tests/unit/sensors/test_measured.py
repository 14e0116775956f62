"""What one replica can do, and what is answered: measured from the gateway's counters while requests wait."""

import pytest
from msgspec.structs import replace
from tests.unit.explain.served import service
from tests.unit.sensors.test_gateway import SCALING, Bench

from steersman.model.service import Metric, Scaling
from steersman.model.signals import CAPACITY, QUEUED, SERVED


def _looked(scaling: Scaling = SCALING) -> Bench:
    """A bench with a first look, which gives no rate."""
    bench = Bench(scaling)
    bench.process()
    bench.write()
    assert bench.look() == {}
    return bench


def _saturated(
    bench: Bench, rate: int, queued: int, ready: int = 2, seconds: int = 3
) -> dict[str, int | None]:
    """What is said after so long of so many answers a second while so many wait."""
    for _ in range(seconds):
        bench.after(1_000)
        bench.count(
            ready_replicas=ready,
            outcomes={"ok": rate},
            ongoing=queued + 2,
            queued=queued,
            ongoing_us=(queued + 2) * 1_000_000,
            queued_us=queued * 1_000_000,
        )
        bench.write()
        said = bench.heed()
    return said


def test_what_a_replica_can_do_is_seen_while_requests_wait() -> None:
    """Two replicas that answer a hundred a second, while one or more wait for each: fifty, at least."""
    bench = _looked()
    assert CAPACITY not in _saturated(bench, 80, queued=1)
    _saturated(bench, 100, queued=2)
    assert bench.known(CAPACITY) == pytest.approx(50_000, rel=0.03)
    _saturated(bench, 60, queued=2)
    assert bench.known(CAPACITY) == pytest.approx(50_000, rel=0.03)  # it could do more a moment ago
    _saturated(bench, 60, queued=9)
    assert bench.known(CAPACITY) == pytest.approx(30_000, rel=0.03)  # with so many it does what it can
    _saturated(bench, 160, queued=2)
    assert bench.known(CAPACITY) == pytest.approx(80_000, rel=0.03)


def test_no_capacity_is_measured_while_replicas_come_or_go() -> None:
    bench = _looked()
    _saturated(bench, 100, queued=9, seconds=1)
    for ready in (1, 2, 3, 0, 0, 0):
        assert CAPACITY not in _saturated(bench, 100, queued=9, ready=ready, seconds=1)
    assert bench.known(CAPACITY) is None


def test_requests_that_wait_for_their_batch_to_fill_load_nobody() -> None:
    bench = Bench(Scaling(min_replicas=1, max_replicas=5, look_back_ms=2_000))
    spec = service(scaling=Scaling(min_replicas=1, max_replicas=5, look_back_ms=2_000))
    bench.home.serve(replace(spec, limits=replace(spec.limits, batch_wait_ms=100)))
    bench.process()
    bench.write()
    bench.look()
    _saturated(bench, 100, queued=9)  # ten of them wait for company
    assert bench.known(CAPACITY) is None
    _saturated(bench, 100, queued=15)
    assert bench.known(CAPACITY) == pytest.approx(50_000, rel=0.03)


def test_the_rate_of_answers_is_said_to_who_scales_by_its_backlog() -> None:
    metric = Metric(name="backlog", target_milli=1_000, per="replica")
    bounds = Scaling(min_replicas=1, max_replicas=5, look_back_ms=2_000)
    bench = _looked(replace(bounds, metrics=(metric,), forecast=False))
    said = _saturated(bench, 100, queued=50, seconds=1)
    _saturated(bench, 100, queued=50)
    assert bench.known(SERVED) == pytest.approx(100_000, rel=0.03)
    assert bench.known(QUEUED) == 50_000
    assert CAPACITY not in said
    bench.gateways.stats = ()
    assert bench.heed()[SERVED] is None
