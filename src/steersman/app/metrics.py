"""Prometheus text: figures read from the engine at the moment they are asked for, kept nowhere.

A metric that a job did not report has no sample: missing is not zero.

Figures of services are of those that are declared and of revisions that the state knows, so that nobody who
sends requests can make more of them. Their counters are those of the gateway's processes added up since this
control plane looks. While a process is silent what it carries is not known: gauges have no sample then, and
counters stand still.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from steersman.app.serving import replica_states
from steersman.app.views import LOSS, SAMPLES, STEP, STEPS_TOTAL, Progress
from steersman.engine.engine import Engine
from steersman.engine.stats import EngineStats
from steersman.model.sketch import GAMMA
from steersman.model.snapshot import Phase, RunState, ServiceState, Snapshot
from steersman.ports.gateway import ModelStats
from steersman.sensors.figures import Figures, sum_us

CONTENT_TYPE = CONTENT_TYPE_LATEST

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of durations, in seconds; a sketch's own bucket is within 2 % of its place."""
US = 1_000_000

_OF_JOBS = (
    ("steersman_job_step", "Step that the job reported last.", STEP),
    ("steersman_job_steps", "Steps the job wants to do in all.", STEPS_TOTAL),
    ("steersman_job_loss", "Loss that the job reported last.", LOSS),
    ("steersman_job_samples_per_second", "Samples a second that the job reported last.", SAMPLES),
)


class EngineCollector(Collector):
    """Everything about one engine, and what its services do."""

    def __init__(self, engine: Engine, figures: Figures) -> None:
        self._engine = engine
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """All metric families, in a fixed order."""
        snapshot = self._engine.snapshot
        yield from of_snapshot(snapshot)
        yield from of_jobs(snapshot, self._engine.progress)
        yield from of_services(snapshot, self._figures)
        yield from of_engine(self._engine.stats(), snapshot)


def exposition(engine: Engine, figures: Figures) -> "Exposition":
    """What serves `/metrics` of an engine and of the gateway's figures."""
    return Exposition(EngineCollector(engine, figures))


