"""What has become of clusters: their reports, as the events that the snapshot does not hold yet.

Theory of operation. A report is the whole truth of one cluster now. It is said when the snapshot knows
something else: other nodes, a problem that is new, or one that is over. That a cluster is silent says nothing
of what runs there: its nodes become unknown, and only its driver says that a rank has ended.
"""

from steersman.model.events import ClusterObserved, Event
from steersman.model.snapshot import ClusterState, Snapshot
from steersman.ports.clusters import ClusterReport, Clusters
from steersman.ports.sensor import Observation


class ClusterSensor:
    """The Sensor port over the clusters of one driver."""

    def __init__(self, name: str, clusters: Clusters) -> None:
        self._name = name
        self._clusters = clusters

    @property
    def name(self) -> str:
        return f"clusters/{self._name}"

    async def observe(self, snapshot: Snapshot) -> Observation:
        known = {state.spec.name: state for state in snapshot.clusters}
        specs = [state.spec for state in snapshot.clusters]
        found = await self._clusters.observe_clusters(specs, snapshot.epoch)
        events: list[Event] = [
            ClusterObserved(
                cluster=report.cluster, nodes=report.nodes, problem=report.problem, hint=report.hint
            )
            for report in found
            if report.cluster in known and is_news(snapshot, known[report.cluster], report)
        ]
        return Observation(events=tuple(events))

    async def wait_changed(self, timeout_ms: int) -> None:
        await self._clusters.wait_clusters_changed(timeout_ms)


def is_news(snapshot: Snapshot, state: ClusterState, report: ClusterReport) -> bool:
    """Whether the snapshot knows something else of the cluster."""
    if state.seen_ms is None or (state.problem, state.hint) != (report.problem, report.hint):
        return True
    if report.problem:
        return False
    here = [node for _, node in snapshot.nodes.sorted_items() if node.node.cluster == report.cluster]
    return [node.node for node in here if node.declared] != list(report.nodes) or any(
        node.declared and node.health == "unknown" for node in here
    )
