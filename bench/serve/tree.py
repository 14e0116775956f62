"""What a server's whole process tree costs: CPU time and memory.

Theory: CPU is the sum of utime + stime + cutime + cstime over every living process below the launcher. The
last two are the times of children that ended and were waited for, and theirs in turn, so a process that ends
takes nothing out of the sum: its time moves to its parent, at the latest to the launcher, which adopts and
reaps orphans. (A child whose parent ignores SIGCHLD would be lost; none of the servers here does that. A
cgroup would count those too, but asks for rights that a benchmark should not need.) The clock's tick is
10 ms, small against the seconds that are measured. Memory is the sum of PSS, which counts a shared page once.
"""

import os
import time
from pathlib import Path

from bench.serve.launch import below

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def cpu_seconds(root: int) -> float:
    """CPU time of the tree since it began, `root` included."""
    ticks = 0
    for pid in (root, *below(root)):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile: its parent has its time
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS


def pss_mib(root: int) -> float:
    """Proportional memory of the tree below `root`, which is not part of any server."""
    total = 0
    for pid in below(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024 / MIB


class CpuWatch:
    """CPU seconds of a tree and wall seconds since it was made."""

    def __init__(self, root: int) -> None:
        self._root, self._cpu, self._at = root, cpu_seconds(root), time.monotonic()

    def seconds(self) -> float:
        """CPU seconds since."""
        return cpu_seconds(self._root) - self._cpu

    def wall(self) -> float:
        """Wall seconds since."""
        return time.monotonic() - self._at
