"""Replicas of one service on different nodes; and what a place did not take is tried elsewhere."""

import pytest
from tests.scenarios.home import Home, fleet, job, node
from tests.scenarios.serving import Shop, replicas, service

from steersman.explain.words import describe
from steersman.model.events import RankExited
from steersman.model.reasons import Code
from steersman.model.workload import Retry

THREE = fleet(node("a", cores=4), node("b", cores=4), node("c", cores=4))


def where(shop: Shop) -> list[str]:
    """The nodes of the replicas, in order of their making."""
    return [shop.run(name).ranks[0].placement.node for name in shop.names()]


@pytest.mark.parametrize(("count", "nodes"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_replicas_go_to_nodes_of_their_own_while_there_are_such(count: int, nodes: int) -> None:
    shop = Shop(THREE)
    shop.serve(service(scaling=replicas(count)))
    shop.settle()
    assert len(set(where(shop))) == nodes
    reasons = [shop.state(name).reason for name in shop.names()]
    apart = ["apart from the others" in describe(why) for why in reasons if why is not None]
    assert apart == [number in (1, 2) or (number == 0 and count > 1) for number in range(count)]


def test_services_do_not_keep_away_from_one_another() -> None:
    shop = Shop(THREE)
    shop.serve(service("one", scaling=replicas(1)), service("two", scaling=replicas(1)))
    shop.settle()
    nodes = {shop.run(name).ranks[0].placement.node for one in ("one", "two") for name in shop.names(one)}
    assert len(nodes) == 1


def test_what_its_node_did_not_take_is_queued_again_uncounted() -> None:
    home = Home(THREE)
    home.up(job("train", ranks=2, cores=3, retry=Retry(on_events=("error",), attempts_max=1)))
    home.settle()
    for tries in range(1, 4):
        run = home.run("train")
        gone = RankExited(
            run=run.id, rank=1, at_ms=home.now_ms, cause="not-taken", detail="the node has left"
        )
        home.cycle(gone)
        home.end("train", rank=0, code=75)
        home.settle()
        state = home.state("train")
        assert (state.run, state.attempts, state.failures) == (None, 0, 0), tries
        assert state.reason is not None
        assert state.reason.code is Code.RETRY_NOT_TAKEN
        where = run.ranks[1].placement.node
        assert where != run.ranks[0].placement.node
        words = f"{where} did not take it: the node has left; tried again in 1s, uncounted"
        assert describe(state.reason) == words
        home.cycle(after_ms=2_000)
        home.settle()
        assert home.state("train").run is not None


@pytest.mark.parametrize(("ran_ms", "delays"), [(60_000, [1, 1, 1, 1]), (500, [1, 2, 4, 8])])
def test_a_run_that_lived_until_its_machine_went_is_no_part_of_a_row_of_failures(
    ran_ms: int, delays: list[int]
) -> None:
    home = Home(THREE)
    home.up(job("train", retry=Retry(on_events=("interruption",), attempts_max=100)))
    home.settle()
    seen = []
    for _ in delays:
        home.begin("train")
        run = home.run("train")
        gone = RankExited(
            run=run.id, rank=0, at_ms=home.now_ms + ran_ms, cause="lost", detail="its node left"
        )
        home.cycle(gone, after_ms=ran_ms)
        state = home.state("train")
        seen.append((state.not_before_ms - home.now_ms) // 1_000)
        home.cycle(after_ms=30_000)
        home.settle()
    assert seen == delays


def test_of_a_long_reason_of_a_place_the_beginning_is_kept() -> None:
    home = Home(THREE)
    home.up(job("train"))
    home.settle()
    said = "x" * 200 + "y"
    run = home.run("train").id
    home.cycle(RankExited(run=run, rank=0, at_ms=home.now_ms, cause="not-taken", detail=said))
    home.settle()
    assert home.facts("train")["detail"] == "x" * 200
