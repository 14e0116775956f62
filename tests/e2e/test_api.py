"""The control API against those who should not get in, and against what should not get through.

A real server in a process of its own; requests are written by hand where a client would be too polite.
"""

import asyncio
import http.client
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.steer_process import SECONDS_MAX, Api, control_plane

from steersman.app.clock import SystemClock
from steersman.app.control import Control
from steersman.app.http.api import make_litestar
from steersman.app.settings import Settings
from steersman.app.wire import BODY_BYTES_MAX
from steersman.engine.engine import Engine
from steersman.engine.parts import Parts
from steersman.guard.secrets import Secrets
from steersman.journal.memory import MemoryJournal
from steersman.sim.gateways import SimGateways

OPEN = ("GET", "/livez")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("api") / "home"
    with control_plane(home) as port:
        yield Api(home, port)


@pytest.fixture
def unchanged(api: Api) -> Iterator[Api]:
    """The API; the test must leave nothing declared or asked for."""
    before = api.position()
    yield api
    assert api.position() == before


def document(text: str, folder: str = "/") -> dict[str, Any]:
    return {"documents": [{"source": "a.yaml", "text": text, "folder": folder}]}


# Who gets in.


def _routes(tmp_path: Path) -> list[tuple[str, str]]:
    """Every route of the application with every method, from the application itself."""
    parts = Parts(
        journal=MemoryJournal(),
        drivers={},
        sensors=(),
        clock=SystemClock(),
        build="test",
        boot_id="test",
        open_secret=str,
        artifact_path=Path,
        new_home_id=lambda: "test",
        gateways=SimGateways(),
    )

    async def make() -> list[tuple[str, str]]:
        control = Control(Engine(parts), parts, Secrets(tmp_path), Settings(home=tmp_path))
        app = make_litestar(control)
        return sorted((method, route.path) for route in app.routes for method in _methods(route))

    return asyncio.run(make())


def _methods(route: Any) -> set[str]:
    return {str(getattr(method, "value", method)) for method in route.methods}


def test_every_route_asks_for_the_token(unchanged: Api, tmp_path: Path) -> None:
    routes = _routes(tmp_path)
    paths = {path for _, path in routes}
    assert {"/livez", "/metrics", "/v1/up", "/v1/down", "/v1/status", "/schema/openapi.json"} <= paths
    assert {"/v1/services/{name:str}", "/v1/keys", "/v1/keys/{name:str}/revoke"} <= paths
    assert len(paths) >= 16
    for method, path in routes:
        target = path.replace("{name:str}", "x").replace("{path:path}", "x")
        for headers in (
            {},
            {"Authorization": "Bearer st_" + "0" * 64},
            {"Authorization": f"Bearer {unchanged.token}x"},
            {"Authorization": f"Bearer {unchanged.token[:-1]}"},
            {"Authorization": f"Basic {unchanged.token}"},
            {"Authorization": unchanged.token},
            {"Cookie": f"token={unchanged.token}"},
        ):
            status, answer = unchanged.ask(method, target, headers=headers)
            if (method, path) == OPEN:
                assert (status, answer) == (200, {"alive": True})
            else:
                assert status == 401, (method, path, headers)


def test_what_is_not_a_route_asks_for_it_too(unchanged: Api) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"):
        for path in ("/", "/v1", "/v1/nothing", "/livez/", "/livez/..", "/schema", "/LIVEZ", "//livez"):
            status, _ = unchanged.ask(method, path, headers={})
            assert status == 401, (method, path)
    assert unchanged.ask("POST", "/livez", headers={})[0] == 401


def test_a_token_elsewhere_is_no_token(unchanged: Api) -> None:
    assert unchanged.ask("GET", f"/v1/status?token={unchanged.token}", headers={})[0] == 401
    twice = f"Authorization: Bearer {unchanged.token}\r\n" * 2
    request = f"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n{twice}\r\n".encode()
    assert unchanged.raw(request)[0] == 401


@pytest.mark.parametrize("token", [b"' OR 1=1--", b"\xff\xfe", b"x" * 10_000, b""])
def test_odd_tokens(unchanged: Api, token: bytes) -> None:
    request = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + b"\r\n\r\n"
    assert unchanged.raw(request)[0] == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil", "0.0.0.0", "localhost:80:80", ""]
)
def test_a_name_that_is_not_this_machine(unchanged: Api, host: str) -> None:
    headers = {"Authorization": f"Bearer {unchanged.token}", "Host": host}
    for path in ("/v1/status", "/livez", "/metrics"):
        assert unchanged.ask("GET", path, headers=headers)[0] in {400, 403}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8470", "[::1]:8470"])