class Exposition:
    """A registry of our own, so that nothing else in the process can add to it."""

    def __init__(self, collector: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """The figures now."""
        return generate_latest(self._registry)


def of_snapshot(snapshot: Snapshot) -> Iterator[Metric]:
    """Counts of what there is; a state that nothing is in counts zero."""
    states = Counter(run.state for _, run in snapshot.runs.items())  # noqa: PERF102 - a Table has no values()
    runs = GaugeMetricFamily("steersman_runs", "Runs that are not judged yet, by state.", labels=["state"])
    for state in RunState:
        runs.add_metric([state.value], states[state])
    yield runs
    phases = Counter(state.phase for _, state in snapshot.workloads.items())  # noqa: PERF102 - a Table has no values()
    workloads = GaugeMetricFamily("steersman_workloads", "Declared workloads, by phase.", labels=["phase"])
    for phase in Phase:
        workloads.add_metric([phase.value], phases[phase])
    yield workloads
    healths = Counter(node.health for _, node in snapshot.nodes.items())  # noqa: PERF102 - a Table has no values()
    nodes = GaugeMetricFamily("steersman_nodes", "Nodes of the fleet, by health.", labels=["health"])
    for health in ("alive", "dead", "unknown"):
        nodes.add_metric([health], healths[health])
    yield nodes


def of_jobs(snapshot: Snapshot, progress: Progress) -> Iterator[Metric]:
    """What the runs under way reported last."""
    families = [GaugeMetricFamily(name, words, labels=["workload", "run"]) for name, words, _ in _OF_JOBS]
    for (run_id,) in snapshot.indexes.live:
        run = snapshot.runs[run_id]
        metrics = progress(run.id)
        for family, (_, _, key) in zip(families, _OF_JOBS, strict=True):
            if key in metrics:
                family.add_metric([run.workload, run.id], metrics[key])
    yield from families


def of_engine(stats: EngineStats, snapshot: Snapshot) -> Iterator[Metric]:
    """Figures about the loop."""
    decisions = CounterMetricFamily(
        "steersman_decisions", "Decisions taken since the control plane started, by code.", labels=["code"]
    )
    for code, count in sorted(stats.decisions.items()):
        decisions.add_metric([code], count)
    yield decisions
    yield CounterMetricFamily("steersman_cycles", "Cycles since the control plane started.", stats.cycles)
    yield CounterMetricFamily(
        "steersman_cycle_cpu_seconds", "CPU time of all cycles together.", stats.cycle_ms_sum / 1000
    )
    yield GaugeMetricFamily(
        "steersman_cycle_seconds", "CPU time of the last cycle.", stats.cycle_ms_last / 1000
    )
    yield GaugeMetricFamily(
        "steersman_cycle_seconds_max", "CPU time of the longest cycle.", stats.cycle_ms_max / 1000
    )
    yield GaugeMetricFamily(
        "steersman_journal_position", "Position of the journal's last event.", stats.journal_position
    )
    yield GaugeMetricFamily(
        "steersman_journal_lag_events", "Events that wait to be recorded.", stats.inbox_length
    )
    yield CounterMetricFamily("steersman_failures", "Failures of the engine's tasks.", stats.failures)
    yield GaugeMetricFamily("steersman_healthy", "1 when the last cycle went well.", int(stats.healthy))
    yield GaugeMetricFamily("steersman_epoch", "How often this home was taken.", snapshot.epoch)


# Services.


class _Counted(NamedTuple):
    service: str
    revision: str
    counts: ModelStats


def of_services(snapshot: Snapshot, figures: Figures) -> Iterator[Metric]:
    """All families, in a fixed order; those of a home without services are empty."""
    states = [state for _, state in snapshot.services.sorted_items()]
    counted = [item for state in states for item in _counted(state, figures)]
    reached = [item for item in counted if item.revision != "0"]  # 0 never came to a replica
    yield _requests(counted)
    yield _durations(reached)
    yield _rows(reached)
    yield _replica_cpu(reached)
    yield from _gauges(states, figures)
    yield _replicas(snapshot, states)
    cpu = CounterMetricFamily("steersman_gateway_cpu_seconds", "CPU time of the gateway's processes.")
    if states:
        cpu.add_metric([], figures.gateway_cpu_us / US)
    yield cpu


def _counted(state: ServiceState, figures: Figures) -> Iterator[_Counted]:
    revisions = (state.serving, state.rolling, state.failed)
    known = {0, *(item.number for item in revisions if item is not None)}
    known |= {ref.revision for ref in state.replicas}
    for revision, counts in figures.totals(state.spec.name).items():
        if revision in known:
            yield _Counted(state.spec.name, str(revision), counts)


def _requests(counted: list[_Counted]) -> Metric:
    family = CounterMetricFamily(
        "steersman_requests",
        "Requests of services that ended, by outcome.",
        labels=["service", "revision", "outcome"],
    )
    for item in counted:
        for outcome, count in sorted(item.counts.outcomes.items()):
            family.add_metric([item.service, item.revision, outcome], count)
    return family


def _durations(counted: list[_Counted]) -> Metric:
    family = HistogramMetricFamily(
        "steersman_request_duration_seconds",
        "From a request's arrival to its answer.",
        labels=["service", "revision"],
    )
    for item in counted:
        sketch = item.counts.latency_us
        family.add_metric(
            [item.service, item.revision], buckets=cumulative(sketch), sum_value=sum_us(sketch) / US
        )
    return family


def cumulative(sketch: Mapping[int, int]) -> list[tuple[str, float]]:
    """How many values of a sketch of microseconds are at most each bound, the last of which is +Inf."""
    found: list[tuple[str, float]] = []
    left = sorted(sketch.items(), reverse=True)
    total = 0
    for bound in BUCKETS_S:
        while left and 2 * GAMMA ** left[-1][0] / (GAMMA + 1) <= bound * US:
            total += left.pop()[1]
        found.append((str(bound), total))
    return [*found, ("+Inf", sum(sketch.values()))]


def _rows(counted: list[_Counted]) -> Metric:
    family = SummaryMetricFamily(
        "steersman_batch_rows",
        "Rows that went to replicas, and the batches that they went in.",
        labels=["service", "revision"],
    )
    for item in counted:
        family.add_metric([item.service, item.revision], item.counts.batches, item.counts.rows)
    return family


def _replica_cpu(counted: list[_Counted]) -> Metric:
    family = CounterMetricFamily(
        "steersman_replica_cpu_seconds",
        "CPU time that replicas say their batches took.",
        labels=["service", "revision"],
    )
    for item in counted:
        family.add_metric([item.service, item.revision], item.counts.replica_cpu_us / US)
    return family


def _gauges(states: list[ServiceState], figures: Figures) -> Iterator[Metric]:
    queue = GaugeMetricFamily("steersman_queue", "Requests that wait for a replica.", labels=["service"])
    ongoing = GaugeMetricFamily(
        "steersman_ongoing", "Requests under way, those that wait included.", labels=["service"]
    )
    for state in states if figures.known else ():
        totals = figures.totals(state.spec.name).values()
        if totals:
            queue.add_metric([state.spec.name], sum(item.queued for item in totals))
            ongoing.add_metric([state.spec.name], sum(item.ongoing for item in totals))
    yield queue
    yield ongoing


def _replicas(snapshot: Snapshot, states: list[ServiceState]) -> Metric:
    family = GaugeMetricFamily(
        "steersman_replicas", "Replicas of services, by state.", labels=["service", "state"]
    )
    for state in states:
        for name, count in replica_states(snapshot, state).items():
            family.add_metric([state.spec.name, name], count)
    return family
