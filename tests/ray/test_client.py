"""From a machine that is not of the cluster, as a laptop: by Ray Client (`ray://`)."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.steer_process import end_work, steer, steer_json
from tests.ray.cluster import RayCluster
from tests.ray.steering import fleet, until

JOB = """
name: both
num_nodes: 2
resources: {infra: ray, cpus: 1, memory: 128MB}
artifacts: {word: word.txt}
run: |
  for i in $(seq 12); do echo beat $STEERSMAN_NODE_RANK $i; sleep 0.5; done
  echo done-$STEERSMAN_NODE_RANK > $STEERSMAN_OUTPUT_DIR/word.txt
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    try:
        yield home
    finally:
        end_work(home)


def declared(home: Path, cluster: RayCluster, token: str) -> None:
    steer(home, "secret", "set", "ray-token", stdin=token.encode())
    elsewhere: dict[str, object] = {
        "address": f"'{cluster.client_address}'",
        "python": cluster.ray / "python",
    }
    done = steer(home, "up", "-", stdin=fleet(cluster, **elsewhere).encode())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gang_runs_and_outlives_the_control_plane(cluster: RayCluster, home: Path) -> None:
    declared(home, cluster, cluster.token)
    until(home, lambda status: status["clusters"][0]["nodes"] >= 2)
    done = steer(home, "up", "-", "--no-wait", stdin=JOB.encode())
    assert done.returncode == 0, done.stderr
    until(home, lambda status: status["workloads"][0]["run_state"] == "running")
    os.kill(json.loads((home / "server.json").read_text())["pid"], signal.SIGKILL)
    assert steer(home, "server", "--background").returncode == 0
    status = until(home, lambda status: status["workloads"][0]["phase"] in ("succeeded", "failed"))
    both = status["workloads"][0]
    assert (both["phase"], both["runs"]) == ("succeeded", 1), steer(home, "explain", "both").stdout
    for rank in ("0", "1"):
        lines = steer(home, "logs", "both", "--rank", rank).stdout.split("\n")
        assert lines[:-1] == [f"beat {rank} {n}" for n in range(1, 13)]
    (word,) = steer_json(home, "status", "both")["artifacts"]
    assert Path(word["path"]).read_text() == "done-0\n"


def test_a_wrong_token_is_told(cluster: RayCluster, home: Path) -> None:
    declared(home, cluster, "not-the-token")
    found = until(home, lambda status: status["clusters"][0]["problem"])["clusters"][0]
    assert "refuses the token" in found["problem"]
    assert "steer secret set" in found["hint"]
