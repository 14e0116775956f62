"""What Steersman relies on of a Ray cluster that is whole: what its nodes say, and whom it lets in."""

import subprocess

import pytest
from tests.ray.asking import answer, ask, begun
from tests.ray.cluster import RayCluster

pytestmark = pytest.mark.slow  # what Ray itself does: see docs/guides/ray.md

CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"
KNOCK = f"""
import sys, grpc
call = grpc.insecure_channel(sys.argv[1]).unary_unary({CALL!r})
try:
    call(b"", timeout=10, metadata=[("authorization", f"Bearer {{sys.argv[2]}}")] if sys.argv[2] else [])
    print("let in")
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""
GET = """
import sys, urllib.error, urllib.request

headers = {"Authorization": f"Bearer {sys.argv[2]}"} if sys.argv[2] else {}
try:
    print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=headers), timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
REFUSED = "UNAUTHENTICATED InvalidAuthToken: Authentication token is missing or incorrect"


def told(cluster: RayCluster, program: str, *words: str) -> str:
    """What a program says that runs where the head is."""
    command = [*cluster.run_in_head, str(cluster.ray / "python"), "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_every_node_says_what_it_has(cluster: RayCluster) -> None:
    known = ask(cluster, "nodes")
    assert [node["Alive"] for node in known] == [True, True, True]
    if cluster.can_cut:
        assert {node["NodeManagerAddress"] for node in known} == {node.address for node in cluster.nodes}
    by_cpus = sorted((node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in known)
    assert by_cpus == [(2, 0), (4, 0), (4, 2)]
    (gpus,) = (node for node in known if "GPU" in node["Resources"])
    assert gpus["Resources"]["accelerator_type:T4"] == 1
    assert gpus["Labels"]["zone"] == "z2"
    assert gpus["Labels"]["ray.io/node-id"] == gpus["NodeID"]


def test_the_token_is_for_its_owner_only(cluster: RayCluster) -> None:
    assert cluster.token_file.stat().st_mode & 0o777 == 0o600
    assert cluster.token_file.read_text() == cluster.token


@pytest.mark.parametrize("token", ["", "not-the-token-of-this-cluster"])
def test_the_head_says_at_once_that_a_token_is_wrong(cluster: RayCluster, token: str) -> None:
    assert told(cluster, KNOCK, cluster.address, token) == REFUSED
    assert told(cluster, KNOCK, cluster.address, cluster.token) == "let in"


def test_ray_itself_does_not_tell_a_wrong_token_from_a_head_that_is_away(cluster: RayCluster) -> None:
    """So whoever wants to know asks the head before; Ray gives up after 20 s, and only writes the reason."""
    wrong = begun(cluster, "nodes", RAY_AUTH_TOKEN="not-the-token-of-this-cluster")
    without = begun(cluster, "nodes", RAY_AUTH_TOKEN="", RAY_AUTH_MODE="disabled")
    for said, beside in (answer(wrong), answer(without)):
        words = f"Failed to connect to Ray cluster at {cluster.address}"
        assert said == {"refused": "ConnectionError", "words": words}
        assert "InvalidAuthToken: Authentication token is missing or incorrect" in beside


def test_another_version_is_refused(cluster: RayCluster) -> None:
    said = ask(cluster, "as-version", "2.59.0")
    assert said["refused"] == "RuntimeError"
    assert said["words"].startswith("Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n")
    assert "was started with:\n    Ray: 2.59.0\n" in said["words"]


def test_the_dashboard_wants_the_token_too(cluster: RayCluster) -> None:
    jobs = f"{cluster.dashboard}/api/jobs/"
    assert cluster.dashboard.startswith("http://127.0.0.1:")
    assert told(cluster, GET, jobs, "") == "401"
    assert told(cluster, GET, jobs, "not-the-token-of-this-cluster") == "403"
    assert told(cluster, GET, jobs, cluster.token) == "200"
