"""What metrics ask for: totals and figures of a replica, jobs that wait, the backlog, and what is unknown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.scenarios.home import declared, fleet, job, node
from tests.scenarios.serving import Shop, replicas, service, up

from steersman.decide.autoscale import desired
from steersman.decide.votes import of_metric, votes
from steersman.model.reasons import Code
from steersman.model.service import Metric
from steersman.model.signals import prometheus

FULL = fleet(node("here", cores=4, gib=32))
TOTAL = Metric(url="http://p", query="up", target_milli=2_000, per="total")
EACH = Metric(url="http://p", query="up", target_milli=2_000, per="replica")
BACKLOG = Metric(name="backlog", target_milli=1_500, per="replica")
JOBS = Metric(name="queued_jobs", queue="default", target_milli=2_000, per="total")  # type: ignore[arg-type]  # a NewType over str


@given(value=st.integers(0, 10**15), target=st.integers(0, 1_000), goal=st.integers(1, 10**12))
def test_a_total_is_shared_out(value: int, target: int, goal: int) -> None:
    """The least number with which each has no more than its target."""
    metric = Metric(url="http://p", query="up", target_milli=goal, per="total")
    found = of_metric(metric, value, target).replicas
    assert found * goal >= value
    assert (found - 1) * goal < value or found == 0


@given(value=st.integers(0, 10**9), target=st.integers(0, 1_000), goal=st.integers(1, 10**9))
def test_a_figure_of_a_replica_counts_as_often_as_there_are(value: int, target: int, goal: int) -> None:
    """In proportion, and nothing within a tenth of the target."""
    metric = Metric(url="http://p", query="up", target_milli=goal, per="replica")
    found = of_metric(metric, value, target).replicas
    if abs(value - goal) * 10 <= goal:
        assert found == target
    else:
        assert found * goal >= target * value > (found - 1) * goal or found == target * value == 0


@pytest.mark.parametrize("metric", [TOTAL, EACH, BACKLOG, JOBS])
@pytest.mark.parametrize("target", [0, 1, 7])
def test_unknown_holds(metric: Metric, target: int) -> None:
    vote = of_metric(metric, None, target)
    assert (vote.replicas, vote.reason.code) == (target, Code.SCALE_UNKNOWN)


def shop(*metrics: Metric) -> Shop:
    made = up(FULL, spec=service(scaling=replicas(1, 3, metrics=metrics)))
    made.tell(ongoing_milli=0)
    return made


def test_the_largest_of_all_wins_and_moves_the_target() -> None:
    made = shop(TOTAL, EACH)
    assert desired(made.snapshot, made.service()).reason.code is Code.SCALE_UNKNOWN
    made.tell("digits", **{prometheus(0): 5_900, prometheus(1): 100})
    assert [vote.replicas for vote in votes(made.snapshot, made.service())] == [0, 3, 1]
    made.pass_ms(3_000)
    assert made.service().target == 3
    made.tell("digits", **{prometheus(0): 100})
    made.pass_ms(60_000)
    assert made.service().target == 1


def test_the_figures_of_queries_that_are_no_more_are_forgotten() -> None:
    made = shop(TOTAL)
    made.tell("digits", **{prometheus(0): 5_900})
    made.serve(service(scaling=replicas(1, 3, metrics=(EACH,))), restarts=False)
    assert [signal.name for signal in made.service().signals] == ["ongoing_milli"]


@pytest.mark.parametrize(
    ("queued", "served", "wanted"),
    [(6_000, 2_000, 2), (0, 0, 0), (0, 500, 0), (1_000, 0, 1), (None, 500, 1), (500, None, 1)],
)
def test_a_backlog_is_what_waits_over_what_is_answered(
    queued: int | None, served: int | None, wanted: int
) -> None:
    """Three seconds of it, where one and a half are the target, ask for twice as many."""
    made = shop(BACKLOG)
    made.tell(queued_milli=queued, served_milli=served)
    assert votes(made.snapshot, made.service())[-1].replicas == wanted


def test_jobs_that_wait_in_the_queue_are_counted_and_replicas_are_not() -> None:
    made = shop(JOBS)
    made.cycle(*(declared(job(f"train{at}", cores=3)) for at in range(5)))
    made.settle()
    queued = sum(made.phase(f"train{at}").value == "queued" for at in range(5))
    assert queued == 4
    assert votes(made.snapshot, made.service())[-1].replicas == 2
    other = Metric(name="queued_jobs", queue="other", target_milli=1_000, per="total")  # type: ignore[arg-type]  # a NewType over str
    made.serve(service(scaling=replicas(1, 3, metrics=(other,))), restarts=False)
    assert votes(made.snapshot, made.service())[-1].replicas == 0
    assert "queued_jobs" in str(votes(made.snapshot, made.service())[-1].reason)


def test_from_zero_a_total_asks_and_a_figure_of_nobody_does_not() -> None:
    made = up(FULL, spec=service(scaling=replicas(0, 3, metrics=(TOTAL, EACH), initial_replicas=0)))
    made.tell("digits", **{"ongoing_milli": 0, prometheus(0): 0, prometheus(1): 90_000})
    assert desired(made.snapshot, made.service()).replicas == 0
    made.tell("digits", **{prometheus(0): 2_001})
    assert made.service().target == 2
