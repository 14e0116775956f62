"""The end of a rank whose shim was killed: nothing of it may live on, and it is said so once.

The new shim holds the lock and finds ``started.json`` without ``exit.json``. It never trusts a recorded
number: it ends what is in the control group that bears this rank's own name, and processes whose
environment carries both this rank's folder and the nonce of that start, on the same boot. A stranger that
has got the old number has neither.
"""

# ruff: noqa: PTH110, PTH119 - pathlib costs every shim 3 ms and 0.5 MB

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from steersman.dataplane.shim import cgroup, procs
from steersman.dataplane.shim.tree import group_name, remove_group

RETRY_SECONDS = 0.02


def conclude(order: Mapping[str, Any], started: Mapping[str, Any]) -> dict[str, Any]:
    """End what is left, however long the kernel takes; what ``exit.json`` shall say."""
    detail = "the shim was killed; its processes were ended"
    if started.get("boot_id") != procs.boot_id():
        detail = "the machine was restarted"
    else:
        group = _own_group(order, started)
        nonce = str(started.get("nonce") or "")
        while left := survivors(order["rank_dir"], nonce, group):
            if group is not None:
                group.kill()
            procs.send(left, signal.SIGKILL)
            time.sleep(RETRY_SECONDS)
        if group is not None:
            remove_group(group)
    return {"exit_code": None, "signal": None, "cause": "lost", "detail": detail, "stop_delivered": False}


def survivors(rank_dir: str, nonce: str, group: cgroup.Group | None) -> list[int]:
    """Living processes that are proven to be of that start.

    None is said only after two looks: what is begun during a look, by one that ends during it, is in no list.
    """
    for _ in range(2):
        inside = [] if group is None else group.pids()
        if found := {*inside, *(procs.marked(rank_dir, nonce) if nonce else [])} - {os.getpid()}:
            return sorted(found)
    return []


def _own_group(order: Mapping[str, Any], started: Mapping[str, Any]) -> cgroup.Group | None:
    """The recorded folders that bear this rank's name and are control groups."""
    folders = [
        folder
        for folder in map(str, started.get("cgroups", ()))
        if os.path.basename(folder) == group_name(order) and os.path.exists(f"{folder}/cgroup.procs")
    ]
    return cgroup.Group(1, folders) if folders else None
