"""Attacks on a gateway over real sockets, by the numbers of the attack checklist; each has its safe answer,
and a client that does nothing wrong is served meanwhile and after."""

import contextlib
import re
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.gateway_scene import (
    EXPIRED,
    GOOD,
    SCOPED,
    SLOWED,
    Scene,
    get,
    post,
    wait_for,
)

from steersman.dataplane.gateway.http.limits import Limits
from steersman.model.service import Gateway

CLOSE = "close"
FILES_ELSE = 200
"""Open files of the tests themselves."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(
        tmp_path_factory.mktemp("gateway") / "home",
        Gateway(port=0, keys="required", hosts=("models.example",)),
        headers_s=0.5, body_s=0.5, body_bytes_per_s=2**20, idle_s=1.5, write_s=0.5, linger_s=0.5,
        sweep_s=0.05,
    )  # fmt: skip
    yield scene
    assert scene.end() == 0


@pytest.fixture(autouse=True)
def served_after(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every attack on the shared gateway is followed by a healthy client."""
    yield
    if "scene" in request.fixturenames:
        request.getfixturevalue("scene").healthy()


def refused(scene: Scene, data: bytes, *statuses: int) -> None:
    """The gateway answers with one of these and closes; another client is served while it does."""
    with scene.client() as client:
        client.send(data)
        scene.healthy()
        reply = client.read()
        assert reply.status in statuses, (reply.status, reply.body)
        assert reply.headers["connection"] == CLOSE
        assert client.closed()


def test_the_limits_are_what_the_checklist_asks_for() -> None:
    limits = Limits()
    assert (limits.headers_s, limits.body_s, limits.body_bytes_per_s) == (5.0, 10.0, 16 * 1024)
    assert (limits.idle_s, limits.write_s, limits.sweep_s, limits.drain_s) == (75.0, 30.0, 0.25, 10.0)
    assert (limits.head_bytes_max, limits.fields_max, limits.url_bytes_max) == (16 * 1024, 100, 8 * 1024)
    assert limits.failed_keys_per_minute == 10


ROUTES = [
    post("/predict/echo", key=None), post("/v2/models/echo/infer", key=None), get("/v2", key=None),
    get("/v2/models/echo", key=None), get("/v2/models/echo/ready", key=None), get("/nothing", key=None),
    post("/v2/models/echo/versions/1/infer", key=None), post("/predict/nobody", key=None),
    post("/predict/stream", key=None),
]  # fmt: skip


@pytest.mark.parametrize("data", ROUTES, ids=lambda data: data.split(b" HTTP")[0].decode())
def test_01_no_key_on_any_route(scene: Scene, data: bytes) -> None:
    with scene.client() as client:
        reply = client.ask(data)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")


def test_01_unknown_and_expired_keys_get_one_answer(scene: Scene) -> None:
    with scene.client() as client:
        expired, unknown = (client.ask(post("/predict/echo", key=key)) for key in (EXPIRED, "unknown"))
        assert expired.status == unknown.status == 401
        assert expired.body == unknown.body


@pytest.mark.parametrize(
    "value", ["Bearer ' OR 1=1--", "Bearer ", "Basic Zm9v", "Bearer \xff\xfe", "x", GOOD]
)
def test_02_malformed_credentials(scene: Scene, value: str) -> None:
    with scene.client() as client:
        data = post("/predict/echo", key=None).replace(b"\r\n\r\n", b"\r\nAuthorization: VALUE\r\n\r\n")
        assert client.ask(data.replace(b"VALUE", value.encode("latin-1"))).status in {401, 429}


def test_02_a_key_of_a_megabyte_or_with_nul(scene: Scene) -> None:
    refused(scene, post("/predict/echo", key="k" * 2**20), 431)
    refused(scene, post("/predict/echo", key="k\0"), 400)


def test_03_a_key_in_the_url(scene: Scene) -> None:
    with scene.client() as client:
        reply = client.ask(post(f"/predict/echo?api_key={GOOD}"))
        assert reply.status == 400
        assert GOOD.encode() not in reply.body


@pytest.mark.parametrize("host", ["evil", "127.0.0.1.evil.example", "127.0.0.1:80@evil", "localhost.evil"])
def test_05_a_foreign_host(scene: Scene, host: str) -> None:
    refused(scene, post("/predict/echo", host=host), 421, 400)


