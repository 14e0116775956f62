"""What Steersman runs on a distributed engine that somebody else operates (Ray): one host per rank, one fence
per home, and the bridge, a process beside the control plane that speaks to both.

    control plane ──lines──▶ bridge ──▶ fence ──▶ host ──▶ shim ──▶ program        (effects: epoch checked)
    home/runs/… ◀──files── bridge ◀────────────── host                             (news: read only)

The bridge is a process of its own because the engine's client may end the process it lives in, and because it
must be of the cluster's version; so all of this imports the standard library, the engine, and of Steersman
only what is standard library itself. Only `api` imports the engine.

Never in here: a decision, the journal, and a secret on a disk or in what the engine shows.
"""

from __future__ import annotations

from pathlib import Path

from steersman.dataplane.cluster import shipped

__all__ = ["bridge_argv"]

_ROOT = Path(__file__).absolute().parents[3]
_BRIDGE = "steersman/dataplane/cluster/bridge.py"


def bridge_argv(home: Path, python: str) -> tuple[str, ...]:
    """The command of a bridge of a home. `python`: an interpreter that has the engine. Raises OSError."""
    return (python, str(shipped.code_folder(home, _ROOT) / _BRIDGE))
