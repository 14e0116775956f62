"""The limits and the end of one rank's process tree.

Two ways to hold limits, and `limits` says which is in force: ``cgroup-v1`` or ``cgroup-v2`` (processor time,
memory and number of processes, by the kernel), or ``affinity+watchdog`` (as many processors as the cores
asked for, and a look at resident memory twice a second; the number of processes is then not limited).
``+process-group`` is appended where the platform has no subreaper, so that an orphan that left its process
group could escape.
"""

import os
import signal
import time
import zlib
from collections.abc import Mapping
from typing import Any

from steersman.dataplane.shim import cgroup, procs
from steersman.ports import run_dir

WATCHDOG_SECONDS = 0.5
REMOVE_SECONDS_MAX = 1.0
REMOVE_RETRY_SECONDS = 0.02


def group_name(order: Mapping[str, Any]) -> str:
    """The control group of one rank; it names the home, so that two homes never meet."""
    return f"{run_dir.CGROUP_PREFIX}{order['home_id']}.{order['run']}.{order['rank']}"


class Tree:
    """Everything that descends from this shim, and the limits around it."""

    def __init__(self, order: Mapping[str, Any], found: list[cgroup.Mount], *, subreaper: bool) -> None:
        self._limits = cgroup.Limits(int(order["cpu_milli"]), int(order["memory_bytes"]))
        self._name = group_name(order)
        self._subreaper = subreaper
        self._group = cgroup.create(found, self._name, self._limits)
        self._next_look = 0.0
        self.over_memory = False

    @property
    def limits(self) -> str:
        """How limits are held."""
        base = "affinity+watchdog" if self._group is None else f"cgroup-v{self._group.version}"
        return base if self._subreaper else f"{base}+process-group"

    @property
    def folders(self) -> tuple[str, ...]:
        """The control group's folders, for whoever must clean up after a killed shim."""
        return () if self._group is None else self._group.folders

    @property
    def watched(self) -> bool:
        """Whether `watch` must be called every WATCHDOG_SECONDS."""
        return self._group is None and self._limits.memory_bytes > 0

    def hold(self, pid: int) -> None:
        """Put a child under the limits, before it becomes the program."""
        if self._group is not None:
            try:
                self._group.attach(pid)
            except OSError:  # made, but not joined (no right to move processes): hold it the other way
                self._group.remove()
                self._group = None
            else:
                return
        if self._limits.cpu_milli:
            os.sched_setaffinity(pid, processors(self._limits.cpu_milli, self._name))

    def watch(self) -> None:
        """End everything when it holds more memory than allowed, where no control group does it."""
        now = time.monotonic()
        if not self.watched or now < self._next_look:
            return
        self._next_look = now + WATCHDOG_SECONDS
        if procs.resident_bytes(procs.descendants(os.getpid())) > self._limits.memory_bytes:
            self.over_memory = True

    def members(self) -> list[int]:
        """Every process of the tree, zombies that are not reaped yet included."""
        inside = [] if self._group is None else self._group.pids()
        return sorted({*inside, *procs.descendants(os.getpid())})

    def terminate(self, *, spare_group: int | None = None) -> None:
        """Ask everything to end, but for a process group that has been asked already."""
        procs.send([pid for pid in self.members() if not _in_group(pid, spare_group)], signal.SIGTERM)

    def kill(self) -> None:
        """End everything in the tree; call again until nothing is left."""
        if self._group is not None:
            self._group.kill()
        procs.send(procs.descendants(os.getpid()), signal.SIGKILL)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel or the watchdog ended a process for its memory."""
        return self.over_memory or (self._group is not None and self._group.oom_kills() > 0)

    def remove(self) -> bool:
        """Take the control group away; the kernel may need an instant after the last process."""
        return self._group is None or remove_group(self._group)


def _in_group(pid: int, group: int | None) -> bool:
    try:
        return group is not None and os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def remove_group(group: cgroup.Group) -> bool:
    """Remove an emptied group, trying for a bounded time; False when it would not go."""
    deadline = time.monotonic() + REMOVE_SECONDS_MAX
    while not group.remove():
        if time.monotonic() > deadline:
            return False
        time.sleep(REMOVE_RETRY_SECONDS)
    return True


def processors(cpu_milli: int, name: str) -> set[int]:
    """As many processors as the cores asked for, rounded up; different ranks begin at different ones."""
    allowed = sorted(os.sched_getaffinity(0))
    count = min(-(-cpu_milli // 1000), len(allowed))
    first = zlib.crc32(name.encode()) % len(allowed)
    return {allowed[(first + offset) % len(allowed)] for offset in range(count)}