def test_05_no_host_or_two(scene: Scene) -> None:
    refused(scene, b"GET /v2 HTTP/1.1\r\n\r\n", 400)
    refused(scene, b"GET /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n", 400)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:8000", "models.example"]
)
def test_05_our_own_names(scene: Scene, host: str) -> None:
    with scene.client() as client:
        assert client.ask(post("/predict/echo", host=host)).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1.evil", "http://evil@127.0.0.1"]
)
def test_06_another_origin(scene: Scene, origin: str) -> None:
    with scene.client() as client:
        for data in (post("/predict/echo", b"1", f"Origin: {origin}"), get("/v2", f"Origin: {origin}")):
            reply = client.ask(data)
            assert reply.status == 403
            assert not any(name.startswith("access-control") for name in reply.headers)
        assert client.ask(post("/predict/echo", b"1", "Origin: http://127.0.0.1")).status == 200
        assert client.ask(get("/v2", method="OPTIONS")).status == 405


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO", "get"])
def test_07_methods_never_allowed(scene: Scene, method: str) -> None:
    refused(scene, get("/v2", method=method), 405, 501, 400)


def test_07_methods_of_other_routes_and_overrides(scene: Scene) -> None:
    with scene.client() as client:
        for method in ("PUT", "DELETE", "PATCH", "PROPFIND"):
            reply = client.ask(get("/predict/echo", method=method))
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
    refused(scene, post("/predict/echo", b"1", "X-HTTP-Method-Override: DELETE"), 405)


HEAD = b"POST /predict/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: " + GOOD.encode() + b"\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = {
    "length-and-chunked": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-and-length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two-lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n1",
    "two-different-lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n12",
    "negative-length": HEAD + b"Content-Length: -1\r\n\r\n",
    "signed-length": HEAD + b"Content-Length: +1\r\n\r\n1",
    "huge-length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "folded": HEAD + b"X: a\r\n b\r\nContent-Length: 1\r\n\r\n1",
    "bare-lf": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 1\n\n1",
    "one-bare-lf": HEAD + b"X: a\nContent-Length: 1\r\n\r\n1",
    "bare-cr": HEAD + b"X: a\rb\r\nContent-Length: 1\r\n\r\n1",
    "space-before-colon": HEAD + b"Content-Length : 1\r\n\r\n1",
    "nul": HEAD + b"X: a\0\r\nContent-Length: 1\r\n\r\n1",
    "xchunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
    "gzip-chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "bad-chunk": CHUNKED + b"zz\r\n1\r\n0\r\n\r\n",
    "chunk-overflow": CHUNKED + b"fffffffffffffffff\r\n1\r\n0\r\n\r\n",
    "chunk-too-long": CHUNKED + b"1\r\n123\r\n0\r\n\r\n",
    "chunk-bare-lf": CHUNKED + b"1\n1\r\n0\r\n\r\n",
    "chunk-extension": CHUNKED + b"1;" + b"a" * 2**20,
    "upgrade": HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n1",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_08_ambiguous_framing(scene: Scene, name: str) -> None:
    refused(scene, SMUGGLED[name], 400)


def test_08_trailers_mean_nothing_and_pipelined_answers_keep_their_order(scene: Scene) -> None:
    trailer = CHUNKED.replace(b"X-API-Key: good-key\r\n", b"") + b"1\r\n1\r\n0\r\nX-API-Key: good-key\r\n\r\n"
    with scene.client() as client:
        assert client.ask(trailer).status == 401
    with scene.client() as client:
        client.send(
            post("/predict/slow", b"0") + b"".join(post("/predict/echo", b"%d" % n) for n in range(1, 30))
        )
        time.sleep(0.1)
        client.send(post("/predict/echo", b"30") + SMUGGLED["two-lengths"])
        assert [client.read().json for _ in range(31)] == list(range(31))
        assert client.read().status == 400
        assert client.closed()


def test_08_too_many_requests_ahead_are_not_kept(scene: Scene) -> None:
    with scene.client() as client:
        client.send(post("/predict/slow", b"0") + post("/predict/echo", b"1") * 500)
        answers = 0
        with contextlib.suppress(ConnectionResetError):
            while client.read().status == 200:
                answers += 1
        assert answers == Limits().pipeline_max + 1


@pytest.mark.parametrize(
    "start",
    [b"", b"POST /pre", HEAD, HEAD + b"Content-Length: 100\r\n\r\n1", CHUNKED + b"1\r\n1\r\n"],
    ids=["nothing", "line", "header", "body", "chunks"],
)
def test_09_slow_requests_end_by_an_absolute_deadline(scene: Scene, start: bytes) -> None:
    with scene.client() as client:
        client.send(start)
        client.socket.settimeout(0.1)
        until = time.monotonic() + 10
        data = b"?"
        while time.monotonic() < until:
            try:
                data = client.socket.recv(4096)
                break
            except TimeoutError:  # one byte now and then does not help
                with contextlib.suppress(OSError):
                    client.send(b"a" if start and not start.startswith(CHUNKED) else b"")
        assert data == b"" if not start else data.startswith(b"HTTP/1.1 408")
        scene.healthy()


