"""What this machine is: its cores and memory, and which boot of it this is."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from steersman.model.fleet import Fleet, Node
from steersman.model.ids import NodeId

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MEMORY_SHARE_PERCENT = 90
"""How much of the machine's memory is handed out; the rest is the system's and Steersman's own."""

_CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


class Machine(NamedTuple):
    """What this process may use of the machine it runs on."""

    cpu_milli: int
    memory_bytes: int


def this_machine() -> Machine:
    """All of it, the system's own share included."""
    return Machine(cpu_milli=1_000 * len(os.sched_getaffinity(0)), memory_bytes=_memory_bytes())


def local_fleet() -> Fleet:
    """The fleet of a home that never declared one: this machine, as far as this process may use it."""
    machine = this_machine()
    node = Node(
        id=NodeId("local"),
        cpu_milli=machine.cpu_milli,
        memory_bytes=machine.memory_bytes * MEMORY_SHARE_PERCENT // 100,
    )
    return Fleet(name="local", nodes=(node,))


def boot_id() -> str:
    """Changes with every boot. Where the kernel does not tell, ``unknown``: then a pid and its start time
    alone tell whether a process is the one that was recorded."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip()
    return "unknown"


def process_start(pid: int) -> int | None:
    """When a process began, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(fields[18])


def _memory_bytes() -> int:
    """The machine's memory, or the least limit of the control group that this process sees."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUP_MEMORY:
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(path.read_text(encoding="ascii")))
    return total
