"""A person's word that machines are gone for good.

A node that cannot be asked is unknown, which destroys nothing: what runs there may live, and is waited for.
Only a person can know that it does not. Then its nodes are recorded as dead, what ran there is lost, and it
begins elsewhere. A node that answers is never lost.
"""

from collections.abc import Sequence

from steersman.model.errors import ConflictError
from steersman.model.events import NodeHealth
from steersman.model.snapshot import Snapshot


def lost(snapshot: Snapshot, name: str) -> Sequence[NodeHealth]:
    """The events for the node or the cluster of that name; none for what is dead already. Raises
    ConflictError."""
    nodes = [state for key, state in snapshot.nodes.sorted_items() if name in (key, state.node.cluster)]
    if not nodes:
        known = sorted({str(key) for key, _ in snapshot.nodes.sorted_items()})
        raise ConflictError(
            f"there is no node and no cluster called {name!r}",
            hint=f"the nodes are {', '.join(known)}" if known else "the fleet has no nodes",
            code="unknown-node",
        )
    answering = [state.node.id for state in nodes if state.health not in ("unknown", "dead")]
    if answering:
        raise ConflictError(
            f"{answering[0]} answers, so it is not lost",
            hint="steer down ends what runs there; without it in the fleet nothing more begins there",
            code="node-answers",
        )
    return [NodeHealth(node=state.node.id, health="dead") for state in nodes if state.health != "dead"]
