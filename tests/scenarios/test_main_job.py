"""The main job: training runs on two cores, an urgent job takes them, training resumes, survives a kill."""

from tests.scenarios.home import EPOCH_MS, Home, fleet, job, node, starts, told

from steersman.model.events import RankExited
from steersman.model.ids import NodeId
from steersman.model.reasons import Code
from steersman.model.snapshot import Phase, RunState
from steersman.model.workload import CheckpointPolicy, Retry

DIGITS = job(
    "digits",
    cores=2,
    artifacts=("model",),
    checkpoint=CheckpointPolicy(enabled=True, interval_ms=10_000),
    retry=Retry(on_events=("interruption",), attempts_max=5),
)
URGENT = job("urgent", cores=2, priority=100)


def _training() -> Home:
    """Digits has trained for a while and saved step 400."""
    home = Home(fleet(node("here", cores=2)))
    plan = home.up(DIGITS)
    assert told(plan) == ["admit digits: admitted", "start digits: placed"]
    assert starts(plan) == {"digits": [NodeId("here")]}
    home.begin("digits")
    home.save("digits", 400, after_ms=10_000)
    return home


def test_urgent_work_takes_the_cores_and_training_resumes() -> None:
    """Digits yields to urgent with a checkpoint, waits without a back-off, and goes on from there."""
    home = _training()
    plan = home.cycle(after_ms=3_000)
    assert told(plan) == []

    plan = home.up(URGENT)
    assert told(plan) == [
        "admit urgent: admitted",
        "reserve urgent: waiting-preemption",
        "stop digits (preempted): preempted",
    ]
    facts = dict(plan.decisions[2].reason.facts)
    assert facts == {"by": "urgent", "by_priority": 100, "priority": 0, "lost_core_ms": 4_000 * 2}
    assert home.run("digits").state is RunState.STOPPING
    assert home.facts("urgent") == {"victim": "digits.3", "victims": 1}

    assert told(home.cycle()) == [], "urgent waits for the victim, and nobody else yields"
    home.save("digits", 460, after_ms=500)
    plan = home.end("digits", code=75)
    assert told(plan) == ["requeue digits: retry-preempted", "start urgent: placed", "hold digits: no-cores"]
    assert dict(plan.decisions[0].reason.facts) == {"saved_step": 460}
    state = home.state("digits")
    assert (state.preemptions, state.attempts, state.failures, state.interruptions) == (1, 0, 0, 0)

    home.begin("urgent")
    plan = home.end("urgent")
    assert told(plan) == ["finish urgent: succeeded", "start digits: placed"]
    assert home.run("digits").saved_step == 460, "it resumes from what it saved on notice"
    assert home.run("digits").attempt == 2


def test_training_killed_once_is_tried_again_after_a_back_off_and_succeeds() -> None:
    """SIGKILL from outside is an interruption: one counted try, one second of back-off, then success."""
    home = _training()
    plan = home.end("digits", signal=9)
    assert told(plan) == ["requeue digits: retry-backoff"]
    assert dict(plan.decisions[0].reason.facts) == {
        "attempt": 1,
        "cause": "exited",
        "delay_ms": 1_000,
        "signal": 9,
    }
    assert home.phase("digits") is Phase.BACKOFF
    assert plan.wake_at_ms == home.now_ms + 1_000

    assert told(home.cycle(after_ms=999)) == []
    assert told(home.cycle(after_ms=1)) == ["start digits: placed"]
    home.begin("digits")
    home.save("digits", 900)
    plan = home.end("digits", artifacts=["model"])
    assert told(plan) == ["finish digits: succeeded"]
    state = home.state("digits")
    assert state.outcome == "succeeded"
    assert (state.attempts, state.interruptions, state.runs, state.saved_step) == (1, 1, 2, 900)
    assert [item.name for item in state.artifacts] == ["model"]
    assert state.finished_ms == home.now_ms > EPOCH_MS
    assert told(home.cycle()) == []
    assert home.cycles[-1].plan.idle is not None
    assert home.cycles[-1].plan.idle.code is Code.NOTHING_TO_DO


def test_success_without_the_promised_artifact_is_a_failure() -> None:
    """Exit 0 is not enough: what was declared must be there, from this run."""
    home = _training()
    plan = home.end("digits")
    assert told(plan) == ["finish digits: artifact-missing"]
    assert home.facts("digits") == {"artifact": "model", "missing": 1}


