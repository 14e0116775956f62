"""A journal run again by the live engine: under its own policy it is what it was, under others it is not."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.replay.golden.write_golden import GOLDEN
from tests.replay.history_scene import (
    BEGIN_MS,
    SAVE_EVERY_MS,
    Asked,
    Lost,
    Said,
    declared,
    lived,
    node,
    some_jobs,
    some_nodes,
)

from steersman.journal import MemoryJournal, SqliteJournal
from steersman.model.errors import JournalCorrupt, SteersmanError
from steersman.model.events import (
    Event,
    FleetDeclared,
    HomeCreated,
    NodeHealth,
    RemoveRequested,
    ServiceDeclared,
    Signal,
    StopRequested,
)
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.policy import Policy
from steersman.model.resources import Resources
from steersman.model.service import OnnxModel, Scaling, Service
from steersman.model.signals import ARRIVALS, LATENCY, ONGOING
from steersman.ports.journal import Journal
from steersman.sensors.runs import RunSensor
from steersman.sim.replay import history as histories
from steersman.sim.replay import simulate as simulations
from steersman.sim.replay.books import Books
from steersman.sim.replay.history import INSIDE, OUTSIDE, Happening, History, Loss, read_history
from steersman.sim.replay.policies import RECORDED, SIMULATED, Comparison, compare
from steersman.sim.replay.programs import Programs
from steersman.sim.replay.result import silent
from steersman.sim.replay.simulate import Simulated, simulate
from steersman.sim.replay.work import Work
from steersman.sim.storm import storm

PATIENT = Policy(preempt_run_ms_min=3_000)


def read(journal: Journal) -> tuple[History, Books]:
    return read_history(journal.read(), journal.head().position, silent)


def again(journal: Journal, policy: Policy | None = None) -> tuple[Books, Simulated]:
    history, recorded = read(journal)
    return recorded, simulate(history, policy, RunSensor, silent)


def compared(journal: Journal, **policies: Policy) -> Comparison:
    return compare(journal.read(), journal.head().position, list(policies.items()), RunSensor, silent)


def farthest_ms(recorded: Books, simulated: Books) -> int:
    """How far the begin or end of any job is from where it was."""
    assert recorded.jobs.keys() == simulated.jobs.keys()
    far = 0
    for key, job in recorded.jobs.items():
        other = simulated.jobs[key]
        assert (job.outcome, job.declared_ms) == (other.outcome, other.declared_ms), key
        assert job.started_ms is not None, key
        assert other.started_ms is not None, key
        assert job.ended_ms is not None, key
        assert other.ended_ms is not None, key
        far = max(far, abs(job.started_ms - other.started_ms), abs(job.ended_ms - other.ended_ms))
    return far


@pytest.mark.parametrize("seed", range(4))
def test_under_its_own_policy_every_job_begins_and_ends_when_it_did(seed: int) -> None:
    """To the millisecond, where nothing is saved: gangs, devices, failures and back-offs."""
    journal = lived(some_nodes(), some_jobs(seed, 30, fails=((), (), (3,), (3, 4))), policy=PATIENT)
    recorded, found = again(journal)
    assert farthest_ms(recorded, found.books) == 0
    assert (recorded.restarts, found.unfinished) == (found.books.restarts, 0)
    assert recorded.restarts > 5
    assert recorded.amounts.core_ms == pytest.approx(found.books.amounts.core_ms)


@pytest.mark.parametrize("seed", range(3))
def test_with_evictions_and_saves_it_is_as_it_was_but_for_the_saves(seed: int) -> None:
    """What is told later than it was made (saves, where a timer alone decides) may move a little."""
    jobs = some_jobs(seed, 30, saves=(True, True, False), priority=(0, 0, 1, 2))
    recorded, found = again(lived(some_nodes(), jobs, policy=PATIENT))
    assert recorded.evictions == found.books.evictions > 0
    assert farthest_ms(recorded, found.books) <= 50
    assert found.books.lost_core_ms == pytest.approx(recorded.lost_core_ms, rel=0.01)


WRONG: dict[str, Callable[[Work], Work]] = {
    "needs more": lambda work: msgspec.structs.replace(work, needs_ms=(work.needs_ms or 0) + 1_000),
    "begins late": lambda work: msgspec.structs.replace(work, start_ms=300),
    "never fails": lambda work: msgspec.structs.replace(work, faults=()),
    "never saves": lambda work: msgspec.structs.replace(work, save_ms=None),
    "saves slowly": lambda work: msgspec.structs.replace(work, save_ms=None if work.save_ms is None else 500),
    "ends at once when told": lambda work: msgspec.structs.replace(work, stop_ms=0),
    "saves when told": lambda work: msgspec.structs.replace(work, saves_on_stop=work.save_ms is not None),
}


@pytest.mark.parametrize(
    "wrong", [*WRONG, "forgets what was saved", "another policy", "late", "one node less"]
)
def test_a_simulation_that_is_wrong_is_not_as_it_was(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bugs: each moves some begin or end by more than is allowed above."""
    jobs = some_jobs(2, 30, saves=(True, True, False), priority=(0, 0, 1, 2), fails=((), (), (3,)))
    history, recorded = read(lived(some_nodes(), jobs, policy=PATIENT))
    assert farthest_ms(recorded, simulate(history, None, RunSensor, silent).books) <= 50
    policy, happenings = None, history.happenings
    works = dict(history.works)
    if wrong in WRONG:
        works = {key: WRONG[wrong](work) for key, work in works.items()}
    match wrong:
        case "forgets what was saved":
            monkeypatch.setattr(Programs, "_settle", lambda *_: None)
        case "another policy":
            policy = msgspec.structs.replace(PATIENT, preempt_attempts_per_cycle=0)
        case "late":
            happenings = tuple(msgspec.structs.replace(item, at_ms=item.at_ms + 60) for item in happenings)
        case "one node less":
            happenings = tuple(_smaller(item) for item in happenings)
    changed = msgspec.structs.replace(history, works=works, happenings=happenings)
    found = simulate(changed, policy, RunSensor, silent)
    assert found.unfinished or recorded.restarts != found.books.restarts or far(recorded, found.books)


