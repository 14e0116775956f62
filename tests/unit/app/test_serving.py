"""Services as people and programs see them: the word, the figures, when waiting for them ends."""

import pytest
from msgspec.structs import replace
from prometheus_client.core import Metric
from tests.scenarios.home import fleet, job, node
from tests.unit.app.test_views import _samples
from tests.unit.explain.served import Served, service

from steersman.app import metrics, serving, views
from steersman.app.cli import table
from steersman.app.cli.up import _failed
from steersman.app.wire import ServiceRow
from steersman.engine.stats import Tally
from steersman.model.events import (
    RankExited,
    RankReady,
    RankStarted,
    RemoveRequested,
    ServiceDeclared,
    StopRequested,
)
from steersman.model.ids import WorkloadName
from steersman.model.service import GATEWAY_NAME, ArtifactRef, OnnxModel, Scaling
from steersman.model.sketch import bucket
from steersman.ports.gateway import GatewayAddress, GatewayStats, ModelStats
from steersman.sensors.figures import Figures

ADDRESS = GatewayAddress(address="127.0.0.1", port=8123, tls=False, pid=1)
DIGITS = WorkloadName("digits")
SCALED = Scaling(min_replicas=0, max_replicas=3, initial_replicas=1)


def row(home: Served, live: serving.Live | None = None) -> ServiceRow:
    found = serving.Live(Figures(), ADDRESS) if live is None else live
    return serving.row(home.snapshot, home.service(), found)


def up(spec: object = None) -> Served:
    home = Served()
    home.serve(service() if spec is None else spec)  # type: ignore[arg-type]  # a declaration when one is given
    home.bring_up()
    return home


