"""What knows which nodes a cluster has."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from steersman.model.fleet import Cluster, Node


class ClusterReport(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster now: its nodes, sorted by id; or why it could not be asked, and then no nodes are named."""

    cluster: str
    nodes: tuple[Node, ...] = ()
    problem: str = ""
    hint: str = ""


class Clusters(Protocol):
    """The clusters of a fleet.

    Contract: `observe_clusters` gives a report on each cluster that it can say something of: one that was
    declared an instant ago may be missing. It changes nothing on a cluster but what joining it takes; a
    cluster that is not named any more is left. `epoch` is the control plane's: a cluster that has seen a
    higher one refuses to be joined. It does not wait for a cluster that does not answer.
    `wait_clusters_changed` returns when there may be news, or after the timeout.
    """

    async def observe_clusters(self, clusters: Sequence[Cluster], epoch: int) -> Sequence[ClusterReport]: ...

    async def wait_clusters_changed(self, timeout_ms: int) -> None: ...
