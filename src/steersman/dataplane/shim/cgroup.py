"""Limits by control group, in both layouts, and the surest way to end a tree.

Version 1 has one hierarchy per controller (cpu, memory, pids); version 2 has one for all; a hybrid machine
has version 1 controllers and an empty version 2 hierarchy, which still knows ``cgroup.kill``. A group is
made below the shim's own group, so that limits around the control plane keep holding; on version 2, where
a group with processes cannot hand controllers down, the nearest ancestor that does is taken. It is all or
nothing: unless cpu, memory and pids can each be limited, `create` returns None and the shim falls back to
affinity and a watchdog, and says so.

A kill on version 2 is one write and cannot race with a fork. On version 1 `pids.max` is set to zero first,
so that nothing can fork while the loop goes round.
"""

# ruff: noqa: PTH102, PTH106, PTH110, PTH118, PTH120, PTH123 - pathlib costs every shim 3 ms and 0.5 MB

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import NamedTuple

CPU_PERIOD_US = 20_000
"""A program that has used up its quota stands still for the rest of the period: at half a core 10 ms at most,
not the 50 ms of the kernel's own 100 ms, which a replica's callers would feel."""
CPU_QUOTA_US_MIN = 1_000
"""The kernel's least. A smaller share has it in a longer period."""
CPU_PERIOD_US_MAX = 1_000_000
PIDS_MAX = 4_096
V1_CONTROLLERS = ("cpu", "memory", "pids")
V2_FILES = ("cpu.max", "memory.max", "pids.max")


class Limits(NamedTuple):
    """Millicores and bytes; 0 is no limit. `pids` is a number of processes and threads."""

    cpu_milli: int
    memory_bytes: int
    pids: int = PIDS_MAX


class Mount(NamedTuple):
    """A mounted hierarchy: its folder, and the folder of this process's own group in it."""

    version: int
    controllers: tuple[str, ...]
    root: str
    own: str