def test_names_of_this_machine(unchanged: Api, host: str) -> None:
    headers = {"Authorization": f"Bearer {unchanged.token}", "Host": host}
    assert unchanged.ask("GET", "/v1/status", headers=headers)[0] == 200


def test_web_pages_are_kept_out(unchanged: Api) -> None:
    headers = {"Authorization": f"Bearer {unchanged.token}", "Origin": "http://evil.example"}
    for method, path in (("POST", "/v1/down"), ("GET", "/v1/status"), ("OPTIONS", "/v1/up")):
        status, answer = unchanged.ask(method, path, {"all": True}, headers)
        assert (status, answer["error"]["code"]) == (403, "cross-origin")
    request = f"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {unchanged.token}\r\n\r\n"
    status, answer = unchanged.raw(request.encode())
    assert status == 200
    assert b"access-control" not in answer.lower()


def test_a_request_without_a_host(unchanged: Api) -> None:
    request = f"GET /v1/status HTTP/1.1\r\nAuthorization: Bearer {unchanged.token}\r\n\r\n"
    assert unchanged.raw(request.encode())[0] in {400, 403}
    two = request.replace("\r\n", "\r\nHost: localhost\r\nHost: evil\r\n", 1)
    assert unchanged.raw(two.encode())[0] in {400, 403}


def test_files_of_the_home_are_private(api: Api) -> None:
    assert stat.S_IMODE(api.home.stat().st_mode) == 0o700
    for name in ("token", "server.json"):
        assert stat.S_IMODE((api.home / name).stat().st_mode) == 0o600


def test_only_loopback_listens(api: Api) -> None:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    mine = [
        line.split()[1]
        for line in lines
        if line.split()[1].endswith(f":{api.port:04X}") and line.split()[3] == "0A"
    ]
    assert mine == [f"0100007F:{api.port:04X}"]


# What gets through.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"documents": 3}',
        b'{"documents": []}',
        b'{"documents": [{}]}',
        b'{"documents": [{"source": 1, "text": "", "folder": "/"}]}',
        b'{"documents": [{"source": "a", "text": "", "folder": "/", "more": 1}]}',
        b'{"documents": [{"source": "a", "text": null, "folder": "/"}], "x": 1}',
        b'{"documents": NaN}',
        b"[" * 100_000,
        b'{"documents": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=range(14),
)
@pytest.mark.parametrize("path", ["/v1/up", "/v1/plan"])
def test_bodies_that_are_no_submission(unchanged: Api, path: str, body: bytes) -> None:
    status, answer = unchanged.ask("POST", path, body)
    assert status == 400, answer
    assert answer["error"]["code"] == "bad-request"
    assert answer["error"]["message"]


def test_a_wrong_type_is_named_by_its_path(unchanged: Api) -> None:
    body = {
        "documents": [{"source": "a", "text": "x", "folder": "/"}, {"source": "b", "text": 3, "folder": "/"}]
    }
    _, answer = unchanged.ask("POST", "/v1/up", body)
    assert "documents[1].text" in answer["error"]["message"]
    assert "`str`" in answer["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"names": [], "all": False},
        {"names": ["a"], "all": True},
        {"names": ["../x"]},
        {"names": [3]},
        {"name": "a"},
    ],
)
def test_bodies_that_are_no_removal(unchanged: Api, body: dict[str, Any]) -> None:
    assert unchanged.ask("POST", "/v1/down", body)[0] == 400


def test_bodies_that_are_too_large(unchanged: Api) -> None:
    head = f"POST /v1/up HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {unchanged.token}\r\n"
    announced = f"{head}Content-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode() + b"x" * 1000
    assert unchanged.raw(announced)[0] == 413
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    hidden = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", unchanged.port), timeout=SECONDS_MAX) as connection:
        try:
            connection.sendall(hidden)
            for _ in range(BODY_BYTES_MAX // 65_536 + 1):
                connection.sendall(chunk)
        except ConnectionError:
            return  # it was cut off, which is as good
        assert connection.recv(65_536).split(b" ", 2)[1] == b"413"


def test_a_large_body_without_a_token_is_not_read(unchanged: Api) -> None:
    request = b"POST /v1/up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    status, answer = unchanged.raw(request)
    assert status == 401
    assert b"connection: close" in answer.lower()


def test_headers_that_are_too_large(unchanged: Api) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000
    try:
        assert unchanged.raw(request)[0] in {0, 400, 431}
    except ConnectionError:
        return


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2ftoken",
        "%2e%2e%2f%2e%2e%2ftoken",
        "x%00",
        "x%0a",
        "X",
        "a_b",
        "-a",
        "a" * 64,
        "a" * 5000,
        "%ff",
        "a%2fb",
    ],
)
@pytest.mark.parametrize("route", ["/v1/logs/{}", "/v1/workloads/{}", "/v1/services/{}", "/v1/explain/{}"])
def test_names_that_are_no_names(unchanged: Api, route: str, name: str) -> None:
    status, answer = unchanged.ask("GET", route.format(name))
    assert status in {400, 404, 405}, answer
    assert unchanged.token not in str(answer)


