"""Names of things. Each is a plain value with its own type, so that two cannot be swapped.

Rules of this file: an identifier is derived from what the journal already holds (a declared name, a
journal position), never minted from chance or from a clock.
"""

from typing import NewType

WorkloadName = NewType("WorkloadName", str)
"""What a user called a workload: ``[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?``; unique in a home."""

NodeId = NewType("NodeId", str)
DeviceId = NewType("DeviceId", str)
QueueName = NewType("QueueName", str)

RunId = NewType("RunId", str)
"""``<workload>.<position>``: the position of the `Observed` event whose decision began the run."""

DecisionId = NewType("DecisionId", str)
"""``<position>.<ordinal>``: the position of its `Observed` event and its place in the plan."""

Position = NewType("Position", int)
"""A place in the journal: 1 for the first event, without gaps."""


def decision_id(observed_at: int, ordinal: int) -> DecisionId:
    """The identifier of the ordinal-th decision of the cycle observed at a journal position."""
    return DecisionId(f"{observed_at}.{ordinal}")


def run_id(workload: WorkloadName, observed_at: int) -> RunId:
    """The identifier of the run that the cycle observed at a journal position begins."""
    return RunId(f"{workload}.{observed_at}")


def workload_of(run: RunId) -> WorkloadName:
    """The workload whose run it is."""
    return WorkloadName(run.rpartition(".")[0])
