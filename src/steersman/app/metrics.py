"""Prometheus text: figures read from the engine at the moment they are asked for, kept nowhere.

A metric that a job did not report has no sample: missing is not zero.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from steersman.app import service_metrics
from steersman.app.views import LOSS, SAMPLES, STEP, STEPS_TOTAL, Progress
from steersman.engine.engine import Engine
from steersman.engine.stats import EngineStats
from steersman.model.snapshot import Phase, RunState, Snapshot
from steersman.sensors.figures import Figures

CONTENT_TYPE = CONTENT_TYPE_LATEST

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
        yield from service_metrics.of_services(snapshot, self._figures)
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