def far(recorded: Books, simulated: Books) -> bool:
    """More than is allowed above, or not to be compared at all."""
    try:
        return farthest_ms(recorded, simulated) > 50
    except AssertionError:
        return True


def _smaller(item: Happening) -> Happening:
    if not isinstance(item.what, FleetDeclared):
        return item
    fleet = msgspec.structs.replace(item.what.fleet, nodes=item.what.fleet.nodes[:1])
    return msgspec.structs.replace(item, what=FleetDeclared(fleet=fleet))


def test_another_policy_makes_something_else_of_it() -> None:
    jobs = some_jobs(0, 30, saves=(True,), priority=(0, 0, 1, 2))
    journal = lived(some_nodes(), jobs, policy=PATIENT)
    found = compared(journal, never=Policy(preempt_attempts_per_cycle=0), hasty=Policy(preempt_run_ms_min=0))
    names = [column.name for column in found.columns]
    assert names == [RECORDED, SIMULATED, "never", "hasty"]
    before, own, never, hasty = (column.metrics for column in found.columns)
    assert [column.policy for column in found.columns[:2]] == [None, PATIENT]
    assert (never["evictions"], never["lost_core_h"]) == (0, 0)
    assert own["evictions"] == before["evictions"] != hasty["evictions"]
    assert own["jobs_ended"] == never["jobs_ended"] == hasty["jobs_ended"] == 30
    assert own["wait_s_mean"] == pytest.approx(before["wait_s_mean"], abs=0.05)
    assert own["cost_usd"] == pytest.approx(before["cost_usd"], rel=0.001)
    assert never["wait_s_mean"] != own["wait_s_mean"]
    assert all(0 < column.metrics["core_utilisation"] <= 1 for column in found.columns)  # type: ignore[operator]  # no figure of this history is unknown


