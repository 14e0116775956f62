"""What people read about a choice: costs, hazard, the point of no return, refusals; where a run is."""

import pytest
from msgspec.structs import replace
from tests.scenarios.home import EPOCH_MS, Home, fleet, job, node

from steersman.app.cli.table import status_rows
from steersman.app.wire import Row
from steersman.explain.words import describe, fix
from steersman.explain.workload import explain
from steersman.model.events import CheckpointSaved, InterruptionNotice
from steersman.model.fleet import Node
from steersman.model.ids import NodeId
from steersman.model.reasons import Code, reason
from steersman.model.workload import CheckpointPolicy

HOUR_MS = 3_600_000


def test_a_choice_is_told_with_its_costs_and_refusals() -> None:
    why = reason(
        Code.CHOSE_SPOT,
        pool="east",
        cost_spot=973_100,
        cost_on_demand=3_060_000,
        cost_wait=1_000_000,
        hazard_micro_per_hour=250_000,
        no_return_ms=2 * HOUR_MS + 17,
        **{"refused:west": "missing", "refused:north": "too small", "refused:south": "above max_price"},
    )
    assert describe(why) == (
        "spot pool east (expected until the deadline: waiting $1.00, spot $0.9731, on-demand $3.06; "
        "hazard 0.25 an hour; point of no return in 2h; north refused: too small; "
        "south refused: above max_price; west refused: price missing)"
    )
    assert "the next useful hour: on-demand $3.06" in describe(
        reason(Code.CHOSE_ON_DEMAND, cost_on_demand=3_060_000)
    )


@pytest.mark.parametrize("code", [Code.DEADLINE_AT_RISK, Code.NO_PRICE, Code.NO_SPOT_POOL, Code.WAITING_SPOT])
def test_what_a_person_could_do(code: Code) -> None:
    assert fix(reason(code))


def test_moves_and_interruptions_are_told() -> None:
    assert describe(reason(Code.MOVED, source="on-demand", target="east")) == (
        "saves and moves from on-demand to east"
    )
    assert describe(reason(Code.INTERRUPTION_NOTICE, pool="east", left_ms=30_400)) == (
        "its node of pool east is taken away in 30s: it saves and goes on elsewhere"
    )
    assert describe(reason(Code.RETRY_INTERRUPTED, saved_step=7)).endswith("uncounted; saved up to step 7")
    assert describe(reason(Code.RETRY_MOVED, saved_step=-1)).endswith("nothing was saved")


def _spot(name: str) -> Node:
    return replace(node(name), pool="east", market="spot", price_usd_micro_per_hour=900_000)


def test_explain_says_where_a_job_runs_and_why_there() -> None:
    dear = replace(node("dear"), pool="dear", price_usd_micro_per_hour=3_000_000)
    spec = job("train", checkpoint=CheckpointPolicy(enabled=True))
    body = replace(spec.body, spot_policy="auto", deadline_ms=9 * HOUR_MS, work_ms=HOUR_MS)
    home = Home(fleet(dear, _spot("east-0")))
    home.up(replace(spec, body=body))
    home.settle()
    home.begin("train")
    for step in (1, 2):
        at_ms = home.now_ms + 60_000
        saved = CheckpointSaved(run=home.run("train").id, step=step, at_ms=at_ms, save_ms=10, digest="d")
        home.cycle(saved, after_ms=60_000)
    told = explain(home.snapshot, "train", [(one.position, one.at_ms, one.event) for one in home.log])
    assert "on east-0 (spot, pool east)" in told.where
    assert any(
        fact.startswith("runs on: spot pool east (expected until the deadline: ") for fact in told.facts
    )
    assert "59s of 1h of work are saved" in told.facts
    home.cycle(InterruptionNotice(node=NodeId("east-0"), at_ms=home.now_ms, ends_ms=home.now_ms + 30_000))
    home.end("train", code=75)
    home.settle()
    told = explain(home.snapshot, "train", [(one.position, one.at_ms, one.event) for one in home.log])
    assert "1 interruption(s)" in told.facts
    assert home.now_ms > EPOCH_MS


def test_status_shows_market_and_pool() -> None:
    row = Row(name="a", phase="active", settled=False, nodes=("n",), market="on-demand")
    cells = [status_rows([one])[0][3] for one in (row, replace(row, pool="p"), replace(row, market="spot"))]
    assert cells == ["n", "n (on-demand, p)", "n (spot)"]


@pytest.mark.parametrize(
    ("faults", "words", "change"),
    [
        (
            {"a": "above max_price", "b": "above max_price", "c": "too small"},
            "every price is above",
            "raise max",
        ),
        ({"a": "missing"}, "no price to choose by", "price_usd_per_hour"),
        ({"a": "missing", "b": "above max_price"}, "no price to choose by", "raise max_price"),
        ({}, "no price to choose by", "price_usd_per_hour"),
    ],
)
def test_what_is_wrong_with_the_prices_is_said(faults: dict[str, str], words: str, change: str) -> None:
    why = reason(Code.NO_PRICE, **{f"refused:{name}": fault for name, fault in faults.items()})
    assert describe(why).startswith(words)
    assert change in (fix(why) or "")
