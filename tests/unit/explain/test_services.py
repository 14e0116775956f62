"""Services in words: why so many replicas, which revision, what is in the way, and what happened."""

import pytest
from tests.scenarios.home import RESUMABLE, job, published_by
from tests.unit.explain.served import Served, service

from steersman.explain.history import Moment, decision_words, history, is_of
from steersman.explain.services import NOTHING_HEARD, Told, caused, culprits, explain_service, standing
from steersman.explain.words import describe, fix, signal_words
from steersman.explain.workload import Explanation, explain
from steersman.model.decisions import FailRollout, Promote, Retire, Revise, Scale
from steersman.model.errors import ConflictError
from steersman.model.events import NodeHealth, Observed, RankExited, RankStarted, Signal
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code, reason
from steersman.model.service import GATEWAY_NAME, Metric, Scaling, Window
from steersman.model.signals import ARRIVALS, CAPACITY, LATENCY, ONGOING, QUEUED, prometheus
from steersman.model.workload import Retry

ELASTIC = Scaling(
    min_replicas=1,
    max_replicas=4,
    initial_replicas=2,
    queued_requests_milli=1_000,
    latency_p99_ms=50,
    upscale_delay_ms=5_000,
)


def explained(home: Served) -> Explanation:
    records = [(item.position, item.at_ms, item.event) for item in home.log]
    return explain_service(home.snapshot, "digits", records)


def up(cores: int = 8, scaling: Scaling = ELASTIC) -> Served:
    home = Served(cores)
    home.serve(service(scaling=scaling))
    home.bring_up()
    return home


def test_why_so_many_with_the_votes_and_the_delay() -> None:
    home = up()
    home.hear((ONGOING, 7_000), (QUEUED, 500), (LATENCY, 20_000), (ARRIVALS, 90_000))
    home.cycle(after_ms=2_000)
    found = explained(home)
    facts = "\n".join(found.facts)
    assert found.size == "2 of 1 to 4 replicas of 1 core(s), 1 GiB of memory each"
    assert "wants 4 since 2s, waits 3s: 7 requests in flight or waiting on average" in facts
    assert "a vote for 4: 7 requests" in facts
    assert "a vote for 0: 0.5 requests waiting on average; more than 1 per replica is too many" in facts
    assert "the 99th percentile of the latency is 20 ms, its limit 50 ms" in facts
    assert "the rate of requests: 90 a second (as of 2s ago)" in facts
    home.cycle(after_ms=3_000)
    assert explained(home).size.startswith("4 of 1 to 4 replicas")
    words = [moment.words for moment in explained(home).moments]
    assert any(word.startswith("2 replicas, 4 wanted: 7 requests") for word in words)
    assert any(word.startswith("4 replicas: 7 requests") for word in words)


def test_an_unknown_signal_holds_and_says_which() -> None:
    home = up()
    home.hear((ONGOING, None))
    facts = "\n".join(explained(home).facts)
    assert "the number of requests under way is not known, so the number is held" in facts
    assert "the number of requests under way: not known" in facts


def test_a_fixed_number_is_told_as_declared() -> None:
    home = up(scaling=Scaling(min_replicas=2, max_replicas=2))
    found = explained(home)
    assert found.size.startswith("2 replica(s)")
    assert not any("vote" in fact for fact in found.facts)
    assert found.where == "2 of 2 replica(s) answer, revision 1 serves"


def test_who_is_in_the_way_of_a_replica() -> None:
    home = Served(cores=3)
    home.up(job("train", cores=2, priority=5, checkpoint=RESUMABLE))
    home.begin("train")
    home.serve(service(scaling=ELASTIC))
    home.bring_up()
    found = explained(home)
    assert found.why.startswith("digits.2: no node has enough free cores now")
    assert found.code == "no-cores"
    assert found.refused == (("no-cores", 1),)
    assert {rival.workload for rival in found.rivals} >= {"train"}
    assert found.fix is not None


def test_what_never_fits_gets_the_nearest_fix() -> None:
    home = Served(cores=2)
    home.serve(service(cores=9))
    assert (explained(home).fix or "").startswith("ask for at most cpus: 2")


def test_why_a_rollout_failed_and_where_to_look() -> None:
    home = up()
    home.serve(service(scaling=ELASTIC, envs=(("A", "1"),)))
    name = home.service().replicas[-1].name
    assert "revision 2 is on its way with 0 ready" in explained(home).where
    home.crash(name, exit_code=78)
    found = explained(home)
    facts = "\n".join(found.facts)
    assert found.why.startswith(f"revision 2 was given up: {name} exited with 78 before it was ready")
    assert "revision 1 serves on" in found.why
    assert f"(it says that its model can never be loaded); hint: steer logs {name}" in facts
    assert f"steer logs {name}" in (found.fix or "")
    words = [moment.words for moment in found.moments]
    assert any(
        word.startswith("give up revision 2; what served before, if anything, serves on: ") for word in words
    )
    assert any(word.startswith(f"drain and end {name}: ") for word in words)
    assert f"{name}: exited with 78" in words