def test_the_figures_of_a_history_that_can_be_counted_by_hand() -> None:
    """Two jobs of 60 s and 30 s on a node that holds one: the second waits 50 s."""
    jobs = [
        Asked(name="a", at_ms=10_000, run_ms=60_000, cpu_milli=1_000, gpus=1),
        Asked(name="b", at_ms=20_000, run_ms=30_000, cpu_milli=1_000, gpus=1),
    ]
    found = compared(lived([node(0, 2_000, 1, price=3_600_000)], jobs))
    for column in found.columns:
        metrics = column.metrics
        assert metrics["jobs_ended"] == 2
        assert metrics["wait_s_mean"] == pytest.approx(25, abs=0.02)
        assert metrics["wait_s_p50"] == pytest.approx(25, abs=0.02)
        assert metrics["wait_s_p99"] == pytest.approx(49.5, abs=0.02)
        assert metrics["completion_s_mean"] == pytest.approx((60 + 80) / 2, abs=0.02)
        assert metrics["slowdown_p99"] == pytest.approx(1 + 0.99 * (80 / 30 - 1), abs=0.01)
        assert metrics["makespan_s"] == pytest.approx(90, abs=0.02)
        assert metrics["core_utilisation"] == pytest.approx(0.5, abs=0.01)
        assert metrics["device_utilisation"] == pytest.approx(1, abs=0.01)
        assert metrics["cost_usd"] == pytest.approx(0.09, abs=0.001)
        assert (metrics["evictions"], metrics["restarts"], metrics["lost_core_h"]) == (0, 0, 0)


def test_lost_work_is_what_was_done_after_the_last_save() -> None:
    """A job that saves every 10 s is pushed aside after 34 s, and goes on from 30 s."""
    jobs = [
        Asked(name="low", at_ms=10, run_ms=100_000, cpu_milli=2_000, saves=True),
        Asked(name="high", at_ms=34_010, run_ms=20_000, cpu_milli=2_000, priority=5),
    ]
    recorded, found = again(lived([node(0, 2_000)], jobs))
    assert (recorded.evictions, found.books.evictions) == (1, 1)
    for books in (recorded, found.books):  # 4 s and the half second in which it ends
        assert books.lost_core_ms == pytest.approx(2_000 * 4_500, rel=0.01)
    assert farthest_ms(recorded, found.books) <= SAVE_EVERY_MS // 1_000 + 10


def test_a_node_that_has_no_price_makes_the_cost_unknown() -> None:
    jobs = [Asked(name="a", at_ms=10, run_ms=1_000)]
    for column in compared(lived([node(0, 2_000)], jobs)).columns:
        assert column.metrics["cost_usd"] is None


def test_what_the_end_cuts_off_is_given_what_was_seen_and_not_counted() -> None:
    jobs = [
        Asked(name="done", at_ms=10, run_ms=5_000),
        Asked(name="runs", at_ms=10, run_ms=900_000),
        Asked(name="waits", at_ms=20_000, run_ms=1_000, cpu_milli=2_000),
    ]
    journal = lived([node(0, 2_000)], jobs, until_ms=60_000)
    history, _ = read(journal)
    works = {str(name): work for (name, _), work in history.works.items()}
    assert {name: work.fate for name, work in works.items()} == {
        "done": "succeeded",
        "runs": "running",
        "waits": "waiting",
    }
    assert works["waits"].needs_ms == works["done"].needs_ms == 5_000, "the median of those that succeeded"
    seen_ms = works["runs"].needs_ms
    assert seen_ms is not None
    assert 15_000 < seen_ms < 60_000
    found = compared(journal)
    assert found.jobs == 1
    assert sum(found.dropped.values()) == 2
    assert [column.metrics["jobs_ended"] for column in found.columns] == [1, 1]


def test_a_stop_of_a_running_job_comes_when_it_came() -> None:
    jobs = [
        Asked(name="a", at_ms=10, run_ms=900_000),
        Asked(name="b", at_ms=20, run_ms=9_000, cpu_milli=2_000),
    ]
    journal = lived([node(0, 2_000)], jobs, events=[(30_000, StopRequested(workload=WorkloadName("a")))])
    recorded, found = again(journal)
    assert farthest_ms(recorded, found.books) == 0
    assert recorded.jobs[WorkloadName("a"), 0].outcome == "stopped"


