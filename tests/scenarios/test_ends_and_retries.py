"""How runs end and what becomes of the workload: exit codes, retries, crash loops, durations, stop, down."""

import pytest
from tests.scenarios.home import RESUMABLE, Home, declared, fleet, job, node, told

from steersman.model.events import PolicySet, RankExited
from steersman.model.policy import Policy
from steersman.model.snapshot import Phase, RunState
from steersman.model.workload import Retry

ANY = Retry(on_events=("error", "interruption"), attempts_max=20)


def _running(**keys) -> Home:  # type: ignore[no-untyped-def]  # the keys of `job`
    home = Home(fleet(node("here")))
    home.up(job("work", **keys))
    home.begin("work")
    return home


@pytest.mark.parametrize(
    ("code", "signal", "says"),
    [
        (0, None, "finish work: succeeded"),
        (1, None, "finish work: event-not-retried"),
        (137, None, "requeue work: retry-backoff"),
        (143, None, "requeue work: retry-backoff"),
        (139, None, "finish work: event-not-retried"),
        (75, None, "requeue work: retry-backoff"),
        (None, 9, "requeue work: retry-backoff"),
        (None, 15, "requeue work: retry-backoff"),
    ],
)
def test_by_default_interruptions_are_retried_and_errors_are_not(
    code: int | None, signal: int | None, says: str
) -> None:
    """An exit code is the program's own word, unless a shell passes on SIGKILL or SIGTERM with it; a signal
    nobody here sent is the machine's doing."""
    home = _running()
    assert told(home.end("work", code=code, signal=signal)) == [says]


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        ("lost", "requeue work: retry-backoff"),
        ("memory", "finish work: event-not-retried"),
        ("start-failed", "finish work: event-not-retried"),
        ("setup-failed", "finish work: event-not-retried"),
    ],
)
def test_causes(cause: str, says: str) -> None:
    """A lost record is an interruption; memory, start and setup are errors."""
    home = _running()
    lost = RankExited(run=home.run("work").id, rank=0, at_ms=home.now_ms, cause=cause)  # type: ignore[arg-type]  # one of the causes
    assert told(home.cycle(lost)) == [says]


def test_exit_codes_listed_as_fatal_end_the_job_whatever_else_is_said() -> None:
    home = _running(retry=Retry(on_events=("error",), exit_codes_fatal=(3,)))
    assert told(home.end("work", code=3)) == ["finish work: exit-fatal"]
    assert home.facts("work") == {"cause": "exited", "exit_code": 3}


def test_exit_codes_listed_for_retry_are_retried_though_errors_are_not() -> None:
    home = _running(retry=Retry(on_events=(), exit_codes_retry=(4,)))
    assert told(home.end("work", code=4)) == ["requeue work: retry-backoff"]
    home.cycle(after_ms=1_000)
    home.begin("work")
    assert told(home.end("work", code=5)) == ["finish work: event-not-retried"]
    assert home.facts("work") == {"cause": "exited", "event": "error", "exit_code": 5}


def test_back_off_doubles_up_to_its_cap_and_tries_are_counted() -> None:
    """1, 2, 4, 8, 8 … seconds, and the last permitted try is the last."""
    home = Home(fleet(node("here")), PolicySet(policy=Policy(backoff_ms_max=8_000, crash_loop_failures=99)))
    home.up(job("work", retry=Retry(on_events=("error",), attempts_max=6)))
    delays = []
    for _ in range(5):
        home.begin("work")
        plan = home.end("work", code=1)
        delays.append(dict(plan.decisions[0].reason.facts)["delay_ms"])
        assert plan.wake_at_ms is not None
        home.cycle(after_ms=plan.wake_at_ms - home.now_ms)
    assert delays == [1_000, 2_000, 4_000, 8_000, 8_000]
    home.begin("work")
    assert told(home.end("work", code=1)) == ["finish work: attempts-exhausted"]
    assert home.facts("work")["attempts"] == 6


def test_progress_starts_the_back_off_anew() -> None:
    """A run that saved something was no failure in a row: the wait is short again."""
    home = _running(retry=ANY, checkpoint=RESUMABLE)
    for _ in range(3):
        home.end("work", code=1)
        home.cycle(after_ms=60_000)
        home.begin("work")
    home.save("work", 10)
    plan = home.end("work", code=1)
    assert dict(plan.decisions[0].reason.facts)["delay_ms"] == 1_000
    assert (home.state("work").failures, home.state("work").attempts) == (1, 4)


def test_crash_loop() -> None:
    """Five failures in a row, each within ten seconds of its start, end the job."""
    home = _running(retry=ANY)
    for _ in range(4):
        assert told(home.end("work", code=1)) == ["requeue work: retry-backoff"]
        home.cycle(after_ms=60_000)
        home.begin("work")
    assert told(home.end("work", code=1, after_ms=9_999)) == ["finish work: crash-loop"]
    assert home.facts("work") == {"cause": "exited", "exit_code": 1, "failures": 5}


