"""What the engine tells the gateway and when; and how signals get into the journal."""

import asyncio
from collections.abc import Sequence

from tests.scenarios.serving import replicas, served, service
from tests.unit.engine.rig import Rig, fleet, in_rig, replaced, running

from steersman.engine import engine as module
from steersman.engine.engine import RETRY_MS, Engine
from steersman.engine.publish import gateway_config
from steersman.model.decisions import Plan
from steersman.model.events import (
    ApiKeyCreated,
    ApiKeyRevoked,
    GatewayDeclared,
    Observed,
    RankReady,
    ServiceDeclared,
    Signal,
    StopRequested,
)
from steersman.model.ids import WorkloadName
from steersman.model.service import ApiKey, Gateway
from steersman.model.snapshot import Snapshot
from steersman.ports.driver import StopOrder
from steersman.ports.sensor import Observation
from steersman.sim.driver import Behaviour, SimDriver

SERVES = Behaviour(run_ms=None, ready_ms=300, term_code=0)
NAME = WorkloadName("digits")


def stop() -> StopRequested:
    return StopRequested(workload=NAME)


async def serving(rig: Rig, count: int = 2) -> None:
    """A service with so many replicas that all answer."""
    rig.behaviour = SERVES
    await rig.record(fleet(cpu_milli=8_000))
    await rig.record(served(service(scaling=replicas(count))))
    await rig.until(lambda: rig.engine.snapshot.services[NAME].serving is not None)
    await rig.clock.advance(5_000)


class TracedDriver(SimDriver):
    """Notes every stop that is ordered in the trace of a rig."""

    rig: Rig

    async def stop(self, order: StopOrder) -> None:
        self.rig.gateways.trace.append((order.cause, frozenset({order.key.run})))
        await super().stop(order)


def traced(rig: Rig) -> None:
    """The rig's engine over a driver that notes stops."""
    rig.driver = driver = TracedDriver(rig.clock, rig._program)
    driver.rig = rig
    rig.engine = rig.make(driver)


def told_too_early(rig: Rig) -> list[str]:
    """Runs that were told to end while the gateway's last word still listed them."""
    listed: frozenset[str] = frozenset()
    found: list[str] = []
    for what, runs in rig.gateways.trace:
        if what == "publish":
            listed = runs
        elif what != "refused":
            found += sorted(runs & listed)
    return found


@in_rig
async def test_a_replica_is_listed_as_soon_as_it_is_decided_and_gone_before_it_is_told_to_end(
    rig: Rig,
) -> None:
    traced(rig)
    async with running(rig):
        await serving(rig)
        first = next(runs for what, runs in rig.gateways.trace if what == "publish" and runs)
        assert len(first) == 2
        assert {event.run for event in rig.of(RankReady)} >= first
        await rig.record(served(service(model="v2", scaling=replicas(2))))
        await rig.until(lambda: rig.engine.snapshot.services[NAME].rolling is None)
        await rig.record(stop())
        await rig.clock.advance(5_000)
        stops = [what for what, _ in rig.gateways.trace if what not in ("publish", "refused")]
        assert len(stops) >= 4
        assert told_too_early(rig) == []
        assert rig.gateways.trace[-1][0] == "removed"


@in_rig
async def test_the_sweep_tells_nobody_to_end_before_the_gateway_knows(rig: Rig) -> None:
    """A sensor looks while the configuration is being written: what it finds to be ended must wait."""
    traced(rig)
    async with running(rig):
        await serving(rig)
        engine = rig.engine
        sensor = engine._parts.sensors[0]
        looks: list[asyncio.Task[None]] = []
        honest = Engine._publish

        async def slow(self: Engine) -> bool:
            looks.append(asyncio.create_task(self._look(sensor)))
            for _ in range(20):  # the look gets as far as it can
                await asyncio.sleep(0)
            return await honest(self)

        with replaced(Engine, "_publish", slow):
            await rig.record(stop())
            await rig.clock.advance(5_000)
        assert looks
        assert [task.exception() for task in looks] == [None] * len(looks)
        assert told_too_early(rig) == []
        assert {what for what, _ in rig.gateways.trace} == {"publish", "removed"}


