"""Ends what a cluster has left, whoever started it: `python -m tests.ray.keeper TAG FOLDER`.

Theory. It acts when its input ends: a pipe whose other end the starter holds and nobody else. That end closes
when the starter says so, and also when it is killed; so there is one way to clear up, and it is always taken.
It is in a session of its own: what ends a test run at the terminal does not end it.
"""

import shutil
import signal
import sys
from pathlib import Path

from tests.ray import network, processes


def clear(tag: str, folder: Path) -> None:
    """Processes first: a folder in use comes back."""

    def left() -> list[int]:
        found = {pid for space in network.spaces(tag) for pid in processes.inside(space)}
        return sorted(found | set(processes.tree(*processes.marked(f"{tag}/"))))

    processes.end_all(left)
    network.remove(tag)
    shutil.rmtree(folder, ignore_errors=True)


def main(tag: str, folder: Path) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.SIG_IGN)
    sys.stdin.buffer.read()
    clear(tag, folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