def test_failures_after_long_runs_are_no_crash_loop() -> None:
    """Only tries that ended at once count towards the loop; a long one starts the count anew."""
    home = _running(retry=ANY)
    for after_ms in (1_000, 1_000, 1_000, 1_000, 60_000, 1_000, 1_000, 1_000, 1_000):
        plan = home.end("work", code=1, after_ms=after_ms)
        if after_ms == 10_000:
            break
        assert told(plan) == ["requeue work: retry-backoff"]
        home.cycle(after_ms=600_000)
        home.begin("work")
    assert told(home.end("work", code=1)) == ["finish work: crash-loop"]


def test_a_run_that_never_began_counts_as_short() -> None:
    home = Home(fleet(node("here")), PolicySet(policy=Policy(crash_loop_failures=1)))
    home.up(job("work", retry=ANY))
    failed = RankExited(run=home.run("work").id, rank=0, at_ms=home.now_ms, cause="start-failed")
    assert told(home.cycle(failed)) == ["finish work: crash-loop"]


def test_retry_duration() -> None:
    """Tries go on for so long after the first failure, then no more."""
    home = _running(retry=Retry(on_events=("error",), attempts_max=20, duration_ms_max=10_000))
    assert told(home.end("work", code=1)) == ["requeue work: retry-backoff"]
    home.cycle(after_ms=9_000)
    home.begin("work")
    assert told(home.end("work", code=1)) == ["requeue work: retry-backoff"]
    home.cycle(after_ms=4_000)
    home.begin("work")
    assert told(home.end("work", code=1)) == ["finish work: retry-time-exhausted"]
    assert home.facts("work")["tried_ms"] == 15_000


def test_max_duration_ends_the_run_at_its_time() -> None:
    """The plan asks to be woken then; the stop is a failure unless the work was complete."""
    home = _running(max_duration_ms=30_000)
    plan = home.cycle(after_ms=29_999)
    assert told(plan) == []
    assert plan.wake_at_ms == home.now_ms + 1
    plan = home.cycle(after_ms=1)
    assert told(plan) == ["stop work (duration-exceeded): duration-exceeded"]
    assert home.run("work").stop_ms == home.now_ms
    plan = home.end("work", code=None, signal=15)
    assert told(plan) == ["finish work: duration-exceeded"]
    assert home.facts("work") == {"max_duration_ms": 30_000}
    assert home.state("work").outcome == "failed"


def test_a_longer_max_duration_declared_in_time_saves_the_run() -> None:
    """Declared in the very batch in which the old limit passes, the new limit holds."""
    home = _running(max_duration_ms=30_000)
    plan = home.cycle(declared(job("work", max_duration_ms=90_000), restarts=False), after_ms=30_000)
    assert told(plan) == []
    assert plan.wake_at_ms == home.now_ms + 60_000


def test_stop_while_running_keeps_the_declaration() -> None:
    home = _running()
    assert told(home.stop("work")) == ["stop work (stop-requested): stop-requested"]
    assert told(home.stop("work")) == []
    assert told(home.end("work", code=0)) == ["finish work: stopped"]
    assert (home.phase("work"), home.state("work").outcome) == (Phase.STOPPED, "stopped")
    assert told(home.stop("work")) == [], "it has ended"
    assert told(home.up(job("work"))) == ["admit work: admitted", "start work: placed"]


def test_stop_that_comes_too_late_does_not_undo_success() -> None:
    home = _running()
    home.stop("work")
    run = home.run("work")
    ended = RankExited(run=run.id, rank=0, at_ms=home.now_ms, exit_code=0)
    assert told(home.cycle(ended)) == ["finish work: succeeded"]


def test_stop_in_every_other_phase() -> None:
    """Queued, held and waiting for its next try, a workload stops at once."""
    home = Home(fleet(node("here")))
    home.up(job("first", cores=2), job("queued", cores=2), job("held", cores=9))
    assert (home.phase("queued"), home.phase("held")) == (Phase.QUEUED, Phase.DECLARED)
    assert told(home.stop("queued")) == ["finish queued: stopped"]
    assert told(home.stop("held")) == ["finish held: stopped"]
    home.begin("first")
    home.end("first", signal=9)
    assert home.phase("first") is Phase.BACKOFF
    assert told(home.stop("first")) == ["finish first: stopped"]


def test_down_in_every_phase_forgets() -> None:
    home = Home(fleet(node("here")))
    home.up(job("first", cores=2), job("queued", cores=2), job("held", cores=9))
    for name in ("queued", "held"):
        assert told(home.down(name)) == [f"forget {name}: removed"]
        assert name not in home.snapshot.workloads
    home.begin("first")
    assert told(home.down("first")) == ["stop first (removed): removed"]
    assert told(home.end("first", code=0)) == ["forget first: removed"]
    assert len(home.snapshot.workloads) == len(home.snapshot.runs) == 0
    home.up(job("again"))
    home.begin("again")
    home.end("again", signal=9)
    assert told(home.down("again")) == ["forget again: removed"]
    home.up(job("done"))
    home.begin("done")
    home.end("done")
    assert told(home.down("done")) == ["forget done: removed"]
    assert told(home.down("done")) == []