def test_a_preempted_job_that_finishes_meanwhile_has_finished() -> None:
    """The program says its work is complete while it is told to end: success, not another run."""
    home = Home(fleet(node("here", cores=2)))
    home.up(job("quick", cores=2, checkpoint=DIGITS.body.checkpoint))
    home.begin("quick")
    home.cycle(after_ms=5_000)
    home.up(URGENT)
    run = home.run("quick")
    assert run.stop == "preempted"
    done = RankExited(run=run.id, rank=0, at_ms=home.now_ms, exit_code=0, completed=True, stop_delivered=True)
    plan = home.cycle(done)
    assert told(plan) == ["finish quick: succeeded", "start urgent: placed"]


def test_merely_obeying_the_stop_is_not_success() -> None:
    """Exit 0 after the stop signal, without saying that the work is complete, is a program that obeyed."""
    home = Home(fleet(node("here", cores=2)))
    home.up(job("quick", cores=2, checkpoint=DIGITS.body.checkpoint))
    home.begin("quick")
    home.cycle(after_ms=5_000)
    home.up(URGENT)
    plan = home.end("quick", code=0)
    assert told(plan)[0] == "requeue quick: retry-preempted"


def test_a_job_that_cannot_resume_is_never_asked_to_yield() -> None:
    """Urgent waits behind a job without checkpoints, and says what it lacks."""
    home = Home(fleet(node("here", cores=2)))
    home.up(job("stubborn", cores=2))
    home.begin("stubborn")
    home.cycle(after_ms=60_000)
    plan = home.up(URGENT)
    assert told(plan) == ["admit urgent: admitted", "hold urgent: no-cores"]


def test_a_job_that_has_just_started_is_protected_for_a_while() -> None:
    """Two seconds of peace for each run, and the plan asks to be woken when they are over."""
    home = Home(fleet(node("here", cores=2)))
    home.up(DIGITS)
    home.begin("digits")
    plan = home.up(URGENT)
    assert told(plan) == ["admit urgent: admitted", "hold urgent: no-cores"]
    assert plan.wake_at_ms == home.run("digits").decided_ms + home.snapshot.policy.preempt_run_ms_min
    plan = home.cycle(after_ms=plan.wake_at_ms - home.now_ms)
    assert told(plan) == ["reserve urgent: waiting-preemption", "stop digits (preempted): preempted"]


def test_who_has_saved_last_yields() -> None:
    """Two jobs ran equally long; the one whose checkpoint is newer has less to lose."""
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(*(job(name, cores=2, checkpoint=DIGITS.body.checkpoint) for name in ("one", "two")))
    home.begin("one")
    home.begin("two")
    home.save("one", 5, after_ms=10_000)
    home.save("two", 5, after_ms=10_000)
    plan = home.up(URGENT)
    assert told(plan)[-1] == "stop two (preempted): preempted"
    assert dict(plan.decisions[-1].reason.facts)["lost_core_ms"] == 1_000 * 2


def test_a_device_weighs_more_than_a_core() -> None:
    """Of two jobs of one age the one that holds an accelerator is spared."""
    home = Home(fleet(node("a", cores=2, devices=["A100"]), node("b", cores=2)))
    home.up(
        job("gpu", cores=2, gpus=(("A100", 1),), checkpoint=DIGITS.body.checkpoint),
        job("cpu", cores=2, checkpoint=DIGITS.body.checkpoint),
    )
    home.begin("gpu")
    home.begin("cpu")
    home.cycle(after_ms=10_000)
    assert told(home.up(URGENT))[-1] == "stop cpu (preempted): preempted"


def test_many_victims_on_one_node_are_taken_cheapest_first_and_no_more_than_needed() -> None:
    """Beyond six on a node the search is greedy: the cheapest go, and whoever is not needed stays."""
    home = Home(fleet(node("big", cores=10, gib=32)))
    names = [f"j{at}" for at in range(8)]
    home.up(job("wide", cores=2, checkpoint=DIGITS.body.checkpoint))
    home.up(*(job(name, checkpoint=DIGITS.body.checkpoint) for name in names))
    for name in ("wide", *names):
        home.begin(name)
    for at, name in enumerate(names):
        home.save(name, 1, after_ms=1_000 + at)
    home.cycle(after_ms=1_000)
    plan = home.up(job("urgent", cores=3, priority=9))
    yielded = [item.workload for item in plan.decisions if "preempted" in item.reason.code]
    assert yielded == ["j5", "j6", "j7"]