@pytest.mark.parametrize(
    "query",
    [
        "rank=-1",
        "rank=x",
        "rank=999999999",
        "run=../../secrets",
        "run=a.1/../../..",
        "run=b.1",
        "offset=../x",
        "offset=1",
        "offset=" + "9" * 100,
    ],
)
def test_queries_of_logs(unchanged: Api, query: str) -> None:
    assert unchanged.ask("GET", f"/v1/logs/a?{query}")[0] in {400, 404}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "after=-1", "type=nonsense", "after=" + "9" * 40],
)
def test_queries_of_events(unchanged: Api, query: str) -> None:
    status, answer = unchanged.ask("GET", f"/v1/events?{query}")
    assert status == 400, answer


@pytest.mark.parametrize("query", ["wait_ms=-1", "wait_ms=10001", "after=x"])
def test_queries_of_status(unchanged: Api, query: str) -> None:
    assert unchanged.ask("GET", f"/v1/status?{query}")[0] == 400


def test_unknown_routes_and_methods(unchanged: Api) -> None:
    for path in ("/", "/v1", "/v1/nothing", "/v2/status", "/v1/workloads"):
        status, answer = unchanged.ask("GET", path)
        assert (status, answer["error"]["code"]) == (404, "unknown-route"), path
    for method, path in (
        ("DELETE", "/v1/status"),
        ("GET", "/v1/up"),
        ("PUT", "/v1/down"),
        ("POST", "/livez"),
    ):
        status, answer = unchanged.ask(method, path)
        assert (status, answer["error"]["code"]) == (405, "unknown-method"), (method, path)


def test_unknown_workloads(unchanged: Api) -> None:
    for method, path, body in (
        ("GET", "/v1/workloads/nobody", None),
        ("GET", "/v1/services/nobody", None),
        ("GET", "/v1/explain/nobody", None),
        ("GET", "/v1/logs/nobody", None),
        ("POST", "/v1/workloads/nobody/stop", None),
        ("POST", "/v1/down", {"names": ["nobody"]}),
    ):
        status, answer = unchanged.ask(method, path, body)
        assert (status, answer["error"]["code"]) == (404, "unknown-workload"), path
        assert answer["error"]["hint"]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("name: a\nrunn: echo\n", "spec-invalid", "a.yaml:2: runn"),
        ("name: a\nrun: echo\nworkdir: /nowhere/at/all\n", "spec-invalid", "/nowhere/at/all"),
        ("name: a\nrun: echo\nsecrets: [NOT_SET]\n", "unknown-secret", "NOT_SET"),
        ("name: a\nrun: echo\ninputs: {m: nobody/m}\n", "spec-invalid", "nobody"),
        ("name: a\nkind: service\nrun: echo\n", "not-yet", "service"),
        ("a: &a [x]\nb: [*a, *a]\n", "spec-invalid", "a.yaml"),
        ("name: ok\nrun: echo\n---\nname: bad\nrunn: x\n", "spec-invalid", "a.yaml:5"),
    ],
)
def test_declarations_that_are_wrong(unchanged: Api, text: str, code: str, words: str) -> None:
    for path in ("/v1/up", "/v1/plan"):
        status, answer = unchanged.ask("POST", path, document(text))
        assert (status, answer["error"]["code"]) == (422, code), answer
        assert words in answer["error"]["message"]


# What it is for.

JOB = """
name: job
run: |
  echo hello from $STEERSMAN_RUN_ID
  echo result > $STEERSMAN_OUTPUT_DIR/out
artifacts: {out: out}
"""


