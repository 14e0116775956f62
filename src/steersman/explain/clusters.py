"""What is wrong with the clusters where a workload may run, in words."""

from collections.abc import Iterator

from steersman.model.fleet import is_within
from steersman.model.reasons import Code, Reason
from steersman.model.snapshot import ClusterState, Snapshot

LACKING = frozenset({Code.NO_INFRA, Code.NO_NODES})
"""Reasons to wait that a cluster which comes back may take away."""


def troubled(snapshot: Snapshot, infra: str) -> Iterator[ClusterState]:
    """The clusters of an infrastructure that could not be asked."""
    for state in snapshot.clusters:
        if state.problem and is_within(state.spec.infra, infra):
            yield state


def trouble(state: ClusterState) -> str:
    """One sentence."""
    return f"the cluster {state.spec.name} could not be asked: {state.problem}"


def cluster_fix(snapshot: Snapshot, infra: str, reason: Reason | None) -> str | None:
    """What to do about a cluster, for who waits for one."""
    if reason is None or reason.code not in LACKING:
        return None
    found = next(troubled(snapshot, infra), None)
    return None if found is None else found.hint or "see that the cluster is up and can be reached"
