"""The control plane that `bench.chaos` kills: the real server, with a hook at every boundary.

    python -m bench.chaos_plane HOME [--kill NAME:NTH] [--planted BUG]

It prints one line when it serves. After SIGUSR1 it counts arrivals, and kills itself with SIGKILL at the NTH
arrival at the boundary NAME: one of the engine's (`ENGINE_BOUNDARIES`) or of the local driver's FAILPOINTS.
Back-offs and the time before a preemption are shortened, so that much happens in little time; nothing else
differs from `steer server`. A planted bug shows that the checks of `bench.chaos` bite.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from steersman.app import server
from steersman.app.server_file import ServerFile
from steersman.app.settings import Settings
from steersman.app.wiring import Wired, wired
from steersman.drivers.local import LocalDriver
from steersman.drivers.local.spawn import rank_dir
from steersman.engine import engine
from steersman.engine.parts import Parts
from steersman.model.events import Event, RankExited
from steersman.model.policy import Policy
from steersman.model.snapshot import Run, RunState, Snapshot
from steersman.ports import run_dir
from steersman.ports.driver import RankReport, StartOrder, StopOrder
from steersman.sensors import runs

ENGINE_BOUNDARIES = tuple(
    f"{side}-{what}"
    for what in ("record", "intent", "begin", "end", "tune", "discard")
    for side in ("before", "after")
)
PLANTED = ("double-start", "wrong-exit", "deaf-stop")
POLICY = Policy(backoff_ms_base=100, backoff_ms_max=1_000, preempt_run_ms_min=100)
SERVING = "serving"


class Fuse:
    """Counts arrivals once it is armed; threads may share it."""

    def __init__(self, kill: str) -> None:
        self._name, _, nth = kill.rpartition(":")
        self._left = int(nth or 0)
        self._armed = False
        self._lock = threading.Lock()

    def arm(self, *_signal: object) -> None:
        self._armed = True

    def reach(self, name: str) -> None:
        """A boundary; the last one at the NTH arrival."""
        if not self._armed or name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def hooked(fuse: Fuse, planted: str) -> Callable[..., contextlib.AbstractContextManager[Wired]]:
    """The wiring of the server with the hooks in it."""

    @contextlib.contextmanager
    def build(settings: Settings, environ: Mapping[str, str]) -> Iterator[Wired]:
        with wired(settings, environ) as home:
            yield home._replace(parts=_with_hooks(home.parts, fuse, planted))

    return build


def _with_hooks(parts: Parts, fuse: Fuse, planted: str) -> Parts:
    driver = parts.drivers["local"]
    assert isinstance(driver, LocalDriver)
    driver._settings = replace(driver._settings, failpoint=fuse.reach)
    if planted == "double-start":
        _plant_double_start(driver)
    elif planted == "wrong-exit":
        _plant_wrong_exit()
    elif planted == "deaf-stop":
        _plant_deaf_stop(driver)
    return dataclasses.replace(parts, reach=fuse.reach)


def _replace(owner: object, name: str, value: object) -> None:
    assert hasattr(owner, name), name
    setattr(owner, name, value)


def _plant_double_start(driver: LocalDriver) -> None:
    honest = driver.start

    async def start(order: StartOrder) -> None:
        await honest(order)
        folder = rank_dir(driver._settings.home, order.key)
        for name in (run_dir.LOCK, run_dir.STARTED):
            (folder / name).unlink(missing_ok=True)
        await honest(order)

    _replace(driver, "start", start)


def _plant_wrong_exit() -> None:
    honest = runs._ended

    def ended(run: Run, report: RankReport) -> Iterator[Event]:
        for event in honest(run, report):
            if isinstance(event, RankExited) and event.exit_code is not None:
                yield replace(event, exit_code=event.exit_code + 1)
            else:
                yield event

    _replace(runs, "_ended", ended)


def _plant_deaf_stop(driver: LocalDriver) -> None:
    honest = runs.news

    async def stop(_order: StopOrder) -> None:
        return

    def news(snapshot: Snapshot, report: RankReport) -> Iterator[Event]:
        run = snapshot.runs.get(report.key.run)
        if run is not None and run.state is RunState.STOPPING and run.ranks[report.key.rank].end is None:
            yield RankExited(run=run.id, rank=report.key.rank, at_ms=snapshot.now_ms, exit_code=75)
        else:
            yield from honest(snapshot, report)

    _replace(driver, "stop", stop)
    _replace(runs, "news", news)


def _where(*_signal: object) -> None:
    """Write down where every task stands, for a plane that does not come up."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("home", type=Path)
    parser.add_argument("--kill", default=":0")
    parser.add_argument("--planted", choices=PLANTED)
    options = parser.parse_args()
    fuse = Fuse(options.kill)
    signal.signal(signal.SIGUSR1, fuse.arm)
    signal.signal(signal.SIGUSR2, _where)
    _replace(server, "wired", hooked(fuse, options.planted or ""))
    _replace(engine, "Policy", lambda: POLICY)  # of a new home

    def announce(_here: ServerFile) -> None:
        sys.stdout.write(f"{SERVING}\n")
        sys.stdout.flush()

    server.run_server(Settings(home=options.home, port=0), os.environ, announce)


if __name__ == "__main__":
    main()