@in_rig
async def test_the_configuration_carries_epoch_and_position_and_is_written_when_it_changes(rig: Rig) -> None:
    async with running(rig):
        assert rig.gateways.published == [], "no service, no gateway"
        await serving(rig)
        head = rig.engine.snapshot
        last = rig.gateways.published[-1]
        assert (last.epoch, last.gateway) == (1, Gateway())
        assert last.position <= head.position
        assert last == gateway_config(head, rig.gateways.target) or last.position < head.position
        positions = [config.position for config in rig.gateways.published]
        assert positions == sorted(set(positions))
        count = len(positions)
        await rig.record(fleet(cpu_milli=8_000, nodes=2))
        await rig.clock.advance(600_000)
        assert len(rig.gateways.published) == count, "what it says has not changed"


@in_rig
async def test_a_gateway_and_its_keys_are_published_without_any_service(rig: Rig) -> None:
    key = ApiKey(name="team", digest="sha256:1")
    async with running(rig):
        await rig.record(GatewayDeclared(gateway=Gateway(port=9_000)))
        assert rig.gateways.published[-1].gateway.port == 9_000
        await rig.record(ApiKeyCreated(key=key))
        assert [item.digest for item in rig.gateways.published[-1].keys] == ["sha256:1"]
        await rig.record(ApiKeyCreated(key=ApiKey(name="team", digest="sha256:2")))
        assert [item.digest for item in rig.gateways.published[-1].keys] == ["sha256:2"]
        await rig.record(ApiKeyRevoked(name="team"))
        assert rig.gateways.published[-1].keys == ()


@in_rig
async def test_a_restart_publishes_the_same_under_a_higher_epoch(rig: Rig) -> None:
    async with running(rig):
        await serving(rig)
        before = rig.gateways.published[-1]
    rig.gateways.published.clear()
    rig.engine = rig.make(rig.driver)
    await rig.engine.start()
    after = rig.gateways.published[0]
    assert (after.epoch, after.services, after.gateway) == (2, before.services, before.gateway)
    assert after.position > before.position
    async with running(rig):
        await rig.clock.advance(60_000)
        assert {config.services for config in rig.gateways.published} == {before.services}


@in_rig
async def test_what_could_not_be_published_is_tried_again(rig: Rig) -> None:
    """Every second until it is written, without any other news; work goes on meanwhile."""
    async with running(rig):
        rig.gateways.full = True
        rig.behaviour = SERVES
        await rig.record(fleet(cpu_milli=8_000))
        await rig.record(served(service()))
        await rig.clock.advance(10 * RETRY_MS)
        assert rig.engine.snapshot.services[NAME].serving is not None
        assert not rig.engine.stats().healthy
        assert "disk is full" in rig.engine.stats().problem
        tries = len(rig.gateways.trace)
        await rig.clock.advance(5 * RETRY_MS)
        assert 4 <= len(rig.gateways.trace) - tries <= 6
        rig.gateways.full = False
        await rig.clock.advance(RETRY_MS)
        assert len(rig.gateways.published) == 1
        assert rig.engine.stats().healthy


@in_rig
async def test_a_failure_to_publish_puts_off_nothing_else(rig: Rig) -> None:
    """The plan asks to be woken in half a second: the retry of the gateway does not move that."""
    async with running(rig):
        await serving(rig, 1)
        rig.gateways.full = True
        await rig.record(GatewayDeclared(gateway=Gateway(port=9_000)))
        wake = rig.engine._snapshot.now_ms + RETRY_MS // 2

        with replaced(module, "decide", lambda *_: idle_until(wake)):
            await rig.record(GatewayDeclared(gateway=Gateway(port=9_001)))
            assert rig.engine._wake_at_ms == wake


