"""Services and API keys over the control API, with a server, a gateway and a replica as processes."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.e2e.steer_process import SECONDS_MAX, Api, control_plane
from tests.e2e.test_api import document


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("services") / "home"
    with control_plane(home) as port:
        yield Api(home, port)


SERVICE = """
kind: service
name: twice
workdir: .
model: {callable: "double:double"}
resources: {cpus: 0.2, memory: 128MB}
"""


def _service(api: Api, name: str) -> Any:
    """The row of a service once it is settled."""
    after = 0
    for _ in range(60):
        _, status = api.ask("GET", f"/v1/status?after={after}&wait_ms=1000")
        after = status["position"]
        (row,) = [row for row in status["services"] if row["name"] == name]
        if row["settled"]:
            return row
    raise AssertionError(f"{name} does not settle: {row}")


def test_a_service_from_declaration_to_removal(api: Api, tmp_path: Path) -> None:
    (tmp_path / "double.py").write_text("def double(x):\n    return 2 * x\n")
    text = "kind: gateway\nport: 0\n---" + SERVICE
    status, answer = api.ask("POST", "/v1/up", document(text, str(tmp_path)))
    assert status == 200, answer
    assert answer["gateway"] == "gateway"
    row = _service(api, "twice")
    assert (row["phase"], row["ready"], row["revision"]) == ("serving", 1, 1), row
    url = urlsplit(row["url"])
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=SECONDS_MAX)
    connection.request("POST", url.path, b"21", {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())) == (200, 42)
    connection.close()
    _, whole = api.ask("GET", "/v1/services/twice")
    (replica,) = whole["replicas"]
    assert (replica["name"], replica["state"]) == ("twice.1", "ready")
    _, log = api.ask("GET", "/v1/logs/twice")
    assert log["run"] == replica["run"]
    assert api.ask("GET", "/v1/logs/gateway")[0] == 200
    status, answer = api.ask("POST", "/v1/workloads/twice.1/stop")
    assert (status, answer["error"]["code"]) == (409, "is-replica")
    _, listed = api.ask("GET", "/v1/status")
    assert (listed["workloads"], listed["owned"]) == ([], 2)
    _, listed = api.ask("GET", "/v1/status?all=true")
    assert {"twice.1", "steersman.gateway"} <= {row["name"] for row in listed["workloads"]}
    _, explained = api.ask("GET", "/v1/explain/twice")
    assert any("answers requests" in moment["words"] for moment in explained["moments"])
    assert api.ask("POST", "/v1/down", {"names": ["twice"]})[0] == 200
    after = 0
    for _ in range(60):
        _, found = api.ask("GET", f"/v1/status?all=true&after={after}&wait_ms=1000")
        if not found["services"] and not found["owned"]:
            return
        after = found["position"]
    raise AssertionError("the service is not gone")


def test_keys_are_shown_once(api: Api) -> None:
    status, made = api.ask("POST", "/v1/keys", {"name": "app", "rate_milli": 2_000})
    assert status == 200, made
    assert made["secret"].startswith("sk-st-")
    _, listed = api.ask("GET", "/v1/keys")
    assert [key["name"] for key in listed["keys"]] == ["app"]
    assert made["secret"] not in str(listed)
    assert api.ask("POST", "/v1/keys", {"name": "app"})[1]["error"]["code"] == "key-exists"
    assert api.ask("POST", "/v1/keys/app/revoke")[0] == 200
    assert api.ask("POST", "/v1/keys/app/revoke")[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "../x"},
        {"name": "a", "burst": 0},
        {"name": "a", "rate_milli": -1},
        {"name": "a", "priority_max": 3},
        {"name": "a", "digest": "00"},
        {"name": "a", "expires_in_ms": 10**18},
    ],
)
def test_bodies_that_are_no_key(api: Api, body: dict[str, Any]) -> None:
    before = api.position()
    assert api.ask("POST", "/v1/keys", body)[0] == 400
    assert api.position() == before