def test_the_life_of_a_service_in_order() -> None:
    home = up()
    moments = explained(home).moments
    words = [moment.words for moment in moments]
    assert words[0] == "declared, priority 0, 1 to 4 replicas"
    assert words[1] == "begin revision 1: the first revision"
    assert "digits.1: answers requests; loading took 500ms" in words
    assert any("revision 1 has taken over with 2 replicas ready" in word for word in words)
    assert [moment.at_ms for moment in moments] == sorted(moment.at_ms for moment in moments)
    gateway = history("steersman.gateway", [(i.position, i.at_ms, i.event) for i in home.log])
    assert gateway
    lost = home.run("digits.1").ranks[0].placement.node
    home.cycle(NodeHealth(node=lost, health="dead"))
    words = [moment.words for moment in explained(home).moments]
    assert f"digits.1: was lost: node {lost} was declared dead" in words
    assert not any("digits" in moment.words for moment in gateway)


def test_names_that_only_look_alike_are_not_of_the_service() -> None:
    assert is_of("digits", "digits")
    assert is_of("digits.12", "digits")
    assert not is_of("digits.x", "digits")
    assert not is_of("digits-2.1", "digits")
    assert not is_of("digits.1.2", "digits")


def test_an_unknown_service() -> None:
    with pytest.raises(ConflictError, match="no service"):
        explain_service(Served().snapshot, "digits", ())


def test_what_a_standing_says_while_the_gateway_is_away() -> None:
    home = up()
    assert standing(home.snapshot, home.service(), listening=True).phase == "serving"
    assert standing(home.snapshot, home.service(), listening=False).phase == "starting"


def test_a_gateway_that_fails_is_what_is_told() -> None:
    home = up()
    home.crash(GATEWAY_NAME)
    found = standing(home.snapshot, home.service(), listening=False)
    assert (found.phase, found.subject, found.code) == ("failing", GATEWAY_NAME, "retry-replica")
    assert found.why.startswith("the gateway: exited with 1; ")
    assert found.fix == f"see its log (steer logs {GATEWAY_NAME})"


def test_what_drains_is_named_until_it_is_gone() -> None:
    home = up(scaling=Scaling())
    home.serve(service(envs=(("A", "1"),)))
    home.bring_up()
    assert "draining: digits.1" in explained(home).facts
    home.drained()
    assert not any(fact.startswith("draining") for fact in explained(home).facts)


def test_at_zero_no_signal_votes_but_each_is_told() -> None:
    home = up(scaling=Scaling(min_replicas=0, max_replicas=3, initial_replicas=0))
    home.hear((ONGOING, 0))
    found = explained(home)
    assert (found.phase, found.size.split(" replicas")[0]) == ("scaled-to-zero", "0 of 0 to 3")
    assert "wants 0, as it has: no request waits" in found.facts
    assert "the number of requests under way: 0 (as of 0s ago)" in found.facts
    assert not any(fact.startswith("a vote") for fact in found.facts)


def test_a_wish_that_is_not_recorded_yet_has_no_since() -> None:
    home = up()
    heard = (Signal(name=ONGOING, subject="digits", value=7_000),)
    home.fold(Observed(now_ms=home.now_ms, signals=heard))
    assert any(fact.startswith("wants 4: 7 requests in flight") for fact in explained(home).facts)
    home.settle()
    assert any(fact.startswith("wants 4 since 0s, waits 5s: ") for fact in explained(home).facts)


