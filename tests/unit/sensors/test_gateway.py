"""From the gateway's counters to signals: what is said, what is not, and what is unknown."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.explain.served import Served, service

from steersman.model.events import Signal
from steersman.model.service import Scaling
from steersman.model.signals import ARRIVALS, LATENCY, ONGOING, QUEUED
from steersman.model.sketch import bucket
from steersman.model.snapshot import Snapshot
from steersman.ports.gateway import STATS_STALE_MS, GatewayStats, ModelStats
from steersman.sensors.figures import LOOKS_MAX, SILENT_MS_MAX, Figures, mean_ms, quantile_ms
from steersman.sensors.gateway import LOOK_MS_MAX, LOOK_MS_MIN, GatewaySensor, rounded
from steersman.sim.clock import VirtualClock
from steersman.sim.gateways import SimGateways

SCALING = Scaling(
    min_replicas=0,
    max_replicas=5,
    initial_replicas=1,
    queued_requests_milli=1_000,
    latency_p99_ms=50,
    look_back_ms=2_000,
)
BEGIN_MS = 1_000_000


def at(latency_us: int, count: int) -> dict[int, int]:
    return {bucket(latency_us): count}


def _model(name: str, revision: int, counters: Mapping[str, Any]) -> ModelStats:
    copied: dict[str, Any] = {
        key: dict(value) if isinstance(value, dict) else value for key, value in counters.items()
    }
    return ModelStats(service=name, revision=revision, **copied)


class Bench:
    """A service, a gateway of some processes whose counters a test moves, and the sensor over both."""

    def __init__(self, scaling: Scaling = SCALING) -> None:
        self.clock = VirtualClock(BEGIN_MS)
        self.gateways = SimGateways()
        self.sensor = GatewaySensor(self.gateways, self.clock)
        self.home = Served()
        self.home.serve(service(scaling=scaling))
        self.processes: dict[int, dict[str, Any]] = {}

    def process(self, number: int = 0, *, pid: int = 10, started_ms: int = 0) -> None:
        """A process whose counters begin at nothing, in place of the one of that number."""
        self.processes[number] = {"pid": pid, "started_ms": started_ms, "models": {}, "cpu_us": 0}

    def count(self, number: int = 0, revision: int = 1, *, name: str = "digits", **more: Any) -> None:
        """Add to the counters of one revision; gauges are set."""
        models = self.processes[number]["models"]
        model = models.setdefault((name, revision), {})
        for key, value in more.items():
            if key in ("ongoing", "queued", "ready_replicas"):
                model[key] = value
            elif isinstance(value, Mapping):
                into = model.setdefault(key, {})
                for item, count in value.items():
                    into[item] = into.get(item, 0) + count
            else:
                model[key] = model.get(key, 0) + value

    def write(self, *numbers: int, position: int = 1_000) -> None:
        """These processes write their figures now; what the others wrote stays."""
        now_ms = self.clock.now_ms()
        kept = {each.process: each for each in self.gateways.stats}
        for number in numbers or tuple(self.processes):
            held = self.processes[number]
            kept[number] = GatewayStats(
                process=number,
                pid=held["pid"],
                started_ms=held["started_ms"],
                at_ms=now_ms,
                cpu_us=held["cpu_us"],
                connections=1,
                config_position=position,
                ended=held.get("ended", False),
                models=tuple(_model(key[0], key[1], model) for key, model in sorted(held["models"].items())),
            )
        self.gateways.stats = tuple(kept[number] for number in sorted(kept))

    def look(self, snapshot: Snapshot | None = None) -> dict[str, int | None]:
        """What the sensor says now, by name."""
        seen = asyncio.run(self.sensor.observe(self.home.snapshot if snapshot is None else snapshot))
        assert seen.events == ()
        assert seen.reports is None
        assert all(signal.subject == "digits" for signal in seen.signals)
        return {signal.name: signal.value for signal in seen.signals}

    def heed(self) -> dict[str, int | None]:
        """What the sensor says now, recorded."""
        said = self.look()
        if said:
            self.home.hear(*said.items())
        return said

    def known(self, name: str) -> int | None:
        """The value that the home holds of a signal."""
        signals = self.home.snapshot.services["digits"].signals
        return next((signal.value for signal in signals if signal.name == name), None)

    def after(self, duration_ms: int) -> None:
        asyncio.run(self.clock.advance(duration_ms))

    def load(self, seconds: int, *, ongoing: int = 4, rate: int = 100, latency_us: int = 20_000) -> None:
        """A steady load on process 0, written each second."""
        for _ in range(seconds):
            self.after(1_000)
            self.count(
                outcomes={"ok": rate},
                ongoing=ongoing,
                ongoing_us=ongoing * 1_000_000,
                latency_us=at(latency_us, rate),
            )
            self.write()


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.process()
    made.write()
    assert made.look() == {}  # one look gives no rate
    return made


def test_a_load_is_said_once_and_then_only_when_it_moves(bench: Bench) -> None:
    bench.load(3)
    said = bench.heed()
    assert said[ONGOING] == 4_000
    assert said[ARRIVALS] == pytest.approx(100_000, rel=0.03)
    assert said[QUEUED] == 0
    assert said[LATENCY] == pytest.approx(20_000, rel=0.02)
    for _ in range(20):
        bench.load(1)
        assert bench.heed() == {}
    bench.load(3, ongoing=8)
    assert bench.heed()[ONGOING] == 8_000


def test_processes_and_what_waits_are_added_up() -> None:
    bench = Bench()
    bench.process(0, pid=10)
    bench.process(1, pid=11)
    bench.write()
    bench.look()
    bench.after(2_000)
    for number in (0, 1):
        bench.count(number, 1, ongoing_us=2_000_000, outcomes={"ok": 10})
        bench.count(number, 0, ongoing_us=4_000_000, queued_us=4_000_000)
    bench.write()
    said = bench.look()
    assert said[ONGOING] == 2 * (1_000 + 2_000)
    assert said[QUEUED] == 2 * 2_000
    assert said[ARRIVALS] == 2 * 5_000


def test_other_services_do_not_count(bench: Bench) -> None:
    bench.after(2_000)
    bench.count(name="other", ongoing_us=90_000_000, outcomes={"ok": 900})
    bench.write()
    assert bench.look()[ONGOING] == 0


def test_to_and_from_zero_is_always_said(bench: Bench) -> None:
    bench.load(3)
    bench.heed()
    for _ in range(3):
        bench.after(1_000)
        bench.count(ongoing=0)
        bench.write()
        said = bench.heed()
    assert bench.home.service().signals
    assert {signal.name: signal.value for signal in bench.home.service().signals} == {
        ONGOING: 0,
        ARRIVALS: 0,
        QUEUED: 0,
        LATENCY: None,
    }
    bench.after(2_000)
    bench.count(ongoing_us=20_000)  # a hundredth of a request
    bench.write()
    said = bench.heed()
    assert said[ONGOING] == 10


def test_without_answers_nothing_new_is_said_of_the_latency(bench: Bench) -> None:
    bench.load(3)
    bench.heed()
    for _ in range(3):
        bench.after(1_000)
        bench.count(ongoing_us=4_000_000, ongoing=4)
        bench.write()
        assert LATENCY not in bench.heed()


def test_silence_is_unknown_and_said_once(bench: Bench) -> None:
    bench.load(3)
    bench.heed()
    bench.after(STATS_STALE_MS + 1)
    assert bench.heed() == {ONGOING: None, ARRIVALS: None, QUEUED: None, LATENCY: None}
    assert bench.heed() == {}
    bench.load(2)
    assert bench.heed()[ONGOING] is not None


def test_one_silent_process_of_two_is_unknown_until_another_takes_its_place() -> None:
    bench = Bench()
    bench.process(0, pid=10)
    bench.process(1, pid=11)
    bench.write()
    bench.look()
    bench.load(3)
    assert bench.heed()[ONGOING] == 4_000
    for _ in range(4):
        bench.after(1_000)
        bench.count(ongoing_us=4_000_000, ongoing=4)
        bench.write(0)
    assert bench.heed()[ONGOING] is None
    bench.process(1, pid=12, started_ms=bench.clock.now_ms())
    bench.after(1_000)
    bench.count(0, ongoing_us=4_000_000, ongoing=4)
    bench.count(1, ongoing_us=1_000_000, ongoing=1)
    bench.write()
    assert bench.heed()[ONGOING] == 5_000  # the new one's whole life is within the look-back


def test_a_gateway_that_moves_is_known_all_the_while() -> None:
    bench = Bench()
    bench.process(0, pid=10)
    bench.write()
    bench.look()
    bench.load(3)
    assert bench.heed()[ONGOING] == 4_000
    bench.process(1, pid=11, started_ms=bench.clock.now_ms())
    bench.processes[0]["ended"] = True
    bench.after(1_000)
    bench.count(1, ongoing_us=4_000_000, ongoing=4)
    bench.write()
    bench.look()
    assert bench.sensor.figures.known
    counted = bench.sensor.figures.totals("digits")[1].ongoing_us
    bench.look()  # its last word stands in its file for a while
    assert bench.sensor.figures.totals("digits")[1].ongoing_us == counted
    bench.gateways.stats = bench.gateways.stats[1:]
    for _ in range(3):
        bench.after(1_000)
        bench.count(1, ongoing_us=4_000_000, ongoing=4)
        bench.write(1)
        bench.look()
    assert bench.sensor.figures.known


def test_a_process_that_is_gone_for_long_is_let_go() -> None:
    bench = Bench()
    bench.process(0, pid=10)
    bench.process(1, pid=11)
    bench.write()
    bench.look()
    for _ in range(SILENT_MS_MAX // 1_000 + 2):
        bench.after(1_000)
        bench.count(ongoing_us=1_000_000)
        bench.write(0)
        bench.look()
    assert bench.heed()[ONGOING] == 1_000


def test_a_counter_that_went_backwards_is_counted_anew(bench: Bench) -> None:
    for _ in range(3):
        bench.load(1)
        bench.heed()
    bench.after(1_000)
    bench.processes[0]["models"].clear()
    bench.count(ongoing_us=1_000_000, outcomes={"ok": 5})
    bench.write()
    bench.look()
    totals = bench.sensor.figures.totals("digits")
    assert totals[1].outcomes == {"ok": 305}
    found = bench.sensor.figures.service_figures("digits", 2_000)
    assert found is not None
    assert found.outcomes == {"ok": 5}
    assert found.ongoing_milli > 0
    bench.after(1_000)
    bench.count(ongoing_us=1_000_000, outcomes={"ok": 5})
    bench.write()
    bench.look()
    assert bench.sensor.figures.totals("digits")[1].outcomes == {"ok": 310}


def test_a_restarted_control_plane_does_not_call_the_load_unknown(bench: Bench) -> None:
    bench.load(3)
    bench.heed()
    bench.sensor = GatewaySensor(bench.gateways, bench.clock)
    assert bench.heed() == {}
    bench.load(1)
    assert bench.heed() == {}


def test_a_service_that_the_gateway_has_not_heard_of_is_unknown(bench: Bench) -> None:
    bench.after(2_000)
    bench.write(position=0)
    assert bench.look() == {}
    figures = bench.sensor.figures
    assert figures.service_figures("digits", 2_000, declared_at=1) is None
    assert figures.service_figures("digits", 2_000) is not None


def test_a_fixed_number_of_replicas_needs_no_signal() -> None:
    bench = Bench(Scaling(min_replicas=2, max_replicas=2))
    bench.process()
    bench.write()
    bench.look()
    bench.load(3)
    assert bench.look() == {}
    found = bench.sensor.figures.service_figures("digits", 10_000)
    assert found is not None
    assert found.arrivals_milli > 0


def test_signals_that_nobody_asked_for_are_not_said() -> None:
    bench = Bench(Scaling(min_replicas=1, max_replicas=2, forecast=False))
    bench.process()
    bench.write()
    bench.look()
    bench.load(3)
    assert set(bench.look()) == {ONGOING, ARRIVALS}


class Counting(SimGateways):
    """Counts how often its files are read."""

    reads = 0

    def observe(self, now_ms: int) -> tuple[GatewayStats, ...]:
        self.reads += 1
        return super().observe(now_ms)


def test_without_services_nothing_is_read_and_nobody_is_woken() -> None:
    clock, gateways = VirtualClock(BEGIN_MS), Counting()
    sensor = GatewaySensor(gateways, clock)

    async def idle() -> int:
        await sensor.observe(Served().snapshot)
        waiting = asyncio.create_task(sensor.wait_changed(2_000))
        await clock.advance(0)
        wake_ms = clock.next_wake_ms()
        await clock.advance(2_000)
        await waiting
        assert wake_ms is not None
        return wake_ms - BEGIN_MS

    assert asyncio.run(idle()) == 2_000
    assert gateways.reads == 0


@pytest.mark.parametrize(
    ("look_back_ms", "wait_ms"), [(1_000, LOOK_MS_MIN), (4_000, 500), (60_000, LOOK_MS_MAX)]
)
def test_how_often_it_looks(look_back_ms: int, wait_ms: int) -> None:
    bench = Bench(Scaling(min_replicas=0, max_replicas=1, look_back_ms=look_back_ms))
    bench.look()

    async def wait() -> int | None:
        waiting = asyncio.create_task(bench.sensor.wait_changed(2_000))
        await bench.clock.advance(0)
        wake_ms = bench.clock.next_wake_ms()
        await bench.clock.advance(2_000)
        await waiting
        return wake_ms

    assert asyncio.run(wait()) == BEGIN_MS + wait_ms


@given(st.integers(0, 10**12))
def test_three_digits(value: int) -> None:
    found = rounded(value)
    assert abs(found - value) * 200 <= max(value, 0)
    assert (found == 0) == (value == 0)
    assert len(str(found).rstrip("0")) <= 3


@given(values=st.lists(st.integers(0, 5_000), min_size=1, max_size=40))
def test_what_is_recorded_is_never_far_from_what_is(values: list[int]) -> None:
    """After every look the recorded value is within the dead band, whatever the course was."""
    bench = Bench(Scaling(min_replicas=1, max_replicas=9, look_back_ms=1_000))
    bench.process()
    bench.write()
    bench.look()
    for ongoing in values:
        bench.after(1_000)
        bench.count(ongoing_us=ongoing * 1_000)
        bench.write()
        bench.heed()
        (held,) = [each.value for each in bench.home.service().signals if each.name == ONGOING]
        assert held is not None
        assert (held == 0) == (ongoing == 0)
        assert abs(held - ongoing) <= max(held // 10, 50) + ongoing // 200 + 1


def test_looks_are_bounded_and_long_spans_stay_right() -> None:
    figures = Figures()
    for second in range(4_000):
        stats = GatewayStats(
            process=0,
            pid=1,
            started_ms=0,
            at_ms=BEGIN_MS + second * 1_000,
            cpu_us=0,
            connections=0,
            models=(ModelStats(service="digits", revision=1, ongoing_us=second * 3_000_000),),
        )
        figures.note((stats,), {"digits"})
    assert all(len(looks) <= LOOKS_MAX for looks in figures._looks.values())
    for span_ms in (1_000, 10_000, 60_000, 600_000, 3_600_000):
        found = figures.service_figures("digits", span_ms)
        assert found is not None
        assert found.ongoing_milli == 3_000
        assert span_ms <= found.span_ms <= span_ms * 1.1 + 2_000


def test_figures_of_revisions_and_shares_of_the_gateway() -> None:
    figures = Figures()
    for second in range(2):
        models = (
            ModelStats(
                service="a", revision=1, outcomes={"ok": 30 * second}, rows=60 * second, batches=second
            ),
            ModelStats(service="a", revision=2, outcomes={"ok": 10 * second}, replica_cpu_us=50 * second),
            ModelStats(service="b", revision=1, outcomes={"ok": 40 * second}),
        )
        stats = GatewayStats(
            process=0,
            pid=1,
            started_ms=0,
            at_ms=BEGIN_MS + second * 1_000,
            cpu_us=8_000 * second,
            connections=0,
            models=models,
        )
        figures.note((stats,), {"a", "b"})
    found = figures.service_figures("a", 10_000)
    assert found is not None
    assert found.gateway_cpu_us == 4_000
    assert found.replica_cpu_us == 50
    assert found.outcomes == {"ok": 40}
    assert [(item.revision, item.ended) for item in found.revisions] == [(1, 30), (2, 10)]
    assert figures.service_figures("nobody", 10_000) is not None
    figures.note((), {"b"})
    assert figures.service_figures("b", 10_000) is None
    assert figures.gateway_cpu_us == 8_000


def test_sketches_in_milliseconds() -> None:
    assert quantile_ms({}, 500) is None
    assert mean_ms({}) is None
    assert quantile_ms(at(20_000, 3), 990) == pytest.approx(20, rel=0.02)
    assert mean_ms({**at(10_000, 1), **at(30_000, 1)}) == pytest.approx(20, rel=0.02)


def test_signals_have_the_names_that_autoscale_reads() -> None:
    bench = Bench()
    bench.home.bring_up()
    bench.home.hear((ONGOING, 9_000), (QUEUED, 0), (LATENCY, 1_000))
    bench.home.cycle(after_ms=SCALING.upscale_delay_ms)
    assert bench.home.service().target == 5
    assert Signal(name=ONGOING, subject="x", value=None).value is None