def mounts(mountinfo: str, membership: str) -> list[Mount]:
    """The hierarchies named in the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    groups: dict[str, str] = {}
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        base, point = left.split()[3:5]
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2" and "" in groups:
            found.append(Mount(2, (), point, _below(point, base, groups[""])))
        elif kind == "cgroup":
            held = tuple(name for name in options.split(",") if name in V1_CONTROLLERS and name in groups)
            if held:
                found.append(Mount(1, held, point, _below(point, base, groups[held[0]])))
    return found


def _below(point: str, base: str, path: str) -> str:
    """The folder of a group, given what part of its hierarchy is mounted where."""
    if base != "/" and (path == base or path.startswith(base + "/")):
        path = path[len(base) :]
    return os.path.normpath(point + "/" + path)


class Group:
    """One made group: a folder per hierarchy."""

    def __init__(self, version: int, folders: Sequence[str]) -> None:
        self.version = version
        self.folders = tuple(folders)

    def attach(self, pid: int) -> None:
        """Move a process in, before it runs anything. Raises OSError."""
        for folder in self.folders:
            _put(folder, "cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """Every process inside."""
        found: set[int] = set()
        for folder in self.folders:
            found.update(int(word) for word in _get(folder, "cgroup.procs").split())
        return sorted(found)

    def kill(self) -> None:
        """Send SIGKILL to everything inside; call again until `pids` is empty."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                if os.path.exists(f"{folder}/cgroup.kill"):
                    _put(folder, "cgroup.kill", "1")
                elif os.path.exists(f"{folder}/pids.max"):
                    _put(folder, "pids.max", "0")
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def oom_kills(self) -> int:
        """How many processes the kernel ended here for want of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                for line in _get(folder, name).splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def remove(self) -> bool:
        """Take the folders away; False while something is still inside."""
        gone = True
        for folder in self.folders:
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


def create(found: Sequence[Mount], name: str, limits: Limits) -> Group | None:
    """A group with all the limits in force, or None when this machine or user cannot have one."""
    by_controller = {controller: mount for mount in found for controller in mount.controllers}
    unified = next((mount for mount in found if mount.version == 2), None)
    if all(controller in by_controller for controller in V1_CONTROLLERS):
        return _create_v1({c: by_controller[c] for c in V1_CONTROLLERS}, unified, name, limits)
    return None if unified is None else _create_v2(unified, name, limits)


def _create_v1(homes: dict[str, Mount], unified: Mount | None, name: str, limits: Limits) -> Group | None:
    made: dict[str, str] = {}
    try:
        for controller, mount in homes.items():
            made[controller] = _make(mount.own, name)
        if limits.cpu_milli:
            quota_us, period_us = _bandwidth(limits.cpu_milli)
            _put(made["cpu"], "cpu.cfs_period_us", str(period_us))
            _put(made["cpu"], "cpu.cfs_quota_us", str(quota_us))
        if limits.memory_bytes:
            _put(made["memory"], "memory.limit_in_bytes", str(limits.memory_bytes))
            with contextlib.suppress(OSError):  # absent where the kernel does not account swap
                _put(made["memory"], "memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        _put(made["pids"], "pids.max", str(limits.pids))
    except OSError:
        Group(1, tuple(made.values())).remove()
        return None
    if unified is not None:
        with contextlib.suppress(OSError):  # only for its cgroup.kill
            made["unified"] = _make(unified.own, name)
    return Group(1, tuple(dict.fromkeys(made.values())))


def _create_v2(mount: Mount, name: str, limits: Limits) -> Group | None:
    parent = mount.own
    while True:
        folder = _try_v2(parent, name, limits)
        if folder is not None:
            return Group(2, (folder,))
        if parent == mount.root or not parent.startswith(mount.root):
            return None
        parent = os.path.dirname(parent)


def _try_v2(parent: str, name: str, limits: Limits) -> str | None:
    folder = ""
    try:
        with contextlib.suppress(OSError):  # refused where the parent holds processes; it may be on already
            _put(parent, "cgroup.subtree_control", "+cpu +memory +pids")
        folder = _make(parent, name)
        if not all(os.path.exists(f"{folder}/{file}") for file in V2_FILES):
            os.rmdir(folder)
            return None
        if limits.cpu_milli:
            quota_us, period_us = _bandwidth(limits.cpu_milli)
            _put(folder, "cpu.max", f"{quota_us} {period_us}")
        if limits.memory_bytes:
            _put(folder, "memory.max", str(limits.memory_bytes))
            with contextlib.suppress(OSError):  # absent where the kernel does not account swap
                _put(folder, "memory.swap.max", "0")
            _put(folder, "memory.oom.group", "1")
        _put(folder, "pids.max", str(limits.pids))
    except OSError:
        with contextlib.suppress(OSError):
            if folder:
                os.rmdir(folder)
        return None
    return folder


def _bandwidth(cpu_milli: int) -> tuple[int, int]:
    """Quota and period, microseconds. The period is at most a second, as the kernel asks."""
    period_us = min(max(CPU_PERIOD_US, CPU_QUOTA_US_MIN * 1000 // cpu_milli), CPU_PERIOD_US_MAX)
    return max(cpu_milli * period_us // 1000, CPU_QUOTA_US_MIN), period_us


def _make(parent: str, name: str) -> str:
    folder = os.path.join(parent, name)
    with contextlib.suppress(FileExistsError):  # left by a shim that was killed before it began the program
        os.mkdir(folder)
    return folder


def _put(folder: str, name: str, value: str) -> None:
    descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _get(folder: str, name: str) -> str:
    try:
        with open(f"{folder}/{name}", encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def machine_mounts() -> list[Mount]:
    """The hierarchies of this machine; none where there is no such kernel."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8") as info, open("/proc/self/cgroup") as own:
            return mounts(info.read(), own.read())
    except (OSError, ValueError):
        return []
