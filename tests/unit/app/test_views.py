"""What people and programs see of a snapshot: rows, what is settled, metrics."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from tests.unit.app.worlds import began, declared, ended, folded, run_of, settle

from steersman.app import metrics, views
from steersman.engine.stats import Tally
from steersman.model.events import NodeHealth, StopRequested
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.snapshot import Snapshot

A = "name: a\nrun: echo\n"
MAKER = "name: maker\nrun: echo\nartifacts: {model: m.bin}\nresources: {cpus: 99}\n"
USER = "name: user\nrun: echo\ninputs: {m: maker/model}\nartifacts: {model: m.bin}\n"


def _settled(snapshot: Snapshot, name: str) -> bool:
    return views.settled(snapshot, snapshot.workloads[name])


@pytest.mark.parametrize("exit_code", [0, 1])
def test_what_ended_is_settled_and_what_runs_is_not(exit_code: int) -> None:
    snapshot = declared(A)
    assert not _settled(snapshot, "a")
    snapshot = settle(snapshot, [began(snapshot, "a")])
    assert not _settled(snapshot, "a")
    assert _settled(ended(declared(A), "a", exit_code), "a")


def test_what_only_a_person_can_change_is_settled() -> None:
    snapshot = declared(MAKER, USER, USER.replace("user", "user2").replace("maker/", "user/"))
    assert [name for name, _ in snapshot.workloads.sorted_items() if _settled(snapshot, name)] == [
        "maker",
        "user",
        "user2",
    ]
    asked = folded(snapshot, [StopRequested(workload=WorkloadName("maker"))])
    assert not _settled(asked, "maker")
    assert not _settled(asked, "user")


def test_what_waits_for_something_under_way_is_not() -> None:
    snapshot = declared(MAKER.replace("99", "1"), USER)
    assert not _settled(snapshot, "user")
    blocked = declared(A.replace("echo", "echo\nresources: {cpus: 4}"), A.replace("name: a", "name: b"))
    assert blocked.workloads["b"].run is None
    assert not _settled(blocked, "b")


def test_a_row_tells_what_is_known() -> None:
    snapshot = declared(A + "priority: 7\nresources: {cpus: 2, memory: 1GB}\n")
    snapshot = settle(snapshot, [began(snapshot, "a")])
    given: Mapping[str, float] = {"step": 3.0, "total_steps": 9.0, "loss": 0.5, "other": 1.0}
    row = views.row(snapshot, snapshot.workloads["a"], lambda _: given)
    assert (row.phase, row.run_state, row.nodes, row.priority) == ("active", "running", ("n1",), 7)
    assert (row.cpu_milli, row.memory_bytes, row.num_nodes) == (2_000, 2**30, 1)
    assert (row.step, row.steps_total, row.loss, row.samples_per_second) == (3.0, 9.0, 0.5, None)
    assert row.reason
    assert row.code == "placed"
    last = ended(declared(A), "a", 2)
    row = views.row(last, last.workloads["a"], views.no_progress)
    assert (row.phase, row.run_state, row.step) == ("failed", "ended", None)
    whole = views.workload(last, last.workloads["a"], views.no_progress, Path)
    assert whole.run is None
    assert whole.last_run is not None
    assert (whole.last_run.ranks[0].state, whole.last_run.ranks[0].exit_code) == ("ended", 2)


def test_the_status_is_sorted_and_counts_what_is_leased() -> None:
    snapshot = declared(A, A.replace("name: a", "name: 0"), A.replace("name: a", "name: z"))
    status = views.status(snapshot, Tally().stats(0, 0), views.no_progress)
    assert [row.name for row in status.workloads] == ["0", "a", "z"]
    (node,) = status.nodes
    assert (node.cpu_milli, node.cpu_milli_used, node.health) == (4_000, 3_000, "alive")


def _samples(families: list[Metric]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value for each in families for sample in each.samples
    }


def test_metrics_count_everything_and_invent_nothing() -> None:
    snapshot = declared(A, A.replace("name: a", "name: b"), MAKER)
    snapshot = settle(snapshot, [began(snapshot, "a")])
    snapshot = folded(snapshot, [NodeHealth(node=NodeId("n1"), health="unknown")])
    found = _samples(list(metrics.of_snapshot(snapshot)))
    assert found["steersman_runs", "running"] == found["steersman_runs", "starting"] == 1
    assert found["steersman_runs", "ended"] == 0
    assert found["steersman_workloads", "active"] == 2
    assert found["steersman_workloads", "declared"] == 1
    assert found["steersman_workloads", "failed"] == 0
    assert found["steersman_nodes", "unknown"] == 1
    runs = {run_of(snapshot, "a"): {"step": 4.0, "loss": 0.25}}

    def progress(run: RunId) -> Mapping[str, float]:
        return runs.get(run, {})

    jobs = _samples(list(metrics.of_jobs(snapshot, progress)))
    assert jobs == {
        ("steersman_job_step", "a", run_of(snapshot, "a")): 4.0,
        ("steersman_job_loss", "a", run_of(snapshot, "a")): 0.25,
    }


def test_metrics_are_text_that_prometheus_reads() -> None:
    snapshot = declared(A)

    class Everything(Collector):
        def collect(self) -> list[Metric]:
            return [
                *metrics.of_snapshot(snapshot),
                *metrics.of_jobs(snapshot, lambda _: {"step": 1.0, "samples_per_s": 2.5}),
                *metrics.of_engine(Tally().stats(3, 9), snapshot),
            ]

    text = metrics.Exposition(Everything()).text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["steersman_journal_lag_events"].samples[0].value == 3
    assert families["steersman_job_samples_per_second"].samples[0].labels["workload"] == "a"
    for name in (
        "steersman_cycles",
        "steersman_cycle_seconds",
        "steersman_cycle_cpu_seconds",
        "steersman_decisions",
        "steersman_journal_position",
        "steersman_healthy",
        "process_resident_memory_bytes",
    ):
        assert name in families
    assert all(family.documentation.endswith(".") for family in families.values())
