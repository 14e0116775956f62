"""The product on a real cluster: the same files, a node that dies, a control plane that dies."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.ray.judge import calm_weights
from tests.e2e.steer_process import end_work, steer, steer_json
from tests.ray.cluster import RayCluster
from tests.ray.conftest import RAY
from tests.ray.steering import fleet, until

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-train"
STEPS = 2_400


@pytest.fixture
def home(tmp_path: Path, cluster: RayCluster) -> Iterator[Path]:
    """A home whose fleet is this machine and the cluster."""
    home = tmp_path / "home"
    try:
        done = steer(home, "secret", "set", "ray-token", stdin=cluster.token.encode())
        assert done.returncode == 0, done.stderr
        done = steer(home, "up", "-", stdin=fleet(cluster).encode())
        assert done.returncode == 0, done.stderr
        until(home, lambda status: status["clusters"][0]["nodes"] >= 2)
        yield home
    finally:
        end_work(home)


def row(status: Any, name: str) -> Any:
    return next(each for each in status["workloads"] if each["name"] == name)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a training that nobody disturbed."""
    return calm_weights(RAY, tmp_path_factory.mktemp("calm"), STEPS)


def train_on_ray() -> bytes:
    """The example's file, but for `infra`."""
    text = (EXAMPLE / "train.yaml").read_text()
    assert text.count("resources:\n") == 1
    text = text.replace("resources:\n", "resources:\n  infra: ray\n")
    return text.replace("workdir: .", f"workdir: {EXAMPLE}").replace('"12000"', f'"{STEPS}"').encode()


@pytest.mark.timeout(300)
def test_a_training_survives_its_node_with_the_same_weights(
    home: Path, cluster: RayCluster, calm: str
) -> None:
    done = steer(home, "up", "-", "--no-wait", stdin=train_on_ray())
    assert done.returncode == 0, done.stderr
    status = until(home, lambda status: (row(status, "digits")["saved_step"] or 0) > 0)
    (name,) = row(status, "digits")["nodes"]
    victim = next(node for node in cluster.nodes if node.address.replace(".", "-") in name)
    assert victim is not cluster.head
    cluster.kill(victim)
    try:
        status = until(home, lambda status: row(status, "digits")["phase"] in ("succeeded", "failed"))
    finally:
        cluster.start_again(victim)
    digits = row(status, "digits")
    assert (digits["phase"], digits["runs"]) == ("succeeded", 2), steer(home, "explain", "digits").stdout
    artifacts = {item["name"]: item for item in steer_json(home, "status", "digits")["artifacts"]}
    metrics = json.loads(Path(artifacts["metrics"]["path"]).read_text())
    assert metrics["weights_sha256"] == calm
    said = steer(home, "explain", "digits").stdout
    assert "left the cluster" in said
    assert name in said
    assert "held-out accuracy" in steer(home, "logs", "digits").stdout


@pytest.mark.timeout(300)
def test_a_control_plane_that_dies_finds_everything_again(home: Path) -> None:
    text = (
        "name: beats\nnum_nodes: 2\nresources: {infra: ray/gpu, cpus: 1, memory: 128MB}\n"
        "run: for i in $(seq 12); do echo beat $STEERSMAN_NODE_RANK $i; sleep 0.5; done\n"
    )
    done = steer(home, "up", "-", "--no-wait", stdin=text.encode())
    assert done.returncode == 0, done.stderr
    until(home, lambda status: row(status, "beats")["run_state"] == "running")
    pid = json.loads((home / "server.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    assert steer(home, "server", "--background").returncode == 0
    status = until(home, lambda status: row(status, "beats")["phase"] in ("succeeded", "failed"))
    beats = row(status, "beats")
    assert (beats["phase"], beats["runs"]) == ("succeeded", 1), steer(home, "explain", "beats").stdout
    for rank in ("0", "1"):
        lines = steer(home, "logs", "beats", "--rank", rank).stdout.split("\n")
        assert [line for line in lines if line.startswith("beat")] == [
            f"beat {rank} {n}" for n in range(1, 13)
        ]


@pytest.mark.timeout(300)
def test_what_nobody_has_is_refused_with_a_way_out(home: Path) -> None:
    text = "name: huge\nresources: {infra: ray, cpus: 64, memory: 1GB}\nrun: 'true'\n"
    steer(home, "up", "-", "--no-wait", stdin=text.encode())
    until(home, lambda status: row(status, "huge")["code"] != "")
    said = steer_json(home, "explain", "huge")
    assert said["code"] == "refused-too-large"
    assert "cpus" in said["fix"]
    text = "name: nowhere\nresources: {infra: ray/other, cpus: 1, memory: 1GB}\nrun: 'true'\n"
    steer(home, "up", "-", "--no-wait", stdin=text.encode())
    until(home, lambda status: row(status, "nowhere")["code"] != "")
    said = steer_json(home, "explain", "nowhere")
    assert said["code"] == "no-infra"
    assert "ray/other" in said["why"]