def test_a_plan_changes_nothing(unchanged: Api) -> None:
    status, answer = unchanged.ask("POST", "/v1/plan", document("name: planned\nrun: echo\n"))
    assert status == 200
    assert answer["changed"] is True
    assert [each["kind"] for each in answer["decisions"]] == ["admit", "start"]
    assert all(each["words"] for each in answer["decisions"])


def test_equal_submissions_at_one_moment_are_one(api: Api) -> None:
    body = document("name: twin\nrun: echo once\n")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: api.ask("POST", "/v1/up", body), range(6)))
    assert [status for status, _ in answers] == [200] * 6
    kinds = sorted(answer["workloads"][0]["kind"] for _, answer in answers)
    assert kinds == ["created", *["unchanged"] * 5]
    _, events = api.ask("GET", "/v1/events?type=workload-declared&subject=twin")
    assert len(events["events"]) == 1


def _settled(api: Api, name: str) -> Any:
    """The row of a workload once it is settled."""
    after = 0
    for _ in range(60):
        _, status = api.ask("GET", f"/v1/status?after={after}&wait_ms=1000")
        after = status["position"]
        (row,) = [row for row in status["workloads"] if row["name"] == name]
        if row["settled"]:
            return row
    raise AssertionError(f"{name} does not settle: {row}")


def test_a_job_from_declaration_to_removal(api: Api) -> None:
    status, answer = api.ask("POST", "/v1/up", document(JOB))
    assert status == 200, answer
    row = _settled(api, "job")
    assert (row["phase"], row["code"], row["runs"]) == ("succeeded", "succeeded", 1)
    _, log = api.ask("GET", "/v1/logs/job")
    assert log["text"] == f"hello from {row['run']}\n"
    assert (log["end"], log["live"]) == (True, False)
    _, rest = api.ask("GET", f"/v1/logs/job?run={row['run']}&offset={log['next_offset']}")
    assert (rest["text"], rest["end"]) == ("", True)
    _, whole = api.ask("GET", "/v1/workloads/job")
    (artifact,) = whole["artifacts"]
    assert Path(artifact["path"]).read_text() == "result\n"
    assert whole["last_run"]["ranks"][0]["exit_code"] == 0
    _, explained = api.ask("GET", "/v1/explain/job")
    assert any("exited with 0" in moment["words"] for moment in explained["moments"])
    _, events = api.ask("GET", "/v1/events?subject=job&limit=2")
    assert len(events["events"]) == 2
    _, more = api.ask("GET", f"/v1/events?subject=job&after={events['next_after']}")
    assert all("job" in event["subjects"] for event in (*events["events"], *more["events"]))
    assert {"rank-started", "rank-exited"} <= {event["type"] for event in more["events"]}
    assert api.ask("POST", "/v1/down", {"names": ["job"]})[0] == 200
    for _ in range(60):
        _, found = api.ask("GET", "/v1/status?after=0&wait_ms=500")
        if all(row["name"] != "job" for row in found["workloads"]):
            break
    else:
        raise AssertionError("job is not gone")
    assert api.ask("GET", "/v1/logs/job")[1]["text"].startswith("hello")


def test_metrics_are_prometheus_text(api: Api) -> None:
    _settled_or_new(api)
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=SECONDS_MAX)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {api.token}"})
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    connection.close()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["steersman_workloads", "succeeded"] >= 1
    assert samples["steersman_runs", "running"] >= 0
    assert samples["steersman_decisions_total", "placed"] >= 1
    assert samples["steersman_cycles_total",] >= 1
    assert samples["steersman_journal_position",] > 1
    assert samples["steersman_healthy",] == 1
    assert samples["process_resident_memory_bytes",] > 0
    assert all(family.documentation for family in families.values())


def _settled_or_new(api: Api) -> None:
    api.ask("POST", "/v1/up", document("name: counted\nrun: 'true'\n"))
    _settled(api, "counted")


def test_the_description_needs_the_token_and_names_every_route(api: Api, tmp_path: Path) -> None:
    status, described = api.ask("GET", "/schema/openapi.json")
    assert status == 200
    for method, path in _routes(tmp_path):
        if path.startswith(("/v1", "/metrics", "/livez")) and method in {"GET", "POST"}:
            assert method.lower() in described["paths"][path.replace(":str", "")]


def test_the_doctor(api: Api) -> None:
    status, found = api.ask("GET", "/v1/doctor")
    assert status == 200
    names = {check["name"]: check["state"] for check in found["checks"]}
    assert names["server"] == names["sqlite"] == names["python"] == names["home"] == "ok"
