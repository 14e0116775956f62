"""One connection over a socket pair: however its bytes are cut, the answers are the same and in order."""

import asyncio
import socket
from itertools import pairwise
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.gateway_scene import GOOD, get, keys, post
from tests.serving.gateway_under_test import make_parts

from steersman.dataplane.gateway.http.connection import Connection
from steersman.dataplane.gateway.http.front import Front
from steersman.dataplane.gateway.http.limits import Limits
from steersman.model.service import Gateway, RequestLimits
from steersman.ports.gateway import GatewayConfig, RevisionConfig, ServiceConfig

CONFIG = GatewayConfig(
    epoch=1,
    position=1,
    gateway=Gateway(keys="required"),
    services=tuple(
        ServiceConfig(
            name=name,
            revisions=(RevisionConfig(revision=1, replicas=()),),
            limits=RequestLimits(body_bytes_max=4_096),
        )
        for name in ("echo", "none")
    ),
    keys=keys(),
)
CHUNKED = (
    b"POST /predict/echo HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + GOOD.encode() + b"\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n3;x=y\r\n,2]\r\n0\r\nTrailer: x\r\n\r\n"
)
REQUESTS = {
    post("/predict/echo", b"[1]"): (200, b"[1]"),
    post("/predict/echo", b'"' + b"a" * 3_000 + b'"'): (200, b'"' + b"a" * 3_000 + b'"'),
    CHUNKED: (200, b"[1,2]"),
    post("/predict/echo", b"{"): (400, None),
    post("/predict/echo", b"1", key=None): (401, None),
    post("/predict/none", b"1"): (503, None),
    get("/v2/health/live", key=None): (200, b'{"live":true}'),
    get("/v2/health/live", "X-Request-Id: a", key=None): (200, b'{"live":true}'),
    get("/nothing"): (404, None),
}
LAST = get("/v2/health/live", "Connection: close", key=None)


async def conversation(data: bytes, cuts: list[int]) -> tuple[bytes, Front]:
    loop = asyncio.get_running_loop()
    front = Front(loop, make_parts(loop, Path()), Limits())
    front.configure(CONFIG)
    ours, theirs = socket.socketpair()
    connection = front.join("127.0.0.1", "127.0.0.1")
    assert isinstance(connection, Connection)
    await loop.connect_accepted_socket(lambda: connection, ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in pairwise(edges):
        writer.write(data[start:end])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    answers = await reader.read()
    writer.close()
    await writer.wait_closed()
    front.close()
    for _ in range(3):  # turns of the loop in which an aborted connection is reported lost
        await asyncio.sleep(0)
    assert front.connections == 0
    return answers, front


def parse(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        head, data = data.split(b"\r\n\r\n", 1)
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append((int(head.split()[1]), data[:size]))
        data = data[size:]
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(REQUESTS)), max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_the_cut_of_the_bytes_changes_nothing(requests: list[bytes], cuts: list[int]) -> None:
    answers, front = asyncio.run(conversation(b"".join(requests) + LAST, cuts))
    expected = [REQUESTS[one] for one in requests] + [(200, b'{"live":true}')]
    found = parse(answers)
    assert [status for status, _ in found] == [status for status, _ in expected]
    assert all(body in {None, got} for (_, body), (_, got) in zip(expected, found, strict=True))
    key = front.keys.find(GOOD.encode(), 0, bearer=False)
    assert key is not None
    assert (key.live, key.acquired) == (0, key.released)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 1_000), max_size=8))
def test_no_bytes_ever_raise_or_get_through(noise: bytes, cuts: list[int]) -> None:
    data = noise + b"\r\n\r\n\0\r\n\r\n" + LAST
    answers, _ = asyncio.run(conversation(data, cuts))
    assert answers.startswith(b"HTTP/1.1 ")
    assert b"Traceback" not in answers


def test_a_head_known_by_its_bytes_means_the_same_for_another_body() -> None:
    """The memo must not confuse a head with the one before it (same body length, other head)."""
    first = post("/predict/echo", b"[1]")
    other = post("/predict/none", b"[1,2,3]")
    head, body = other.split(b"\r\n\r\n")
    data = first + first + head + b"\r\n\r\n" + body + first + LAST
    for cut in range(len(first) * 2, len(first) * 2 + len(other) + 1):
        answers, _ = asyncio.run(conversation(data, [len(first), 2 * len(first), cut]))
        assert [status for status, _ in parse(answers)] == [200, 200, 503, 200, 200], cut


def test_refusals_are_json_with_stable_words() -> None:
    answers, _ = asyncio.run(conversation(post("/predict/none", b"1") + LAST, []))
    body = msgspec.json.decode(parse(answers)[0][1])
    assert (body["error"], body["code"]) == ("no replica of this service is ready", "no-replica")
    assert b"retry-after: 2\r\n" in answers