def test_a_wish_ends_when_the_number_is_declared() -> None:
    home = up()
    home.hear((ONGOING, 7_000))
    home.serve(service(scaling=Scaling(min_replicas=2, max_replicas=2)))
    words = [moment.words for moment in explained(home).moments]
    assert "2 replicas: 2 replicas, as declared" in words


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (
            Scale(
                workload=WorkloadName("s"),
                desired=1,
                since_ms=0,
                target=1,
                reason=reason(Code.SCALE_COLD_START, cold_start_ms=40_000, timeout_ms=30_000),
            ),
            "1 replica: one replica stays: a start takes 40s, and a request may wait 30s",
        ),
        (
            Revise(
                workload=WorkloadName("s"),
                revision=3,
                model_digest=None,
                reason=reason(Code.MODEL_CHANGED, revision=2),
            ),
            "begin revision 3: its model changed since revision 2",
        ),
        (
            Promote(
                workload=WorkloadName("s"),
                revision=3,
                reason=reason(Code.ROLLED_OUT, revision=3, replicas=1),
            ),
            "revision 3 has taken over with 1 replica ready",
        ),
        (
            FailRollout(
                workload=WorkloadName("s"),
                revision=3,
                reason=reason(Code.REPLICA_STUCK, replica="s.4", ready_timeout_ms=120_000),
            ),
            "give up revision 3; what served before, if anything, serves on: s.4 did not get ready within 2m",
        ),
        (
            Retire(
                workload=WorkloadName("s"),
                replica=WorkloadName("s.1"),
                reason=reason(Code.REPLICA_SURPLUS, target=1),
            ),
            "drain and end s.1: 1 replica is enough",
        ),
    ],
)
def test_decisions_in_words(decision: Scale | Revise | Promote | FailRollout | Retire, words: str) -> None:
    assert decision_words(decision) == words


def test_signals_in_words() -> None:
    assert signal_words(LATENCY, 12_300) == "the latency: 12.3 ms"
    assert signal_words("other", None) == "other: not known"


# Fixes of what jobs are told.


def test_a_fix_names_the_job_and_its_rank() -> None:
    why = reason(Code.EVENT_NOT_RETRIED, event="error", cause="exited", exit_code=1, rank=1)
    assert (fix(why, "train") or "").startswith("see its log (steer logs train --rank 1); ")
    home = Served()
    home.up(job("train", ranks=2, retry=Retry(on_events=())))
    home.begin("train")
    home.end("train", rank=1, code=3)
    home.end("train", rank=0, signal=15)
    found = explain(home.snapshot, "train", ())
    assert "steer logs train --rank" in (found.fix or "")
    assert "NAME" not in (found.fix or "")


def test_a_job_without_a_retry_policy_is_told_that_it_has_none() -> None:
    words = describe(reason(Code.EVENT_NOT_RETRIED, event="error", exit_code=1))
    assert words == "exited with 1; it has no retry policy for the event 'error'"


def test_a_job_that_ran_out_of_its_memory_is_told_to_ask_for_more() -> None:
    home = Served()
    home.up(job("train", retry=Retry(on_events=())))
    home.begin("train")
    run = home.run("train")
    home.cycle(RankExited(run=run.id, rank=0, at_ms=home.now_ms, signal=9, cause="memory"))
    found = explain(home.snapshot, "train", ())
    assert found.why.startswith("out of its memory: ended by signal 9; it has no retry policy")
    assert found.fix == "raise resources.memory, and declare it again"


def test_what_a_run_left_behind_comes_after_its_end() -> None:
    home = Served()
    home.up(job("train", artifacts=["model"]))
    home.begin("train")
    run = home.run("train")
    ended_ms = home.now_ms + 100
    home.cycle(
        published_by(run, "train", "model"),
        RankExited(run=run.id, rank=0, at_ms=ended_ms, exit_code=0),
        after_ms=5_000,
    )
    moments: tuple[Moment, ...] = history("train", [(i.position, i.at_ms, i.event) for i in home.log])
    codes = [moment.code for moment in moments]
    assert codes.index("rank-exited") < codes.index("artifact-published")
    assert [moment.at_ms for moment in moments] == sorted(moment.at_ms for moment in moments)
    assert RankStarted(run=run.id, rank=0, pid=1, at_ms=0).pid == 1


MEMORY: dict[str, str | int] = {"cause": "memory", "signal": 9}


@pytest.mark.parametrize(
    "code",
    [
        Code.EXIT_FATAL,
        Code.EVENT_NOT_RETRIED,
        Code.ATTEMPTS_EXHAUSTED,
        Code.RETRY_TIME_EXHAUSTED,
        Code.RETRY_BACKOFF,
        Code.CRASH_LOOP,
        Code.REPLICA_CRASHED,
        Code.RETRY_REPLICA,
    ],
)
def test_who_ended_for_want_of_memory_is_helped_by_more_of_it(code: Code) -> None:
    why = reason(code, **MEMORY)
    assert "out of its memory: ended by signal 9" in describe(why)
    assert fix(why, "digits") == "raise resources.memory, and declare it again"
    assert "steer logs digits" in (fix(reason(code, signal=9), "digits") or "")