def looked(home: Served) -> Figures:
    """Ten seconds of traffic: 60 answers in 20 ms, 5 that timed out, 5 of the callers' making, 2 waiting."""
    figures = Figures()
    for second in (0, 10):
        models = (
            ModelStats(service="digits", revision=0, outcomes={"invalid": second // 2}, ongoing=2, queued=2),
            ModelStats(
                service="digits",
                revision=1,
                outcomes={"ok": second * 6, "timeout": second // 2},
                rows=second * 12,
                batches=second * 3,
                replica_cpu_us=second * 6_000,
                latency_us={bucket(20_000): second * 6},
                waited_us={bucket(5_000): second * 6},
                model_us={bucket(10_000): second * 6},
            ),
        )
        stats = GatewayStats(
            process=0,
            pid=1,
            started_ms=0,
            at_ms=home.now_ms + second * 1_000,
            cpu_us=second * 7_000,
            connections=1,
            config_position=home.snapshot.position,
            models=models,
        )
        figures.note((stats,), {"digits"})
    return figures


# The word, and when waiting ends.


def test_from_declared_to_serving() -> None:
    home = Served()
    home.fold(ServiceDeclared(service=service(), digest=""))
    assert not row(home).settled
    home.settle()
    found = row(home)
    assert (found.phase, found.settled, found.ready, found.target) == ("starting", False, 0, 1)
    home.bring_up()
    found = row(home)
    assert (found.phase, found.settled, found.ready, found.target) == ("serving", True, 1, 1)
    assert (found.revision, found.rolling, found.url) == (1, None, "http://127.0.0.1:8123/predict/digits")


def test_nobody_is_told_to_go_ahead_before_the_gateway_listens() -> None:
    home = up()
    found = row(home, serving.Live(Figures(), None))
    assert (found.phase, found.settled, found.url) == ("starting", False, "")
    for _ in range(serving.GATEWAY_TRIES_MAX):
        run = home.run(GATEWAY_NAME)
        begun = [] if run.started_ms else [RankStarted(run=run.id, rank=0, pid=1, at_ms=home.now_ms)]
        home.cycle(*begun, RankExited(run=run.id, rank=0, at_ms=home.now_ms, exit_code=1))
        assert home.state(GATEWAY_NAME).run is None
        found = row(home)
        assert found.phase == "failing"
        assert "the gateway: exited with 1" in found.reason
        assert "steer logs steersman.gateway" in found.fix
        if not found.settled:
            home.cycle(after_ms=400_000)
            home.settle()
    assert found.settled


def test_what_waits_for_room_and_what_never_fits() -> None:
    home = Served(cores=2)
    home.serve(service(scaling=Scaling(min_replicas=3, max_replicas=3)))
    home.bring_up()
    found = row(home)
    assert (found.phase, found.settled, found.ready) == ("serving", False, 2)
    assert found.replica == "digits.3"
    assert found.reason.startswith("digits.3: no node has enough free cores now")
    large = Served(cores=2)
    large.serve(service(cores=9))
    found = row(large)
    assert (found.phase, found.settled) == ("waiting", True)
    assert "9 cores where the largest node has 2" in found.reason
    large.cycle(fleet(node("a", cores=16, gib=32)))
    assert not row(large).settled


def test_a_model_that_does_not_come() -> None:
    model = OnnxModel(artifact=ArtifactRef(workload=WorkloadName("train"), artifact="model"))
    home = Served()
    home.serve(service(model=model))
    found = row(home)
    assert (found.phase, found.settled) == ("waiting", True)  # nobody declared the job
    assert "waits for artifact model of train" in found.reason
    home.up(job("train", artifacts=["model"]))
    home.settle()
    assert not row(home).settled
    home.begin("train")
    home.end("train", code=1)
    home.settle()
    assert row(home).settled


def test_a_rollout_that_is_given_up_ends_the_wait_with_a_failure() -> None:
    home = up()
    home.serve(service(envs=(("A", "1"),)))
    found = row(home)
    assert (found.phase, found.settled, found.revision, found.rolling) == ("rolling", False, 1, 2)
    assert table.revision(found) == "1 → 2"
    name = home.service().replicas[-1].name
    home.crash(name, exit_code=78)
    found = row(home)
    assert (found.phase, found.settled, found.failed, found.ready) == ("serving", True, 2, 1)
    assert "revision 2 was given up: " in found.reason
    assert "revision 1 serves on" in found.reason
    assert f"steer logs {name}" in found.fix
    assert _failed(found)
    home.fold(ServiceDeclared(service=service(envs=(("A", "2"),)), digest=""))
    assert not row(home).settled
    assert row(home).failed is None


def test_a_first_revision_that_fails_is_told_too() -> None:
    home = Served()
    home.serve(service())
    home.bring_up("nobody")
    home.crash("digits.1", exit_code=78)
    found = row(home)
    assert (found.phase, found.settled, found.failed) == ("failed", True, 1)
    assert "exited with 78" in found.reason
    assert "steer logs digits.1" in found.fix
    assert _failed(found)
    home.fold(ServiceDeclared(service=service(envs=(("A", "1"),)), digest=""))
    assert not row(home).settled


def test_who_waits_for_a_rollout_is_told_that_it_has_taken_over() -> None:
    home = up()
    home.serve(service(envs=(("A", "1"),)))
    run = home.run(home.service().replicas[-1].name)
    home.cycle(RankStarted(run=run.id, rank=0, pid=7, at_ms=home.now_ms))
    home.fold(RankReady(run=run.id, rank=0, at_ms=home.now_ms, load_ms=500))
    found = row(home)
    assert (found.phase, found.rolling, found.settled) == ("rolling", 2, False)  # ready, and not judged yet
    home.cycle()
    home.settle()
    found = row(home)
    assert (found.phase, found.revision, found.rolling, found.settled) == ("serving", 2, None, True)
    assert table.service_line(found).startswith("serving (1/1, revision 2): ")


def test_a_rollout_is_over_for_who_waits_when_the_new_one_is_ready() -> None:
    home = up()
    home.serve(service(envs=(("A", "1"),)))
    home.bring_up()
    found = row(home)
    assert (found.revision, found.settled, found.replicas) == (2, True, 2)  # the old replica still drains
    home.drained()
    found = row(home)
    assert (found.phase, found.replicas) == ("serving", 1)


def test_scaled_to_zero_is_as_it_should_be() -> None:
    home = up(service(scaling=SCALED))
    home.hear(("ongoing_milli", 0))
    home.cycle(after_ms=SCALED.downscale_to_zero_delay_ms + 1)
    home.settle()
    home.drained()
    found = row(home)
    assert (found.phase, found.settled, found.target, found.replicas) == ("scaled-to-zero", True, 0, 0)
    assert "the first request starts a replica" in found.reason
    assert not _failed(found)


def test_stopping_and_removing() -> None:
    home = up()
    home.fold(StopRequested(workload=DIGITS))
    found = row(home)
    assert (found.phase, found.settled, found.reason) == ("stopping", False, "told to stop by a person")
    home.settle()
    home.drained()
    found = row(home)
    assert (found.phase, found.settled) == ("stopped", True)
    home.fold(RemoveRequested(workload=DIGITS))
    found = row(home)
    assert (found.phase, found.settled, table.service_phase(found)) == ("stopping", False, "removing")
    home.settle()
    assert "digits" not in home.snapshot.services


def test_what_begins_without_requests_is_told_step_by_step() -> None:
    home = Served()
    home.serve(service(scaling=Scaling(min_replicas=0, max_replicas=3)))
    found = row(home)
    assert (found.phase, found.settled) == ("starting", False)
    assert found.reason == (
        "one replica starts to see that revision 1 can be served; then none is kept while nobody asks"
    )
    home.bring_up()
    home.drained()
    found = row(home)
    assert (found.phase, found.settled, found.replicas) == ("scaled-to-zero", True, 0)
    assert found.reason == "no replica is kept while nobody asks; the first request starts a replica"


# Figures.


def test_figures_of_a_row() -> None:
    home = up()
    found = row(home, serving.Live(looked(home), ADDRESS))
    assert found.requests_per_second == 7.0
    assert found.errors_per_second == 0.5
    assert (found.ongoing, found.queue) == (2, 2)
    assert found.p50_ms == pytest.approx(20, rel=0.02)
    assert found.p99_ms == pytest.approx(20, rel=0.02)
    nothing = row(home)
    assert (nothing.requests_per_second, nothing.p99_ms, nothing.queue) == (None, None, None)
    shown = dict(zip(table.SERVICE_HEAD, table.service_rows([found])[0], strict=True))
    assert (shown["REQ/S"], shown["P50"], shown["READY"], shown["ERR/S"]) == ("7", "20.1 ms", "1/1", "0.5")
    assert table.service_rows([nothing])[0][4:10] == ("-",) * 6


def test_an_error_is_a_request_of_the_same_span() -> None:
    """Requests that came long ago and time out now: nothing arrives, and all that ends is an error."""
    home = up()
    figures = Figures()
    for second, ongoing in ((0, 30), (50, 30), (60, 0)):
        model = ModelStats(
            service="digits", revision=1, outcomes={"timeout": 30 - ongoing} if not ongoing else {}
        )
        stats = GatewayStats(
            process=0,
            pid=1,
            started_ms=0,
            at_ms=home.now_ms + second * 1_000,
            cpu_us=0,
            connections=1,
            config_position=home.snapshot.position,
            models=(replace(model, ongoing=ongoing),),
        )
        figures.note((stats,), {"digits"})
    live = serving.Live(figures, ADDRESS)
    found = row(home, live)
    assert (found.requests_per_second, found.errors_per_second) == (3.0, 3.0)
    whole = serving.view(home.snapshot, home.service(), live)
    assert whole.span_ms == 60_000
    assert (whole.row.requests_per_second, whole.row.errors_per_second) == (0.5, 0.5)


def test_everything_about_one() -> None:
    home = up()
    found = serving.view(home.snapshot, home.service(), serving.Live(looked(home), ADDRESS))
    before, one = found.revisions
    assert (before.revision, before.queue, before.recent) == (0, 2, {"invalid": 5})
    assert (one.state, one.requests, one.batch_rows_mean) == ("serving", {"ok": 60, "timeout": 5}, 4.0)
    assert one.waited_ms_mean == pytest.approx(5, rel=0.02)
    assert one.model_ms_mean == pytest.approx(10, rel=0.02)
    assert one.rest_ms_mean == pytest.approx(5, rel=0.1)
    assert found.cpu_seconds_per_1000 == pytest.approx((60_000 + 70_000) / 1000 / 60, rel=0.01)
    (replica,) = found.replicas
    assert (replica.name, replica.state, replica.nodes, replica.revision) == ("digits.1", "ready", ("a",), 1)
    assert replica.run == home.run("digits.1").id
    unknown = serving.view(home.snapshot, home.service(), serving.nothing_live())
    assert [item.revision for item in unknown.revisions] == [1]
    assert unknown.cpu_seconds_per_1000 is None


@pytest.mark.parametrize(
    ("address", "tls", "url"),
    [
        ("10.0.0.7", True, "https://10.0.0.7:8123/predict/digits"),
        ("0.0.0.0", False, "http://127.0.0.1:8123/predict/digits"),
        ("::", False, "http://[::1]:8123/predict/digits"),
        ("fe80::1", True, "https://[fe80::1]:8123/predict/digits"),
    ],
)
def test_where_a_service_is_asked(address: str, tls: bool, url: str) -> None:
    assert serving.url(GatewayAddress(address=address, port=8123, tls=tls, pid=1), "digits") == url


def test_the_status_lists_what_people_declared_and_counts_the_rest() -> None:
    home = up()
    home.up(job("train"))
    stats = Tally().stats(0, 0)
    found = views.status(home.snapshot, stats, views.no_progress)
    assert [item.name for item in found.workloads] == ["train"]
    assert [item.name for item in found.services] == ["digits"]
    assert found.owned == 2
    whole = views.status(home.snapshot, stats, views.no_progress, owned=True)
    assert [item.name for item in whole.workloads] == ["digits.1", "steersman.gateway", "train"]
    assert whole.workloads[0].service == "digits"


def test_a_row_of_a_job_does_not_tell_what_is_over() -> None:
    home = Served()
    home.up(job("train"))
    home.begin("train")
    home.fold(StopRequested(workload=WorkloadName("train")))
    found = views.row(home.snapshot, home.state("train"), views.no_progress)
    assert (found.code, found.reason) == ("stop-requested", "told to stop by a person")
    home.settle()
    home.end("train")
    home.fold(RemoveRequested(workload=WorkloadName("train")))
    found = views.row(home.snapshot, home.state("train"), views.no_progress)
    assert (found.code, found.reason) == ("removed", "its declaration was removed")


# Metrics.


def _metrics(home: Served, figures: Figures) -> dict[tuple[str, ...], float]:
    families: list[Metric] = list(metrics.of_services(home.snapshot, figures))
    return _samples(families)


def test_metrics_of_services() -> None:
    home = up()
    found = _metrics(home, looked(home))
    assert found["steersman_requests_total", "digits", "1", "ok"] == 60
    assert found["steersman_requests_total", "digits", "0", "invalid"] == 5
    assert found["steersman_queue", "digits"] == found["steersman_ongoing", "digits"] == 2
    assert found["steersman_batch_rows_count", "digits", "1"] == 30
    assert found["steersman_batch_rows_sum", "digits", "1"] == 120
    assert found["steersman_replicas", "digits", "ready"] == 1
    assert found["steersman_replicas", "digits", "waiting"] == 0
    assert found["steersman_gateway_cpu_seconds_total",] == pytest.approx(0.07)
    assert found["steersman_replica_cpu_seconds_total", "digits", "1"] == pytest.approx(0.06)
    name = "steersman_request_duration_seconds"
    assert found[f"{name}_bucket", "digits", "1", "0.01"] == 0
    assert found[f"{name}_bucket", "digits", "1", "0.025"] == 60
    assert found[f"{name}_bucket", "digits", "1", "+Inf"] == found[f"{name}_count", "digits", "1"] == 60
    assert found[f"{name}_sum", "digits", "1"] == pytest.approx(1.2, rel=0.02)


def test_silence_leaves_gauges_out_and_counters_where_they_are() -> None:
    home = up()
    figures = looked(home)
    figures.note((), {"digits"})
    found = _metrics(home, figures)
    assert ("steersman_queue", "digits") not in found
    assert found["steersman_requests_total", "digits", "1", "ok"] == 60


def test_what_is_not_declared_has_no_metrics() -> None:
    figures = looked(up())
    assert _metrics(Served(), figures) == {}
    home = up(service("other"))
    assert not any("digits" in key for key in _metrics(home, figures))
