"""What is said to who waits for a cluster."""

from tests.properties.cluster_laws import CLUSTERS, found, somewhere, with_clusters
from tests.scenarios.home import Home, node

from steersman.explain.refusals import refuse
from steersman.explain.workload import explain
from steersman.model.events import ClusterObserved
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase

A = CLUSTERS[0]


def told(home: Home, name: str) -> tuple[str, str | None, tuple[str, ...]]:
    state = explain(home.snapshot, name, [])
    return state.why, state.fix, state.facts


def test_who_waits_for_a_silent_cluster_is_told_its_trouble() -> None:
    home = Home(with_clusters(node("here")))
    home.cycle(ClusterObserved(cluster="a", problem="no answer", hint="start it"))
    home.up(somewhere("j", "ray/a"))
    assert home.code("j") is Code.NO_INFRA
    why, fix, facts = told(home, "j")
    assert "`infra: ray/a`" in why
    assert fix == "start it"
    assert "the cluster a could not be asked: no answer" in facts
    home.cycle(ClusterObserved(cluster="a", problem="no answer"))
    assert told(home, "j")[1] == "see that the cluster is up and can be reached"
    home.cycle(ClusterObserved(cluster="a", nodes=(found(A, 0),)))
    home.settle()
    assert home.phase("j") is Phase.ACTIVE


def test_who_names_what_nobody_has_is_told_the_nearest_way() -> None:
    home = Home(with_clusters(node("here"), clusters=()))
    home.up(somewhere("j", "ray"))
    _, fix, facts = told(home, "j")
    assert fix is not None
    assert "leave out `infra`" in fix
    assert facts == ()


def test_what_is_too_large_for_a_cluster_is_told_of_its_nodes_alone() -> None:
    home = Home(with_clusters(node("here", cores=64)))
    home.cycle(ClusterObserved(cluster="a", nodes=(found(A, 0, cores=2),)))
    home.up(somewhere("j", "ray", cores=4))
    assert home.code("j") is Code.REFUSED_TOO_LARGE
    home.up(somewhere("k", "", cores=4))
    assert home.run("k").ranks[0].placement.node == "here"


def test_each_node_says_that_it_is_elsewhere() -> None:
    home = Home(with_clusters(node("here")))
    home.cycle(ClusterObserved(cluster="a", nodes=(found(A, 0),)))
    home.up(somewhere("first", "ray/a", cores=2), somewhere("j", "ray/a", cores=2))
    refusal = refuse(home.snapshot.nodes["here"], home.snapshot.workloads["j"])
    assert refusal is not None
    assert refusal.code is Code.NO_INFRA
    assert home.code("j") is Code.NO_CORES


def test_a_cluster_that_falls_silent_leaves_who_is_queued_without_a_place() -> None:
    home = Home(with_clusters(node("here")))
    home.cycle(ClusterObserved(cluster="a", nodes=(found(A, 0),)))
    home.up(somewhere("first", "ray", cores=2), somewhere("second", "ray", cores=2))
    home.cycle(ClusterObserved(cluster="a", problem="no answer", hint="start it"))
    home.settle()
    assert home.code("second") is Code.NO_INFRA
    assert "the `infra` that it names" in told(home, "second")[0]


def test_what_is_said_of_a_cluster_that_left_is_ignored() -> None:
    home = Home(with_clusters(node("here"), clusters=()))
    home.cycle(ClusterObserved(cluster="a", nodes=(found(A, 0),)))
    assert [key for key, _ in home.snapshot.nodes.sorted_items()] == ["here"]
