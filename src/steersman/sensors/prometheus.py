"""What Prometheus says: the declared queries of services, as signals that autoscale reads.

Theory of operation. Every LOOK_MS each query of each service is asked by one `GET /api/v1/query` of the
server that was declared beside it, and of no other: no redirect is followed. The answer must be one number,
a scalar or a vector with one sample, finite and not negative, within ANSWER_S and ANSWER_BYTES_MAX all told.
Anything else, and a server that cannot be reached, makes the figure unknown, which holds the number of
replicas. Figures are said when they leave their dead band, as those of the gateway are.

The request is HTTP/1.0, so that the answer ends where the connection does, and is read by this module alone.
"""

import asyncio
import math
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from steersman.model.events import Signal
from steersman.model.signals import prometheus
from steersman.model.snapshot import ServiceState, Snapshot
from steersman.ports.clock import Clock
from steersman.ports.sensor import Observation
from steersman.sensors.gateway import moved, rounded

LOOK_MS = 15_000
"""How often a query is asked: as often as Prometheus itself looks, as most are set up."""
ANSWER_S = 5.0
ANSWER_BYTES_MAX = 1 << 20
ASKED_AT_ONCE_MAX = 8
VALUE_MAX = 1e15

_PORTS = {"http": 80, "https": 443}


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    result_type: str = msgspec.field(name="resultType")
    result: list[Any]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    data: _Data


_decoder = msgspec.json.Decoder(_Answer)


class PrometheusSensor:
    """The Sensor port over the servers that services declare."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_ms = 0
        self._asked: frozenset[tuple[str, str]] = frozenset()

    @property
    def name(self) -> str:
        return "prometheus"

    async def observe(self, snapshot: Snapshot) -> Observation:
        queries = list(_queries(snapshot))
        wanted = frozenset((url, query) for _, _, url, query in queries)
        if not wanted or (wanted == self._asked and self._clock.now_ms() < self._due_ms):
            return Observation(events=())
        self._asked, self._due_ms = wanted, self._clock.now_ms() + LOOK_MS
        turns = asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        asked = sorted(wanted)
        found = await asyncio.gather(*(_within(turns, url, query) for url, query in asked))
        values = dict(zip(asked, found, strict=True))
        signals = (_signal(state, at, values[url, query]) for state, at, url, query in queries)
        return Observation(events=(), signals=tuple(signal for signal in signals if signal is not None))

    async def wait_changed(self, timeout_ms: int) -> None:
        await self._clock.sleep_ms(timeout_ms)


def _queries(snapshot: Snapshot) -> Iterator[tuple[ServiceState, int, str, str]]:
    """Every query: its service, its place in the list, and what to ask whom."""
    for _, state in snapshot.services.sorted_items():
        if state.removing or state.stop_requested:
            continue
        for at, metric in enumerate(state.spec.scaling.metrics):
            if metric.url is not None and metric.query is not None:
                yield state, at, metric.url, metric.query


def _signal(state: ServiceState, at: int, value: int | None) -> Signal | None:
    name = prometheus(at)
    known = next((signal.value for signal in state.signals if signal.name == name), None)
    if not moved(name, known, value):
        return None
    return Signal(name=name, subject=state.spec.name, value=value)


async def _within(turns: asyncio.Semaphore, url: str, query: str) -> int | None:
    async with turns:
        try:
            async with asyncio.timeout(ANSWER_S):
                return value_of(await _get(url, query))
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            return None  # unknown, which holds; it is asked again soon


async def _get(url: str, query: str) -> bytes:
    """The body of the answer. Raises OSError, or ValueError when it is no answer or too long."""
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    context = ssl.create_default_context() if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        target = f"{parts.path}/api/v1/query?query={quote(query, safe='')}"
        lines = (f"GET {target} HTTP/1.0", f"Host: {parts.netloc}", "Accept: application/json", "", "")
        writer.write("\r\n".join(lines).encode())
        answer = b""
        while chunk := await reader.read(1 << 16):
            answer += chunk
            if len(answer) > ANSWER_BYTES_MAX:
                raise ValueError("the answer is too long")
    finally:
        writer.close()
    head, blank, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split()
    if not blank or len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1] != b"200":
        raise ValueError("not an answer, or a refusal")
    return body


def value_of(body: bytes) -> int | None:
    """The one number of an answer, in thousandths, to three digits; None when it has none."""
    try:
        answer = _decoder.decode(body)
    except msgspec.DecodeError:
        return None
    result: Any = answer.data.result
    sample = None
    if answer.data.result_type == "scalar":
        sample = result
    elif answer.data.result_type == "vector" and len(result) == 1 and isinstance(result[0], dict):
        sample = result[0].get("value")
    if answer.status != "success" or not isinstance(sample, list) or len(sample) != 2:
        return None
    text = sample[1]
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return rounded(round(value * 1_000)) if 0 <= value <= VALUE_MAX else None
