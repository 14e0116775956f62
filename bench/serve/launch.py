"""Runs one server so that its whole tree can be counted and ended: `python launch.py COMMAND…`. Standard
library only.

Theory: this process is a child subreaper, so that whatever a server starts stays below it, daemons that
forked twice included. It keeps to the cores of BENCH_CORES, starts one command, reaps whoever ends, and on
SIGTERM, or when its own parent dies, asks the command to end and after GRACE_SECONDS kills what is left.
Because everybody who ends is waited for by somebody in the tree, the CPU time of the ended ones is in the
`children` times of the living, and nothing is lost from the sum (see `tree`).
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE_SECONDS = 6.0
KILL_SECONDS_MAX = 10.0
LOOK_SECONDS = 0.05
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ENDING = (signal.SIGTERM, signal.SIGINT)


def below(root: int) -> list[int]:
    """Every process below `root`."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, ahead = [], [root]
    while ahead:
        children = parents.get(ahead.pop(), [])
        found += children
        ahead += children
    return found


def _reap() -> dict[int, int]:
    """Who ended, with how."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue  # it ended meanwhile


def _end(main: int, ended: bool) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    if not ended:
        _send([main], signal.SIGTERM)
    while below(os.getpid()) and time.monotonic() < deadline and not ended:
        signal.sigtimedwait((signal.SIGCHLD,), LOOK_SECONDS)
        ended = main in _reap()
    deadline = time.monotonic() + KILL_SECONDS_MAX
    while (left := below(os.getpid())) and time.monotonic() < deadline:
        _send(left, signal.SIGKILL)
        signal.sigtimedwait((signal.SIGCHLD,), LOOK_SECONDS)
        _reap()


def main() -> int:
    """Runs the command; its exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    os.sched_setaffinity(0, {int(core) for core in os.environ["BENCH_CORES"].split(",")})
    child = subprocess.Popen(sys.argv[1:])
    # Blocked only now: a mask would be inherited by the server.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, *ENDING))
    ended = _reap()
    while child.pid not in ended:
        if signal.sigwait((signal.SIGCHLD, *ENDING)) in ENDING:
            break
        ended |= _reap()
    _end(child.pid, child.pid in ended)
    return max(ended.get(child.pid, 0), 0)


if __name__ == "__main__":
    sys.exit(main())
