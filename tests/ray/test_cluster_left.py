"""Whatever becomes of the one who started a cluster, nothing of the cluster is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ray import network, processes
from tests.ray.asking import ask
from tests.ray.cluster import RayCluster, Shape
from tests.ray.conftest import RAY

pytestmark = pytest.mark.slow  # what Ray itself does: see docs/guides/ray.md

ROOT = Path(__file__).parents[2]
STARTER = """
import sys, signal
from pathlib import Path
from tests.ray.cluster import RayCluster, Shape

cluster = RayCluster(Path(sys.argv[1]), store=True)
print(cluster.folder, flush=True)
cluster.start(Shape(1))
print("up", flush=True)
signal.pause()
"""
WAIT_SECONDS_MAX = 60.0


def left(folder: Path) -> list[str]:
    """All of a cluster on this machine: its tag is in every name."""
    tag = folder.name.split("-")[1]
    found = [str(folder)] if folder.exists() else []
    for pid in processes.pids():
        words = processes.command(pid)
        named = tag in words or tag in processes.variable(pid, processes.MARK)
        if named or processes.holds(pid, f"{folder}/"):
            found.append(f"{pid} {words}")
    for shown in (["ip", "netns", "list"], ["ip", "-br", "link"]):
        with contextlib.suppress(FileNotFoundError):
            said = subprocess.run(shown, capture_output=True, text=True, check=False).stdout
            found += [line for line in said.splitlines() if tag in line]
    return found


def until(holds: Callable[[], bool], why: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(why())
        time.sleep(0.1)


@pytest.mark.parametrize(("sign", "up"), [(signal.SIGINT, True), (signal.SIGKILL, False)])
def test_nothing_is_left_of_a_starter_that_was_ended(sign: int, up: bool) -> None:
    """When it is up, and while it comes up; as at Ctrl-C, the whole group of the terminal gets the signal."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(RAY)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as starter:
        assert starter.stdout is not None
        folder = Path(starter.stdout.readline().strip())
        if up:
            assert starter.stdout.readline().strip() == "up"
        until(lambda: any("gcs_server" in found for found in left(folder)), lambda: left(folder))
        os.killpg(starter.pid, sign)
    until(lambda: not left(folder), lambda: left(folder))


def test_a_closed_cluster_leaves_nothing_and_may_be_closed_again() -> None:
    """On one address, as where no namespaces are permitted."""
    cluster = RayCluster(RAY, namespaces=False)
    with contextlib.closing(cluster):
        cluster.start(Shape(1), Shape(1, labels={"zone": "z2"}))
        assert len([node for node in ask(cluster, "nodes") if node["Alive"]]) == 2
        assert not cluster.can_cut
        with pytest.raises(AssertionError, match="only where namespaces"):
            cluster.cut(cluster.nodes[1])
        cluster.kill(cluster.nodes[1])
        assert cluster.nodes[1].pids() == []
        assert cluster.head.alive
        assert ask(cluster, "nodes")
    assert left(cluster.folder) == []
    cluster.close()


def test_a_subnet_is_taken_by_one_only() -> None:
    if not network.may_make_namespaces():
        pytest.skip("namespaces are not permitted")
    tags = ("ffffa0", "ffffa1")
    try:
        first, second = (network.Network(tag) for tag in tags)
        assert first.host != second.host
        assert network.net_users(first.host.rpartition(".")[0]) == 1
    finally:
        for tag in tags:
            network.remove(tag)
    assert network.net_users(first.host.rpartition(".")[0]) == 0
