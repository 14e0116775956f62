"""What a user gets wrong about a cluster and what is said of it: what, why and a way out. Nothing is left."""

from pathlib import Path

import pytest
from tests.e2e.steer_process import end_work, steer
from tests.ray.asking import ask
from tests.ray.cluster import RayCluster
from tests.ray.steering import fleet, until

JOB = "name: hello\nresources: {infra: ray, cpus: 0.5, memory: 64MB}\nrun: echo hello\n"
OTHER_VERSION = """
import runpy, sys
from ray._private import utils
utils.compute_version_info = lambda: ("1.2.3", "3.11.0")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def other_version(cluster: RayCluster, folder: Path) -> Path:
    """The cluster's interpreter, but that it says that it is of another version."""
    program, script = folder / "other.py", folder / "other"
    program.write_text(OTHER_VERSION)
    script.write_text(f'#!/bin/sh\nexec {cluster.python()} {program} "$@"\n')
    script.chmod(0o755)
    return script


def other_port(cluster: RayCluster, _folder: Path) -> str:
    return f"'ray://{cluster.address}'"


WRONG: dict[str, tuple[dict[str, object], str, str, str]] = {
    "a wrong token": ({}, "not-the-token", "refuses the token", "steer secret set"),
    "no token": ({"token": None}, "", "asks for a token", "steer secret set"),
    "nobody there": ({"address": "'127.0.0.1:1'"}, "", "cannot be reached", "is it up"),
    "no name": ({"address": "'nowhere.invalid:6379'"}, "", "cannot be reached", "is it up"),
    "no interpreter": ({"python": "/nowhere/python"}, "", "cannot be started", "extra `ray`"),
    "no Ray": ({"python": "/usr/bin/python3"}, "", "No module named", "extra `ray`"),
    "the other port": ({"address": other_port}, "", "no server of Ray Client", "write `HOST:6379`"),
    "another version": ({"python": other_version}, "", "of another version", "name an interpreter"),
}


QUICK = ("a wrong token", "another version")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WRONG]
)
def test_a_cluster_that_cannot_be_joined_says_why(cluster: RayCluster, tmp_path: Path, name: str) -> None:
    changes, token, why, hint = WRONG[name]
    home = tmp_path / "home"
    known = {key: value(cluster, tmp_path) if callable(value) else value for key, value in changes.items()}
    try:
        steer(home, "secret", "set", "ray-token", stdin=(token or cluster.token).encode())
        done = steer(home, "up", "-", stdin=fleet(cluster, **known).encode())
        assert done.returncode == 0, done.stderr
        found = until(home, lambda status: status["clusters"][0]["problem"])["clusters"][0]
        assert why in found["problem"]
        assert hint in found["hint"]
        assert "Traceback" not in str(found)
        steer(home, "up", "-", "--no-wait", stdin=JOB.encode())
        (row,) = until(home, lambda status: status["workloads"][0]["code"])["workloads"]
        assert not row["settled"] or row["phase"] == "pending", row
        said = steer(home, "explain", "hello").stdout
        assert "gpu" in said
    finally:
        end_work(home)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "wrong",
    [
        "{conda: no-such-environment}",
        pytest.param("{pip: [--no-index, no-such-package]}", marks=pytest.mark.slow),
    ],
)
def test_an_environment_that_cannot_be_built_is_told_and_nothing_is_left(
    cluster: RayCluster, tmp_path: Path, wrong: str
) -> None:
    home = tmp_path / "home"
    try:
        steer(home, "secret", "set", "ray-token", stdin=cluster.token.encode())
        steer(home, "up", "-", stdin=fleet(cluster, runtime_env=wrong).encode())
        until(home, lambda status: status["clusters"][0]["nodes"])
        steer(home, "up", "-", "--no-wait", stdin=JOB.encode())
        (row,) = until(home, lambda status: status["workloads"][0]["settled"])["workloads"]
        said = steer(home, "explain", "hello").stdout
        assert "could not be built" in said, (row, said)
        assert "runtime_env" in said
        assert not [name for name in ask(cluster, "left")["actors"] if ".hello." in name]
    finally:
        end_work(home)