def test_declared_again_while_it_goes_down_it_starts_anew() -> None:
    home = _running()
    home.down("work")
    assert told(home.up(job("work"))) == []
    assert told(home.end("work", code=0)) == [
        "requeue work: spec-changed",
        "admit work: admitted",
        "start work: placed",
    ]


def test_a_change_that_needs_a_new_run_ends_the_old_one_uncounted() -> None:
    home = _running(retry=ANY, checkpoint=RESUMABLE)
    home.end("work", code=1)
    home.cycle(after_ms=60_000)
    home.begin("work")
    home.save("work", 500)
    plan = home.up(job("work", cores=2, retry=ANY, checkpoint=RESUMABLE))
    assert told(plan) == ["stop work (spec-changed): spec-changed"]
    assert home.run("work").state is RunState.STOPPING
    plan = home.end("work", code=75)
    assert told(plan) == ["requeue work: spec-changed", "admit work: admitted", "start work: placed"]
    state = home.state("work")
    assert (state.attempts, state.failures, state.first_failed_ms) == (0, 0, None)
    assert home.run("work").saved_step == 500, "what was saved is kept over a change"
    assert home.run("work").ranks[0].placement.cpu_milli == 2_000


def test_saved_progress_is_kept_over_stops_and_failures_until_success_or_removal() -> None:
    """`stop` and `up` again, or a mended declaration after a failure, go on where the last save was."""
    home = _running(checkpoint=RESUMABLE)
    lineage = home.state("work").lineage
    home.save("work", 500)
    home.stop("work")
    home.end("work", code=75)
    home.up(job("work", checkpoint=RESUMABLE))
    home.begin("work")
    assert (home.state("work").lineage, home.run("work").saved_step) == (lineage, 500)
    home.end("work", code=1)
    assert home.phase("work") is Phase.FAILED
    assert (home.state("work").attempts, home.state("work").failures) == (1, 1)
    home.up(job("work", cores=2, checkpoint=RESUMABLE))
    home.begin("work")
    assert (home.state("work").lineage, home.run("work").saved_step) == (lineage, 500)
    home.end("work")
    assert home.phase("work") is Phase.SUCCEEDED
    home.up(job("work", checkpoint=RESUMABLE))
    home.begin("work")
    assert home.state("work").lineage > lineage
    assert home.run("work").saved_step is None, "a job that is done begins anew"


def test_saved_progress_is_let_go_of_when_it_was_taken_down_or_done_meanwhile() -> None:
    home = _running(checkpoint=RESUMABLE)
    home.save("work", 500)
    home.down("work")
    home.up(job("work", checkpoint=RESUMABLE))
    home.end("work", code=75)
    home.begin("work")
    assert home.run("work").saved_step is None, "it was taken down before it was declared again"
    home.save("work", 700)
    home.up(job("work", cores=2, checkpoint=RESUMABLE))
    home.end("work", code=0, completed=True)
    home.begin("work")
    assert home.state("work").lineage == home.state("work").generation
    assert home.run("work").saved_step is None, "the old program was done before it could be stopped"


def test_a_change_in_place_of_what_succeeded_does_not_make_it_again() -> None:
    home = _running()
    home.end("work")
    home.up(job("work", priority=7), restarts=False)
    assert home.phase("work") is Phase.SUCCEEDED
    assert home.state("work").spec.priority == 7


def test_after_a_restarting_change_the_time_for_retries_starts_anew() -> None:
    """What failed under the old declaration is no clock for the new one."""
    retry = Retry(on_events=("error",), attempts_max=20, duration_ms_max=10_000)
    home = _running(retry=retry)
    home.end("work", code=1)
    home.cycle(after_ms=60_000)
    home.begin("work")
    home.up(job("work", cores=2, retry=retry))
    home.end("work", code=75)
    home.begin("work")
    assert told(home.end("work", code=1)) == ["requeue work: retry-backoff"]


def test_a_change_in_place_leaves_the_run_alone() -> None:
    home = _running()
    before = home.run("work")
    assert told(home.up(job("work", priority=50), restarts=False)) == []
    assert home.run("work") == before
    assert home.state("work").spec.priority == 50
    assert home.state("work").generation == before.generation


def test_a_queued_job_changed_in_place_keeps_its_place() -> None:
    home = Home(fleet(node("here")))
    home.up(job("first", cores=2), job("second", cores=2), job("third", cores=2))
    home.up(job("second", cores=2, retry=ANY), restarts=False)
    home.begin("first")
    assert told(home.end("first"))[:2] == ["finish first: succeeded", "start second: placed"]