def test_what_was_said_of_a_job_that_had_ended_waits_for_its_end() -> None:
    """Under a policy that is slower, the removal and the second declaration come later too."""
    jobs = [
        Asked(name="a", at_ms=10, run_ms=40_000, saves=True),
        Asked(name="b", at_ms=5_000, run_ms=40_000, priority=3),
    ]
    done = WorkloadName("b")
    events: list[tuple[int, Said]] = [
        (50_000, declared(msgspec.structs.replace(jobs[1], at_ms=50_000))),
        (51_000, StopRequested(workload=done)),
        (200_000, RemoveRequested(workload=done)),
    ]
    journal = lived([node(0, 1_000)], jobs, events=events)
    history, recorded = read(journal)
    marked = [item.after_end for item in history.happenings if item.subject == done]
    assert marked == [False, True, False, True]
    slow = simulate(history, Policy(preempt_attempts_per_cycle=0), RunSensor, silent)
    assert slow.unfinished == 0
    first, second = slow.books.jobs[done, 0], slow.books.jobs[done, 1]
    assert first.ended_ms is not None
    assert first.ended_ms - BEGIN_MS == pytest.approx(80_010, abs=50)
    assert second.declared_ms >= first.ended_ms
    assert (first.outcome, second.outcome) == ("succeeded", "stopped")
    assert recorded.jobs[done, 1].outcome == "stopped"


def test_a_dead_node_dies_again_and_its_jobs_go_on_elsewhere() -> None:
    jobs = [Asked(name="a", at_ms=10, run_ms=60_000, cpu_milli=2_000, saves=True)]
    events: list[tuple[int, Said]] = [(25_000, NodeHealth(node=NodeId("node-0"), health="dead"))]
    journal = lived([node(0, 2_000), node(1, 2_000)], jobs, events=events)
    recorded, found = again(journal)
    assert recorded.restarts == found.books.restarts == 1
    assert recorded.lost_core_ms == pytest.approx(found.books.lost_core_ms, rel=0.01)
    assert farthest_ms(recorded, found.books) <= 20


def test_a_lost_process_is_lost_again_where_it_was() -> None:
    jobs = [Asked(name="a", at_ms=10, run_ms=60_000, cpu_milli=2_000, saves=True)]
    journal = lived([node(0, 2_000)], jobs, events=[(25_000, Lost(workload="a"))])
    recorded, found = again(journal)
    assert recorded.restarts == found.books.restarts == 1
    assert farthest_ms(recorded, found.books) <= 20
    assert found.unmet == 0
    history, _ = read(journal)
    elsewhere = msgspec.structs.replace(
        history,
        happenings=tuple(
            msgspec.structs.replace(item, what=msgspec.structs.replace(item.what, node=NodeId("gone")))
            if isinstance(item.what, Loss)
            else item
            for item in history.happenings
        ),
    )
    found = simulate(elsewhere, None, RunSensor, silent)
    assert (found.unmet, found.books.restarts) == (1, 0)


def test_services_are_sized_by_the_load_that_was_recorded() -> None:
    """Replicas take cores and time to load, and the objective is judged in the record alone."""
    service = Service(
        name=WorkloadName("web"),
        model=OnnxModel(path="/m", digest="sha256:1"),
        resources=Resources(cpu_milli=500),
        scaling=Scaling(min_replicas=1, max_replicas=3, latency_p99_ms=500, downscale_delay_ms=5_000),
        slo_latency_p99_ms=100,
    )
    events: list[tuple[int, Said]] = [(1_000, ServiceDeclared(service=service, digest="1"))]
    for at_ms, ongoing, latency_us in (
        (30_000, 5_500, 50_000),
        (60_000, 5_500, 150_000),
        (90_000, 500, 50_000),
    ):
        for name, value in ((ONGOING, ongoing), (ARRIVALS, 1_000), (LATENCY, latency_us)):
            events.append((at_ms, Signal(name=name, subject="web", value=value)))
    journal = lived([node(0, 4_000, price=1_000_000)], [], events=events, until_ms=180_000)
    found = compared(journal, other=Policy(backoff_ms_base=1))
    before, own, other = (column.metrics for column in found.columns)
    short = before["service_short_share"]
    assert isinstance(short, float)
    assert 0.02 < short < 0.1, "two replicas and the first, each until it answers"
    assert own["service_short_share"] == pytest.approx(short, abs=0.01)
    assert before["slo_missed_share"] == pytest.approx(30 / 70, abs=0.03), "until the journal ends"
    assert (own["slo_missed_share"], other["slo_missed_share"]) == (None, None)
    assert own["core_utilisation"] == pytest.approx(before["core_utilisation"], rel=0.02)
    assert own["cost_usd"] == pytest.approx(before["cost_usd"], rel=0.02)
    most = [max(rate for _, rate in column.cores) for column in found.columns]
    assert most == pytest.approx([most[0]] * 3)


