"""A cluster that cannot be asked, and a person who says that it will not come back."""

import pytest
from msgspec.structs import replace
from tests.properties.cluster_laws import CLUSTERS, found, somewhere, with_clusters
from tests.scenarios.home import Home, node

from steersman.app.lost import lost
from steersman.model.errors import ConflictError
from steersman.model.events import ClusterObserved
from steersman.model.snapshot import RunState

ONE, OTHER = CLUSTERS
SILENT = ClusterObserved(cluster=ONE.name, problem="it cannot be reached", hint="wait")
BACK = ClusterObserved(cluster=ONE.name, nodes=(found(ONE, 0), found(ONE, 2)))


def waiting() -> Home:
    """A job runs on a cluster, which then cannot be asked; the other one is there."""
    home = Home(with_clusters(node("here", cores=1)))
    home.cycle(BACK)
    home.up(somewhere("train", "ray", cores=2))
    home.settle()
    home.cycle(ClusterObserved(cluster=OTHER.name, nodes=(found(OTHER, 0),)))
    home.cycle(SILENT)
    home.settle()
    return home


def test_nothing_ends_without_the_word() -> None:
    home = waiting()
    run = home.snapshot.workloads["train"].run
    assert run is not None
    home.cycle(after_ms=3_600_000)
    home.settle()
    assert home.snapshot.workloads["train"].run == run
    assert home.snapshot.runs[run].state is not RunState.ENDED


def test_by_the_word_the_work_begins_elsewhere() -> None:
    home = waiting()
    before = home.snapshot.workloads["train"].run
    events = lost(home.snapshot, ONE.name)
    assert [event.node for event in events] == ["a-0", "a-2"]
    home.cycle(*events)
    home.settle()
    home.cycle(after_ms=60_000)  # longer than any back-off
    after = home.snapshot.workloads["train"].run
    assert after not in (None, before)
    assert home.snapshot.runs[after].ranks[0].placement.node == "b-0"
    assert lost(home.snapshot, ONE.name) == []
    home.cycle(replace(SILENT, problem="still not"))
    assert {home.snapshot.nodes[key].health for key in ("a-0", "a-2")} == {"dead"}


def test_a_cluster_that_comes_back_has_its_nodes_again() -> None:
    home = waiting()
    home.cycle(*lost(home.snapshot, "a-0"))
    home.cycle(BACK)
    assert {home.snapshot.nodes[key].health for key in ("a-0", "a-2")} == {"alive"}


def test_nodes_that_are_there_stay_as_they_are_when_seen_again() -> None:
    home = Home(with_clusters(node("here", cores=1)))
    home.cycle(BACK)
    before = {key: home.snapshot.nodes[key] for key in ("a-0", "a-2")}
    home.cycle(BACK)
    assert {key: home.snapshot.nodes[key] for key in ("a-0", "a-2")} == before


def test_who_answers_is_not_lost() -> None:
    home = waiting()
    for name, code in (("b-0", "node-answers"), ("b", "node-answers"), ("here", "node-answers")):
        with pytest.raises(ConflictError, match="answers, so it is not lost") as error:
            lost(home.snapshot, name)
        assert (error.value.code, bool(error.value.hint)) == (code, True)
    with pytest.raises(ConflictError, match="no node and no cluster") as error:
        lost(home.snapshot, "elsewhere")
    assert "a-0, a-2, b-0, here" in error.value.hint


def test_declared_anew_a_cluster_keeps_what_was_found_unless_it_is_another() -> None:
    home = waiting()
    before = home.snapshot
    home.cycle(with_clusters(node("here", cores=1), node("more", cores=1)))
    assert (home.snapshot.clusters, len(home.snapshot.nodes)) == (before.clusters, len(before.nodes) + 1)
    moved = replace(OTHER, address="10.9.9.9:6379")
    home.cycle(with_clusters(node("here", cores=1), clusters=(ONE, moved)))
    assert [state.spec for state in home.snapshot.clusters] == [ONE, moved]
    assert [state.problem for state in home.snapshot.clusters] == [SILENT.problem, ""]
    assert "b-0" not in home.snapshot.nodes
    assert home.snapshot.nodes["a-0"].health == "unknown"