def idle_until(wake_at_ms: int) -> Plan:
    return Plan(decisions=(), wake_at_ms=wake_at_ms)


# ---- signals ---------------------------------------------------------------------------------------------


class Meter:
    """A sensor that says what a test wants said. Once it is in the snapshot it is not said again."""

    name = "meter"

    def __init__(self) -> None:
        self.values: dict[str, int | None] = {}
        self.rung = asyncio.Event()

    async def observe(self, snapshot: Snapshot) -> Observation:
        state = snapshot.services.get(NAME)
        known = {} if state is None else {item.name: item.value for item in state.signals}
        told: Sequence[Signal] = [
            Signal(name=name, subject=NAME, value=value)
            for name, value in sorted(self.values.items())
            if name not in known or known[name] != value
        ]
        return Observation(events=(), signals=tuple(told))

    async def wait_changed(self, timeout_ms: int) -> None:
        await self.rung.wait()
        self.rung.clear()

    def say(self, **values: int | None) -> None:
        self.values |= values
        self.rung.set()


async def metered(rig: Rig) -> Meter:
    meter = Meter()
    rig.sensors = [meter]
    rig.engine = rig.make(rig.driver)
    return meter


def signals(rig: Rig) -> list[tuple[str, int | None]]:
    return [(item.name, item.value) for event in rig.of(Observed) for item in event.signals]


@in_rig
async def test_signals_are_recorded_with_the_time_of_their_cycle(rig: Rig) -> None:
    """Both in one event, in order of name; told once; and the service follows them."""
    meter = await metered(rig)
    async with running(rig):
        rig.behaviour = SERVES
        await rig.record(fleet(cpu_milli=8_000))
        await rig.record(served(service(scaling=replicas(1, 3))))
        await rig.clock.advance(5_000)
        meter.say(queued_milli=0, ongoing_milli=6_000)
        await rig.clock.advance(1_000)
        assert signals(rig) == [("ongoing_milli", 6_000), ("queued_milli", 0)]
        await rig.clock.advance(10_000)
        assert rig.engine.snapshot.services[NAME].target == 3
        head = rig.journal.head().position
        await rig.clock.advance(600_000)
        assert rig.journal.head().position == head, "steady load writes nothing"


@in_rig
async def test_signals_that_could_not_be_recorded_are_kept(rig: Rig) -> None:
    """The disk is full when they come: the newest of each is recorded once there is room."""
    meter = await metered(rig)
    async with running(rig):
        await rig.record(fleet(), ServiceDeclared(service=service(), digest="d"))
        rig.journal.full = True
        meter.say(ongoing_milli=1_000)
        await rig.clock.advance(100)
        meter.say(ongoing_milli=None)
        await rig.clock.advance(5_000)
        assert signals(rig) == []
        rig.journal.full = False
        await rig.clock.advance(2_000)
        assert signals(rig) == [("ongoing_milli", None)]


@in_rig
async def test_a_signal_that_moves_again_while_it_is_recorded_is_not_lost(rig: Rig) -> None:
    meter = await metered(rig)

    def reach(name: str) -> None:
        if name == "before-record" and rig.engine._signals and not later:
            later.append(Signal(name="ongoing_milli", subject=NAME, value=2))
        elif name == "after-record" and later and not noted:
            noted.append(True)
            rig.engine._note_signals(later)

    later: list[Signal] = []
    noted: list[bool] = []
    async with running(rig):
        await rig.record(fleet(), ServiceDeclared(service=service(), digest="d"))
        rig.reach = reach
        meter.say(ongoing_milli=1)
        meter.values = {}
        rig.engine._note_signals([Signal(name="ongoing_milli", subject=NAME, value=1)])
        await rig.clock.advance(1_000)
        assert signals(rig) == [("ongoing_milli", 1), ("ongoing_milli", 2)]