def test_09_a_response_that_nobody_reads_and_idle_connections(scene: Scene) -> None:
    with scene.client() as reader, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(scene.client()) for _ in range(100)]
        for one in idle:
            assert one.ask(post("/predict/echo")).status == 200
        reader.send(post("/predict/big"))
        scene.healthy()
        wait_for(lambda: scene.stats()[0].connections == 0)
        assert all(one.closed() for one in idle)


def test_09_ten_thousand_idle_connections_leave_room_for_who_asks(tmp_path: Path) -> None:
    """As many as this machine lets a process open; the cap of the gateway is below, so the oldest go."""
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(10_000, files_max - FILES_ELSE)
    gateway = Gateway(port=0, connections_per_address_max=4_096)
    scene = Scene(tmp_path / "home", gateway, sweep_s=0.05)
    try:
        scene.healthy()
        place = (scene.where.address, scene.where.port)
        before = memory(scene.stats()[0].pid)
        with contextlib.ExitStack() as stack:
            for number in range(count):
                stack.enter_context(socket.create_connection(place, timeout=10))
                if number % 500 == 0:
                    scene.healthy()
            for _ in range(20):
                scene.healthy()
            wait_for(lambda: scene.stats()[0].connections <= gateway.connections_max)
            assert memory(scene.stats()[0].pid) < before + 64 * 2**20
        scene.healthy()
    finally:
        scene.end()


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) * 1024


def test_10_bodies_beyond_the_limit(scene: Scene) -> None:
    before = memory(scene.stats()[0].pid)
    refused(scene, HEAD + b"Content-Length: 1000000000\r\n\r\n", 413)
    refused(scene, HEAD + b"Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n", 413)
    with scene.client() as client:
        client.send(CHUNKED)
        with contextlib.suppress(ConnectionError):  # endless: until the gateway hangs up
            for _ in range(2_000):
                client.send(b"10000\r\n" + b"1" * 65536 + b"\r\n")
            raise AssertionError("130 MB were taken")
    assert memory(scene.stats()[0].pid) < before + 32 * 2**20


def test_10_a_lying_length(scene: Scene) -> None:
    refused(scene, HEAD + b"Content-Length: 9\r\n\r\n1", 408)
    with scene.client() as client:
        client.send(HEAD + b"Content-Length: 1\r\n\r\n1GARBAGE\r\n\r\n")
        assert client.read().status == 200
        assert client.read().status in {400, 501}


def test_10_a_body_that_waits_for_leave(scene: Scene) -> None:
    with scene.client() as client:
        client.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.read().status == 100
        assert client.ask(b"[1]").json == [1]


def test_11_headers_and_urls_beyond_the_limit(scene: Scene) -> None:
    refused(scene, HEAD + b"A: b\r\n" * 101 + b"\r\n", 431)
    refused(scene, HEAD + b"A: b\r\n" * 10_000 + b"\r\n", 431)
    refused(scene, HEAD + b"A: " + b"b" * 70_000 + b"\r\n\r\n", 431)
    refused(scene, get("/" + "a" * 2**20), 414)
    refused(scene, get("/v2?" + "a=b&" * 100_000), 414)
    with scene.client() as client:
        assert client.ask(get("/v2?a=b")).status == 400


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "gzip, gzip", "deflate"])
def test_12_compressed_bodies(scene: Scene, coding: str) -> None:
    with scene.client() as client:
        assert client.ask(post("/predict/echo", b"1", f"Content-Encoding: {coding}")).status == 415
        assert client.ask(post("/predict/echo", b"1", "Content-Encoding: identity")).status == 200


@pytest.mark.parametrize("body", [b"[" * 100_000, b"{", b"", b"NaN", b"\xff", b'"\\ud800"'])
def test_13_hostile_json(scene: Scene, body: bytes) -> None:
    with scene.client() as client:
        assert client.ask(post("/predict/echo", body)).status == 400
        assert client.ask(post("/predict/echo", b"1")).status == 200


