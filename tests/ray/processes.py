"""Which processes belong to a node, and how they are ended: by id, never by name.

Theory. A node's processes are those below the one that was started; those that carry its mark in their
environment, which children inherit (what has lost its parent is found so); and, in a namespace, all that are
in there, but for guests: programs that were put there to talk to the cluster, and carry a mark of their own.
A program that gives itself another title may write over its environment and so lose its mark, as some of
Ray's do; those are below one that has it.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MARK = "RAYCLUSTER_NODE"
"""tag/node: of a node's processes."""
GUEST = "RAYCLUSTER_GUEST"
"""Of a program that runs in a namespace and is not part of it."""
ROUNDS_MAX = 20
GONE_SECONDS_MAX = 20.0


def tree(*roots: int) -> list[int]:
    """Processes and all below them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], list(roots)
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def marked(mark: str) -> list[int]:
    """Processes whose mark begins so: `tag/` is a whole cluster."""
    return [pid for pid in pids() if variable(pid, MARK).startswith(mark)]


def inside(space: str) -> list[int]:
    """Processes in a namespace, without guests."""
    said = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False).stdout
    return [pid for pid in map(int, said.split()) if not variable(pid, GUEST)]


def holds(pid: int, folder: str) -> bool:
    """Whether a process is in a folder or has a file of it open, also one that is removed."""
    with contextlib.suppress(OSError):
        process = Path(f"/proc/{pid}")
        for link in (process / "cwd", *(process / "fd").iterdir()):
            with contextlib.suppress(OSError):
                if f"{os.readlink(link).removesuffix(' (deleted)')}/".startswith(folder):
                    return True
    return False


def pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def variable(pid: int, name: str) -> str:
    """A variable that a process was started with; empty when there is none, or no process."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(name.encode() + b"="):
                return entry.partition(b"=")[2].decode(errors="replace")
    return ""


def command(pid: int) -> str:
    """Its command line; empty for one that has ended, also if nobody has asked for its end yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def send(pid: int, sign: int) -> None:
    """A signal, if there is still somebody to take it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)


def end_all(find: Callable[[], Sequence[int]]) -> None:
    """End what `find` finds: all are stopped before any is killed, so that none begins another or sees
    another's end. Returns when they are gone."""
    stopped: list[int] = []
    for _ in range(ROUNDS_MAX):
        fresh = [pid for pid in find() if pid not in stopped]
        if not fresh:
            break
        for pid in fresh:
            send(pid, signal.SIGSTOP)
        stopped += fresh
    for pid in stopped:
        send(pid, signal.SIGKILL)
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while any(command(pid) for pid in stopped) and time.monotonic() < deadline:
        time.sleep(0.02)
