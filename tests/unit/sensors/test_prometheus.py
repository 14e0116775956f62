"""Queries of Prometheus over real connections: what is asked, what is an answer, and what is unknown."""

import asyncio
import contextlib

import pytest
from tests.unit.explain.served import Served, service

from steersman.model.service import Metric, Scaling
from steersman.model.snapshot import Snapshot
from steersman.sensors import prometheus as product
from steersman.sensors.prometheus import LOOK_MS, PrometheusSensor, value_of
from steersman.sim.clock import VirtualClock

VECTOR = (
    b'{"status":"success","data":{"resultType":"vector","result":'
    b'[{"metric":{"__name__":"up","job":"api"},"value":[1435781451.781,"12.5"]}]}}'
)
SCALAR = b'{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"3"]}}'
REFUSED = b'{"status":"error","errorType":"bad_data","error":"parse error"}'


def ok(body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body


class Server:
    """A small HTTP server that says what a test tells it to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer = ok(VECTOR)
        self.asked: list[str] = []
        self.hangs = False
        self.port = 0
        self._over = asyncio.Event()
        self._served: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()
        await asyncio.gather(*self._served, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.append(task)
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.hangs:
            await self._over.wait()
        writer.write(self.answer)
        writer.close()
        with contextlib.suppress(OSError):  # the other side may have gone first
            await writer.wait_closed()


def declared(port: int, *queries: str) -> Served:
    """A home with a service that is scaled by these queries."""
    metrics = tuple(
        Metric(url=f"http://127.0.0.1:{port}/prom", query=query, target_milli=1_000, per="total")
        for query in queries
    )
    home = Served()
    home.serve(service(scaling=Scaling(min_replicas=1, max_replicas=9, metrics=metrics)))
    return home


def looked(answer: bytes, *, known: int | None = None, hangs: bool = False) -> dict[str, int | None]:
    """What is said after this answer."""

    async def look() -> dict[str, int | None]:
        async with Server() as server:
            server.answer, server.hangs = answer, hangs
            home = declared(server.port, "sum(rate(http_requests_total[1m]))")
            if known is not None:
                home.hear(("prometheus_milli#0", known))
            seen = await PrometheusSensor(VirtualClock(1_000)).observe(home.snapshot)
            return {signal.name: signal.value for signal in seen.signals}

    return asyncio.run(look())


def test_a_query_is_asked_as_prometheus_wants_it() -> None:
    async def ask() -> list[str]:
        async with Server() as server:
            home = declared(server.port, 'sum(up{job="a b"}) > 0')
            seen = await PrometheusSensor(VirtualClock(1_000)).observe(home.snapshot)
            assert [(s.name, s.subject, s.value) for s in seen.signals] == [
                ("prometheus_milli#0", "digits", 12_500)
            ]
            return server.asked

    (asked,) = asyncio.run(ask())
    assert asked.startswith(
        "GET /prom/api/v1/query?query=sum%28up%7Bjob%3D%22a%20b%22%7D%29%20%3E%200 HTTP/1.0\r\nHost: 127.0"
    )


@pytest.mark.parametrize(("body", "value"), [(VECTOR, 12_500), (SCALAR, 3_000), (REFUSED, None), (b"", None)])
def test_the_forms_of_an_answer(body: bytes, value: int | None) -> None:
    assert value_of(body) == value


@pytest.mark.parametrize(
    ("kind", "result", "value"),
    [
        ("vector", "[]", None),
        ("vector", '[{"value":[1,"1"]},{"value":[1,"2"]}]', None),
        ("vector", '[{"value":[1,"0"]}]', 0),
        ("vector", '[{"value":[1,"0.0001"]}]', 0),
        ("vector", '[{"value":[1,"1.23456e3"]}]', 1_230_000),
        ("vector", '[{"value":[1,"NaN"]}]', None),
        ("vector", '[{"value":[1,"+Inf"]}]', None),
        ("vector", '[{"value":[1,"-3"]}]', None),
        ("vector", '[{"value":[1,"1e300"]}]', None),
        ("vector", '[{"value":[1,"many"]}]', None),
        ("vector", '[{"value":[1,7]}]', None),
        ("vector", '[{"value":[1]}]', None),
        ("vector", '[{"histogram":[1,{}]}]', None),
        ("vector", "[7]", None),
        ("scalar", "[]", None),
        ("matrix", '[{"values":[[1,"1"]]}]', None),
        ("string", '[1,"1"]', None),
    ],
)
def test_only_one_number_is_an_answer(kind: str, result: str, value: int | None) -> None:
    body = f'{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}'
    assert value_of(body.encode()) == value


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"nonsense", b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n" + VECTOR,
        b"HTTP/1.0 503 Busy\r\n\r\n" + VECTOR, b"HTTP/1.0\r\n\r\n" + VECTOR,
        b"SPDY/1 200 OK\r\n\r\n" + VECTOR, ok(VECTOR)[:-3],
        ok(b" " * (product.ANSWER_BYTES_MAX + 1) + VECTOR),
    ],
)  # fmt: skip
def test_anything_else_is_unknown(answer: bytes) -> None:
    """Unknown is said when it was known, and not said again."""
    assert looked(answer, known=5_000) == {"prometheus_milli#0": None}
    assert looked(answer) == {}


def test_a_server_that_is_silent_or_gone_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "ANSWER_S", 0.2)
    assert looked(ok(VECTOR), known=5_000, hangs=True) == {"prometheus_milli#0": None}

    async def gone() -> tuple[object, ...]:
        async with Server() as server:
            port = server.port
        home = declared(port, "up")
        home.hear(("prometheus_milli#0", 1_000))
        return (await PrometheusSensor(VirtualClock(1_000)).observe(home.snapshot)).signals

    (signal,) = asyncio.run(gone())
    assert signal.value is None  # type: ignore[attr-defined]  # a signal


def test_a_figure_is_said_when_it_leaves_its_dead_band() -> None:
    assert looked(ok(VECTOR), known=12_000) == {}
    assert looked(ok(VECTOR), known=9_000) == {"prometheus_milli#0": 12_500}


def test_each_query_is_asked_once_a_while_however_many_services_ask_it() -> None:
    async def asked() -> list[int]:
        async with Server() as server:
            clock, counts = VirtualClock(1_000), []
            home = declared(server.port, "up", "up", "down")
            sensor = PrometheusSensor(clock)

            async def look(snapshot: Snapshot) -> None:
                await sensor.observe(snapshot)
                counts.append(len(server.asked))

            await look(Snapshot())
            await look(home.snapshot)
            await look(home.snapshot)
            await clock.advance(LOOK_MS)
            await look(home.snapshot)
            home.serve(service(scaling=Scaling(min_replicas=1, max_replicas=2)))
            await clock.advance(LOOK_MS)
            await look(home.snapshot)
            return counts

    assert asyncio.run(asked()) == [0, 2, 2, 4, 4]


def test_who_is_on_its_way_out_is_not_asked_for() -> None:
    async def asked() -> list[str]:
        async with Server() as server:
            home = declared(server.port, "up")
            home.down("digits")
            sensor = PrometheusSensor(VirtualClock(1_000))
            assert sensor.name == "prometheus"
            assert (await sensor.observe(home.snapshot)).signals == ()
            return server.asked

    assert asyncio.run(asked()) == []


def test_it_waits_as_long_as_it_is_told() -> None:
    async def waited() -> int:
        clock = VirtualClock(1_000)
        waiting = asyncio.create_task(PrometheusSensor(clock).wait_changed(2_000))
        await clock.advance(2_000)
        await waiting
        return clock.now_ms()

    assert asyncio.run(waited()) == 3_000
