"""What a Ray cluster does when parts of it fail, and that its faults are what they say; docs/guides/ray.md
tells the same with Ray's own time limits, which are shortened here."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from tests.ray import processes
from tests.ray.asking import answer, ask, begun, node_id
from tests.ray.cluster import Node, RayCluster, Shape
from tests.ray.conftest import RAY

pytestmark = pytest.mark.slow  # what Ray itself does: see docs/guides/ray.md


QUICK = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}
WAIT_SECONDS_MAX = 60.0


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("it never came")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def breakable() -> Iterator[RayCluster]:
    """A head that forgets nothing, and two nodes."""
    with contextlib.closing(RayCluster(RAY, store=True)) as made:
        if not made.can_cut:
            pytest.skip("nodes have addresses of their own only where namespaces are permitted, as to root")
        yield made.start(Shape(2), Shape(2), Shape(2), environ=QUICK)


def declared_dead(cluster: RayCluster, node: Node, fault: Callable[[Node], object]) -> None:
    """The fault is seen by the cluster."""
    identifier = node_id(cluster, node)
    fault(node)
    assert ask(cluster, "dead", identifier) is True


def test_a_killed_node_is_declared_dead_and_may_come_again(breakable: RayCluster) -> None:
    node = breakable.nodes[1]
    assert node.pids("raylet")
    declared_dead(breakable, node, breakable.kill)
    assert node.pids() == []
    breakable.start_again(node)
    assert node_id(breakable, node)


def test_a_raylet_takes_all_of_its_node_along(breakable: RayCluster) -> None:
    node = breakable.nodes[1]
    declared_dead(breakable, node, breakable.kill_raylet)
    until(lambda: node.pids() == [])
    breakable.start_again(node)


@pytest.mark.parametrize("fault", ["cut", "paused"])
def test_a_node_that_was_declared_dead_ends_when_it_hears_of_it(breakable: RayCluster, fault: str) -> None:
    node = breakable.nodes[2]
    declared_dead(breakable, node, breakable.cut if fault == "cut" else breakable.pause)
    assert node.pids(), "the node itself goes on"
    if fault == "cut":
        breakable.heal(node)
    else:
        breakable.pause(node, resume=True)
    until(lambda: node.pids() == [])
    breakable.start_again(node)


def test_a_short_cut_is_no_death(breakable: RayCluster) -> None:
    node = breakable.nodes[2]
    identifier = node_id(breakable, node)
    breakable.cut(node)
    breakable.heal(node)
    assert node_id(breakable, node) == identifier


def test_with_a_store_what_runs_on_nodes_outlives_the_head(breakable: RayCluster) -> None:
    """A guest in the head's namespace, such as a bridge, is not killed with it."""
    node = breakable.nodes[1]
    kept, floating = ask(breakable, "leave", node_id(breakable, node))
    guest = begun(breakable, "dead", node_id(breakable, node))
    raylets = node.pids("raylet/raylet ")
    breakable.kill(breakable.head)
    assert processes.command(guest.pid)
    guest.kill()
    with contextlib.suppress(AssertionError):
        answer(guest)
    breakable.start_again(breakable.head)
    found = ask(breakable, "look")
    assert found["kept"] == [kept[0], kept[1] + 1], "the same process, which has forgotten nothing"
    assert found["floating"][0] != floating[0]
    assert found["floating"][1] == 1, "made anew"
    assert found["room"] == "CREATED"
    assert node.pids("raylet/raylet ") == raylets


def test_a_killed_worker_takes_only_its_actor_along(breakable: RayCluster) -> None:
    """The one that the test before has left."""
    node, other = breakable.nodes[1:]
    raylets = node.pids("raylet/raylet ")
    worker, _calls = ask(breakable, "look")["kept"]
    with pytest.raises(AssertionError, match="is no process of"):
        breakable.kill_worker(other, worker)
    breakable.kill_worker(node, worker)
    found = ask(breakable, "look")
    assert (found["kept"], found["room"]) == (None, "CREATED")
    assert node.pids("raylet/raylet ") == raylets


def test_a_node_may_be_added_later(breakable: RayCluster) -> None:
    node = breakable.add(Shape(1, labels={"zone": "z9"}))
    (known,) = (known for known in ask(breakable, "nodes") if known["NodeManagerAddress"] == node.address)
    assert known["Labels"]["zone"] == "z9"
    assert known["Resources"]["CPU"] == 1


def test_the_dashboard_takes_the_head_along(breakable: RayCluster) -> None:
    """`ray start --block` ends the rest when a part ends. The last test of this cluster, for it costs the
    head."""
    assert breakable.kill_dashboard()
    until(lambda: not breakable.head.alive)


def test_without_a_store_nothing_outlives_the_head() -> None:
    with contextlib.closing(RayCluster(RAY)) as cluster:
        if not cluster.can_cut:
            pytest.skip("nodes have addresses of their own only where namespaces are permitted")
        cluster.start(Shape(2), Shape(2), environ=QUICK)
        node = cluster.nodes[1]
        ask(cluster, "leave", node_id(cluster, node))
        cluster.kill(cluster.head)
        cluster.start_again(cluster.head)
        assert ask(cluster, "look") == {"kept": None, "floating": None, "room": ""}
        assert [known["NodeManagerAddress"] for known in ask(cluster, "nodes")] == [cluster.head.address]
