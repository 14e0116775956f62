"""A program that tells that it lives: `python beat.py SECONDS CODE`, or `python beat.py TRAINING.py`.

It writes ``start`` and ``end`` to the ledger (see `bench.home`), and the time into a file of its own in BEATS
ten times a second. With a training it does so beside it. It knows nothing but its environment, and imports
nothing that is not in the standard library.
"""

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

EVERY_SECONDS = 0.1
TEMPORARY = 75

LEDGER = Path(os.environ["LEDGER"])
RANK = f"{os.environ['STEERSMAN_RUN_ID']}/{os.environ['STEERSMAN_NODE_RANK']}"
NONCE = f"{os.getpid()}.{time.time_ns()}"
BEATS = Path(os.environ["BEATS"]) / f"{RANK.replace('/', '_')}_{NONCE}"


def note(*words: object) -> None:
    """One line in the ledger, written at once."""
    with LEDGER.open("ab", buffering=0) as ledger:
        ledger.write(" ".join(map(str, words)).encode() + b"\n")


def beat() -> None:
    """The time, until nothing is left of this process."""
    with BEATS.open("ab", buffering=0) as file:
        while True:
            file.write(f"{time.time_ns()}\n".encode())
            time.sleep(EVERY_SECONDS)


def leave(code: int) -> None:
    """The end, on record before it is one."""
    note("end", RANK, NONCE, code)
    os._exit(code)


def main(*words: str) -> None:
    note("start", RANK, NONCE)
    threading.Thread(target=beat, daemon=True).start()
    if len(words) == 1:
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            leave(end.code if isinstance(end.code, int) else int(end.code is not None))
        leave(0)
    signal.signal(signal.SIGTERM, lambda *_: leave(TEMPORARY))
    time.sleep(float(words[0]))
    leave(int(words[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
