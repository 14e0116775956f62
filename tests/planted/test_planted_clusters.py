"""Every law of clusters bites: a bug is planted in deciders or fold, and its law finds it."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.properties import cluster_laws as laws
from tests.properties.cluster_laws import Life

from steersman.decide import fit
from steersman.decide.placer import Flavor
from steersman.model.events import ClusterObserved
from steersman.model.fleet import serves
from steersman.model.snapshot import RankEnd
from steersman.state import fold

Patch = pytest.MonkeyPatch
LIVES_MAX = 60


def _infra_is_forgotten(patch: Patch) -> None:
    patch.setattr(fit, "serves", lambda node, pools, _infra: node.pool in pools if pools else True)
    patch.setattr(Flavor, "serves", lambda *_: True)


def _any_cluster_is_every_cluster(patch: Patch) -> None:
    patch.setattr(fit, "serves", lambda node, pools, infra: serves(node, pools, infra.partition("/")[0]))
    patch.setattr(Flavor, "serves", lambda *_: True)


def _silence_is_death(patch: Patch) -> None:
    real = fold._cluster_observed

    def observed(draft: Any, event: ClusterObserved) -> None:
        real(draft, event)
        for key in draft.node_ids() if event.problem else ():
            for run, rank in (
                draft.nodes[key].leases if draft.nodes[key].node.cluster == event.cluster else ()
            ):
                fold._end_rank(draft, run, rank, RankEnd(cause="lost"), None)

    patch.setitem(fold._HANDLERS, ClusterObserved, observed)


def _silence_is_nothing(patch: Patch) -> None:
    real = fold._cluster_observed

    def observed(draft: Any, event: ClusterObserved) -> None:
        real(draft, event)
        for key in draft.node_ids():
            draft.put_node(key, replace(draft.nodes[key], health="alive"))

    patch.setitem(fold._HANDLERS, ClusterObserved, observed)


def _who_left_stays(patch: Patch) -> None:
    real = fold._take_nodes
    patch.setattr(fold, "_take_nodes", lambda draft, nodes, _leave: real(draft, nodes, ()))


BUGS: tuple[tuple[Callable[[Patch], None], Callable[[Life], None]], ...] = (
    (_infra_is_forgotten, laws.work_stays_within_its_infra),
    (_any_cluster_is_every_cluster, laws.work_stays_within_its_infra),
    (_silence_is_death, laws.the_silent_get_no_work_and_lose_none),
    (_silence_is_nothing, laws.the_silent_get_no_work_and_lose_none),
    (_who_left_stays, laws.nodes_are_those_that_were_seen),
)


@pytest.mark.parametrize(("plant", "law"), BUGS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_planted_bug_is_caught(
    plant: Callable[[Patch], None], law: Callable[[Life], None], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    for seed in range(LIVES_MAX):
        try:
            law(Life(seed))
        except AssertionError:
            return
    raise AssertionError("nobody noticed")
