"""The front door of all services: HTTP in, batches out, an answer for every request that was let in.

Its own processes: one master that holds the listening sockets, and workers that share nothing. It serves the
last good configuration with the control plane dead. Never in here: a decision about replicas, the journal, or
anything on the data port that controls.
"""

from pathlib import Path

__all__ = ["gateway_argv"]


def gateway_argv(python: str, home: Path) -> tuple[str, ...]:
    """The command that runs the gateway of a home: its master, which starts the workers."""
    return (python, "-m", "steersman.dataplane.gateway.main", str(home.absolute()))
