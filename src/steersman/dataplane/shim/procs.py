"""Processes: who they are, who descends from whom, how much they hold, how to end them for good.

A number is not an identity, for numbers are used again. A process is named by (boot id, number, start
time), and a stray of an earlier shim by the mark in its environment (run folder and nonce). As a child
subreaper the shim becomes the parent of every orphan below it, so nothing that double-forks or leaves
the session can escape `descendants`.
"""

# ruff: noqa: PTH123, PTH208 - pathlib costs every shim 3 ms and 0.5 MB

import contextlib
import ctypes
import os
import signal
import time

from steersman.ports import run_dir

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ENVIRON_BYTES_MAX = 4 * 1024 * 1024
PF_KTHREAD = 0x0020_0000
EXEC_SECONDS = 0.001
EXEC_TRIES = 1000

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> bool:
    """Set a process attribute; False where the platform has none of it."""
    try:
        return int(_libc.prctl(option, value, 0, 0, 0)) == 0
    except AttributeError:
        return False


def become_subreaper() -> bool:
    """Adopt every orphan below this process from now on."""
    return prctl(PR_SET_CHILD_SUBREAPER, 1)


def boot_id() -> str:
    """The identity of this boot; empty where the kernel tells none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third on (state, parent, …), or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    return text[text.rfind(")") + 2 :].split()


def start_time(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (field 22); None when it is gone or a zombie."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def all_pids() -> list[int]:
    """Every process this one can see."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def descendants(root: int) -> list[int]:
    """Every process below `root`, children of children included, zombies too."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        fields = _stat(pid)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    frontier = [root]
    while frontier:
        below = children.pop(frontier.pop(), [])
        found.extend(below)
        frontier.extend(below)
    return found


def resident_bytes(pids: list[int]) -> int:
    """The sum of what the processes hold resident; shared pages count once for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
            total += int(file.read().split()[1]) * PAGE_BYTES
    return total


def send(pids: list[int], number: signal.Signals) -> None:
    """Signal processes that are known to be ours; the ones that are gone are no matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def marked(folder: str, nonce: str) -> list[int]:
    """Living processes whose environment carries this rank's folder and the nonce of one start."""
    wanted = {f"{run_dir.ENV_RUN_DIR}={folder}".encode(), f"{run_dir.ENV_NONCE}={nonce}".encode()}
    return [
        pid
        for pid in all_pids()
        if pid != os.getpid() and wanted <= _environment(pid) and start_time(pid) is not None
    ]


def _environment(pid: int) -> set[bytes]:
    """What a process was started with. In the middle of an exec the kernel shows none; so ask again."""
    for _ in range(EXEC_TRIES):
        settled = not _in_exec(pid)
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                text = file.read(ENVIRON_BYTES_MAX)
        except OSError:
            return set()
        if text or settled:
            return set(text.split(b"\0"))
        time.sleep(EXEC_SECONDS)
    return set()


def _in_exec(pid: int) -> bool:
    """Whether a program's memory is there and its environment (fields 50 and 51 of stat) not yet."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX" or int(fields[6]) & PF_KTHREAD:
        return False
    return int(fields[48]) == 0