def test_why_a_replica_crashed_is_taken_from_whoever_knows() -> None:
    home = up()
    crashed = reason(Code.REPLICA_CRASHED, replica="digits.9", failures=3, signal=9)
    told = {"digits.9": Told(cause="memory")}
    assert caused(home.snapshot, crashed, NOTHING_HEARD) is crashed  # it is forgotten, and nobody knows
    assert dict(caused(home.snapshot, crashed, told).facts)["cause"] == "memory"
    known = reason(Code.REPLICA_CRASHED, cause="lost")
    assert caused(home.snapshot, known, told) is known
    other = reason(Code.SERVING, replica="digits.9")
    assert caused(home.snapshot, other, told) is other
    here = reason(Code.REPLICA_CRASHED, replica="digits.1")  # it runs, and never ended
    assert caused(home.snapshot, here, {"digits.1": Told(cause="memory")}) != here
    home.crash("digits.1")
    assert dict(caused(home.snapshot, here, NOTHING_HEARD).facts)["cause"] == "exited"


def test_whose_logs_tell_more() -> None:
    assert list(culprits(up().snapshot)) == []
    home = Served()
    home.serve(service(scaling=ELASTIC))
    home.bring_up("nobody")
    home.crash("digits.2")
    assert list(culprits(home.snapshot)) == ["digits.2"]
    found = standing(home.snapshot, home.service(), listening=True)
    assert (found.subject, found.failing) == ("digits.2", "digits.2")
    records = [(item.position, item.at_ms, item.event) for item in home.log]
    heard = {"digits.2": Told(line="boom"), "digits.1": Told(), GATEWAY_NAME: Told(line="no port")}
    facts = explain_service(home.snapshot, "digits", records, heard=heard).facts
    assert [fact for fact in facts if "said last" in fact] == ["digits.2 said last: boom"]
    closed = up()
    closed.crash(GATEWAY_NAME)
    assert list(culprits(closed.snapshot)) == [GATEWAY_NAME]


def test_the_forecast_is_told_with_its_backtest() -> None:
    home = up(scaling=Scaling(min_replicas=1, max_replicas=4))
    home.hear((ONGOING, 1_000), (QUEUED, 0), (ARRIVALS, 0))
    lacking = explained(home).forecast
    assert lacking is not None
    assert (lacking.state, lacking.words[0].split(";")[0]) == (
        None,
        "no forecast: what one replica can do is not known yet",
    )
    home.hear((CAPACITY, 10_000))
    home.cycle(after_ms=5_000)
    home.cycle(after_ms=0)
    first = explained(home).forecast
    assert first is not None
    assert first.words[-1] == "backtest: nothing to judge by after 5s"
    for at in range(60):
        home.hear((ARRIVALS, 18_000 + at))
        home.cycle(after_ms=9_000)
    found = explained(home)
    forecast = found.forecast
    assert forecast is not None
    assert forecast.state in ("forecast", "held")
    assert forecast.replicas >= 2
    assert forecast.figures["capacity_milli"] == 10_000
    assert forecast.figures["cost_over_work_milli"] >= 1_000
    assert any("one replica does 10 a second and starts in" in fact for fact in found.facts)
    assert any(fact.startswith("backtest over 10m") and "; 1 % may" in fact for fact in found.facts)
    assert any(f"a vote for {forecast.replicas}: forecast: " in fact for fact in found.facts)
    assert any(word.words.startswith("the forecast keeps what it has learnt") for word in found.moments)


def test_why_there_is_no_forecast() -> None:
    fixed = up(scaling=Scaling(min_replicas=2, max_replicas=2))
    assert explained(fixed).forecast is None
    off = explained(up(scaling=Scaling(min_replicas=1, max_replicas=2, forecast=False))).forecast
    assert off is not None
    assert off.words == ("no forecast: it is switched off (forecast: off)",)
    begun = Served(8)
    begun.serve(service(scaling=Scaling(min_replicas=1, max_replicas=2)))
    begun.hear((CAPACITY, 1_000), (ARRIVALS, 1_000))
    early = explained(begun).forecast
    assert early is not None
    assert "no replica has been ready yet" in early.words[0]
    begun.bring_up()
    late = explained(begun).forecast
    assert late is not None
    assert "nothing has been seen for long enough" in late.words[0]


def test_a_metric_and_a_schedule_are_told() -> None:
    metric = Metric(url="http://p", query="up", target_milli=2_000, per="total")
    window = Window(cron="* * * * *", duration_ms=60_000, min_replicas=3)
    home = up(scaling=Scaling(min_replicas=1, max_replicas=9, metrics=(metric,), schedule=(window,)))
    words = [moment.words for moment in explained(home).moments]
    assert any("its schedule asks for at least 3 replicas now" in word for word in words)
    home.hear((prometheus(0), 9_000))
    facts = "\n".join(explained(home).facts)
    assert "a vote for 5: up is 9, its target 2" in facts
    home.hear((prometheus(0), None))
    assert "up is not known, so the number is held" in "\n".join(explained(home).facts)