PATHS = [
    "/predict/..%2fecho", "/predict/%252e%252e/x", "/predict/..\\echo", "/predict/echo%00", "/predict/ech%6f",
    "/predict//echo", "/predict/./echo", "/predict/x/../echo", "/predict/echo/", "//predict/echo", "/C:/x",
    "/proc/self/environ", "/predict/ECHO", "/predict/%c0%ae%c0%ae/x", "/v2/models/echo/versions/01/infer",
    "/v2/models/echo/versions/2/infer", "http://127.0.0.1/predict/echo",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_14_paths_that_are_not_there(scene: Scene, path: str) -> None:
    with scene.client() as client:
        assert client.ask(post(path)).status == 404


def test_14_raw_nul_and_overlong_bytes(scene: Scene) -> None:
    refused(scene, b"GET /a\0b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400)
    refused(scene, b"GET /\xc0\xae HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400)


def test_16_what_is_beyond_a_scope_looks_as_if_it_were_not_there(scene: Scene) -> None:
    with scene.client() as client:
        there, absent = (client.ask(post(f"/predict/{name}", key=SCOPED)) for name in ("slow", "nobody"))
        assert (there.status, there.body) == (absent.status, absent.body) == (403, there.body)
        assert client.ask(post("/predict/echo", key=SCOPED)).status == 200


def test_23_header_injection(scene: Scene) -> None:
    with scene.client() as client:
        reply = client.ask(post("/predict/echo", b"1", "X-Request-Id: a%0d%0aX:b"))
        assert (reply.headers["x-request-id"], "x" in reply.headers) == ("a%0d%0aX:b", False)
        assert client.ask(post("/predict/echo", b"1", "X-Request-Id: a b")).status == 400
        assert client.ask(post("/predict/echo", b"1", "X-Request-Id: " + "a" * 129)).status == 400
        assert client.ask(post("/predict/echo", b"1", "X-Request-Id: \x80")).status == 400
        assert client.ask(post("/predict/echo", b"1", "X-Request-Id: r-1")).headers["x-request-id"] == "r-1"


def test_26_one_key_over_its_rate(scene: Scene) -> None:
    with scene.client() as client, scene.client() as other:
        statuses = []
        for _ in range(20):
            reply = client.ask(post("/predict/echo", key=SLOWED))
            statuses.append(reply.status)
            assert other.ask(post("/predict/echo")).status == 200
        assert statuses == [200] * 5 + [429] * 15
        assert int(reply.headers["retry-after"]) >= 1
        scene.configure(scene.gateway)  # a new configuration gives nothing back
        wait_for(lambda: scene.stats()[0].config_position == scene.position)
        assert client.ask(post("/predict/echo", key=SLOWED)).status == 429


def test_26_guessing_keys(scene: Scene) -> None:
    with scene.client() as client:
        statuses = [client.ask(post("/predict/echo", key=f"guess-{n}")).status for n in range(30)]
        assert statuses[-1] == 429
        assert client.ask(post("/predict/echo")).status == 200  # the address may be shared


def test_27_errors_tell_nothing(scene: Scene) -> None:
    with scene.client() as client:
        reply = client.ask(post("/predict/fails"))
        assert reply.status == 500
        assert not re.search(rb"File|/srv|line|10\.0\.0\.7|Traceback", reply.body)
        assert not {"server", "date", "x-powered-by"} & set(reply.headers)


def test_55_clients_that_leave_a_stream(scene: Scene) -> None:
    def ongoing() -> int:
        return sum(one.ongoing for one in scene.stats()[0].models if one.service == "endless")

    for _ in range(5):
        clients = [scene.client() for _ in range(40)]
        for client in clients:
            client.send(post("/predict/endless"))
        for client in clients:
            assert client.socket.recv(16) == b"HTTP/1.1 200 OK\r"
            client.socket.close()
    wait_for(lambda: ongoing() == 0)
    with scene.client() as client:  # one that stays and reads nothing is cut off too
        client.send(post("/predict/slow"))
    wait_for(lambda: sum(one.ongoing for one in scene.stats()[0].models) == 0)


@pytest.mark.parametrize("cap", ["connections_max", "connections_per_address_max"])
def test_09_over_a_cap_the_oldest_idle_makes_room_and_the_busy_stay(tmp_path: Path, cap: str) -> None:
    gateway = Gateway(port=0, connections_max=4 if cap == "connections_max" else 100)
    if cap != "connections_max":
        gateway = Gateway(port=0, connections_per_address_max=4)
    scene = Scene(tmp_path / "home", gateway, sweep_s=0.05)
    try:
        with scene.client() as busy, contextlib.ExitStack() as stack:
            busy.send(post("/predict/slower", b"7"))
            idle = []
            for _ in range(3):
                idle.append(stack.enter_context(scene.client()))
                assert idle[-1].ask(post("/predict/echo")).status == 200
                time.sleep(0.1)  # a sweep: the coarse clock tells them apart
            with scene.client() as newcomer:
                assert newcomer.ask(post("/predict/echo")).status == 200
                assert idle[0].closed()
                assert idle[2].ask(post("/predict/echo")).status == 200
            assert busy.read().json == 7
            crowd = [stack.enter_context(scene.client()) for _ in range(2)]
            for one in (busy, *crowd, idle[2]):
                one.send(post("/predict/slower", b"8"))
            wait_for(lambda: sum(one.ongoing for one in scene.stats()[0].models) == 4)
            assert stack.enter_context(scene.client()).closed()  # nobody is idle: the newcomer goes
            assert [one.read().json for one in (busy, *crowd, idle[2])] == [8] * 4
            wait_for(lambda: scene.stats()[0].refused_connections >= 1)
    finally:
        scene.end()