@pytest.mark.parametrize("seed", range(8))
def test_any_storm_can_be_replayed(seed: int) -> None:
    """With faults, services and control planes that died: it comes to an end, and says what it left out."""
    journal = MemoryJournal()
    storm(seed, journal, RunSensor)
    found = compared(journal, other=Policy(starts_per_cycle=1))
    assert len(found.columns) == 3
    assert found.dropped or seed == 7, "the one storm without anything that is left out"
    assert all(column.metrics["jobs_ended"] is not None for column in found.columns)


def test_every_event_either_comes_from_outside_or_follows() -> None:
    assert {*OUTSIDE, *INSIDE} == set(Event.__args__)
    assert not {*OUTSIDE} & {*INSIDE}


def test_a_journal_without_events_is_refused() -> None:
    with pytest.raises(JournalCorrupt) as refused:
        read_history((), 0, silent)
    assert refused.value.hint
    journal = MemoryJournal()
    journal.append([HomeCreated(home_id="x")], BEGIN_MS)
    columns = compared(journal).columns
    assert [column.metrics["jobs_ended"] for column in columns] == [0, 0]
    assert [column.metrics["wait_s_mean"] for column in columns] == [None, None]


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "TELL_EVERY", 10)
    monkeypatch.setattr(simulations, "TELL_EVERY", 2)
    told: list[float] = []
    journal = lived(some_nodes(), some_jobs(1, 6))
    compare(
        journal.read(), journal.head().position, [("x", Policy())], RunSensor, lambda at, _: told.append(at)
    )
    assert told == sorted(told)
    assert 0 < told[0] < 0.34
    assert 0.67 < told[-1] <= 1


def test_a_journal_that_is_no_history_is_refused_with_the_event(tmp_path: Path) -> None:
    """Goldens hold every kind of event, in an order in which nothing could happen."""
    for golden in sorted(path.parent for path in GOLDEN.glob("v*/expected.json")):
        home = tmp_path / golden.name
        shutil.copytree(golden, home)
        with contextlib.closing(SqliteJournal.open_reader(home)) as reader:
            records, total = list(reader.read()), reader.head().position
        with pytest.raises(JournalCorrupt, match=r"event \d+ of the journal") as refused:
            read_history(records, total, silent)
        assert refused.value.hint


def test_a_simulated_engine_that_fails_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = lived([node(0, 2_000)], [Asked(name="a", at_ms=10, run_ms=1_000)])
    history, _ = read(journal)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Books, "_lease", broken)
    with pytest.raises(SteersmanError, match="the simulated engine failed"):
        simulate(history, None, RunSensor, silent)


def test_it_is_the_same_under_another_hash_seed(tmp_path: Path) -> None:
    """Through the command itself, picture included."""
    home = tmp_path / "home"
    jobs = some_jobs(5, 20, saves=(True, False), priority=(0, 1), fails=((), (3,)))
    journal = SqliteJournal.open(home)
    lived(some_nodes(), jobs, policy=PATIENT, journal=journal)
    journal.close()
    policy = tmp_path / "never.yaml"
    policy.write_text("preempt_attempts_per_cycle: 0\n")
    seen = set()
    for seed in ("1", "4711"):
        picture = tmp_path / f"{seed}.html"
        command = [sys.executable, "-m", "steersman.app.cli", "replay", "--journal", str(home / "journal.db")]
        command += ["--policy", str(policy), "--json", "--html", str(picture)]
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(msgspec.json.decode(done.stdout, type=Comparison).columns) == 3
        seen.add((done.stdout, picture.read_text()))
    assert len(seen) == 1
