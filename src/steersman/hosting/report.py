"""What the folders of a home say about the ranks of one driver.

    exit.json            exited, for good: read once and kept
    alive                starting, setup or running, as started.json says
    started.json alone   whoever hosts it is gone: `conclude` is asked to end what is left and record ``lost``
    order.json alone     starting: claimed, and nothing of it has ever run
    anything unreadable  unknown, which destroys nothing

Whether a rank is alive the driver knows: on this machine the shim's lock tells, elsewhere the cluster does.
An idle home is cheap: an ended rank costs nothing but its place in the answer, and the folders are listed
again only when the list of runs has changed or a rank was touched through this driver. One thread at a time.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import msgspec

from steersman.hosting import files, records
from steersman.hosting.checkpoints import Checkpoints
from steersman.model.errors import DriverError
from steersman.model.ids import RunId
from steersman.ports import run_dir
from steersman.ports.driver import RankKey, RankReport

METRICS_MAX = 64
RANK_NAME = re.compile(r"0|[1-9][0-9]{0,5}")

Cause = Literal["exited", "start-failed", "not-taken", "setup-failed", "lost", "memory"]


class Sight(NamedTuple):
    """What a driver knows of its ranks besides their folders.

    `alive`: whether whoever hosts the rank is there; None when nobody can tell. `conclude` has the end
    recorded of a rank that had begun and is not alive, if that can be done now.
    """

    driver: str
    alive: Callable[[RankKey, Path], bool | None]
    conclude: Callable[[RankKey, Path], None]


class Scanner:
    """Keeps what cannot change any more between two looks."""

    def __init__(self, home: Path, sight: Sight) -> None:
        self._sight = sight
        self._runs = home / run_dir.RUNS
        self._listed_at: int | None = None
        self._touched: deque[RankKey] = deque()
        self._known: dict[RankKey, Path] = {}
        self._ended: dict[RankKey, RankReport] = {}
        self._orders: dict[RankKey, records.Order] = {}
        self._checkpoints = Checkpoints()

    def touch(self, key: RankKey) -> None:
        """Something was ordered of this rank: it may be new, or forgotten."""
        self._touched.append(key)

    def order(self, key: RankKey) -> records.Order | None:
        """The order of a rank on record; None when there is none that can be read."""
        found = self._orders.get(key)
        if found is None:
            try:
                found = records.read(self._runs / key.run / str(key.rank) / run_dir.ORDER, records.Order)
            except DriverError:
                return None
        return found

    def scan(self) -> list[RankReport]:
        """Every rank that is not discarded, in order of key."""
        self._list()
        reports: list[RankReport] = []
        for key in sorted(self._known):
            report = self._ended.get(key) or self._look(key, self._known[key])
            if report is not None:
                reports.append(report)
        return reports

    def _list(self) -> None:
        while self._touched:
            key = self._touched.popleft()
            self._add(key, self._runs / key.run / str(key.rank))
        try:
            changed_at = self._runs.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed_at == self._listed_at:
            return
        self._listed_at = changed_at
        found = {
            RankKey(run=RunId(run.name), rank=int(rank.name)): rank
            for run in _folders(self._runs)
            for rank in _folders(run)
            if RANK_NAME.fullmatch(rank.name)
        }
        for key in self._known.keys() - found.keys():
            self._forget(key)
        for key, folder in found.items():
            if key not in self._known:
                self._add(key, folder)

    def _add(self, key: RankKey, folder: Path) -> None:
        if (folder / run_dir.DISCARDED).exists() or not (folder / run_dir.ORDER).exists():
            self._forget(key)
        else:
            self._known[key] = folder

    def _forget(self, key: RankKey) -> None:
        self._known.pop(key, None)
        self._ended.pop(key, None)
        self._orders.pop(key, None)

    def _look(self, key: RankKey, folder: Path) -> RankReport | None:
        try:
            order = self._orders.get(key) or records.read(folder / run_dir.ORDER, records.Order)
            if order is None or order.driver != self._sight.driver:
                self._forget(key)
                return None
            self._orders[key] = order
            return self._report(key, folder, order)
        except (DriverError, OSError) as error:
            order = self._orders.get(key)
            return RankReport(
                key=key,
                epoch=0 if order is None else order.epoch,
                decision="" if order is None else order.decision,
                state="unknown",
                detail=error.message if isinstance(error, DriverError) else str(error),
            )

    def _report(self, key: RankKey, folder: Path, order: records.Order) -> RankReport:
        alive = self._sight.alive(key, folder)  # before the end is read: a shim records it, then lets go
        ended = records.read(folder / run_dir.EXIT, records.Exit)
        started = records.read(folder / run_dir.STARTED, records.Started)
        if ended is None and alive is False and started is not None:
            self._sight.conclude(key, folder)
            ended = records.read(folder / run_dir.EXIT, records.Exit)
        report = RankReport(
            key=key,
            epoch=max(order.epoch, files.recorded_epoch(folder)),
            decision=order.decision,
            state=_state(started, alive=alive),
            pid=None if started is None else started.pid,
            started_ms=None if started is None else started.at_ms,
            limits="" if started is None else started.limits,
            checkpoints=self._checkpoints.published_by(Path(order.checkpoint_dir), key.run),
        )
        report = _with_ready(_with_progress(report, folder), folder)
        if ended is not None:
            report = self._ended[key] = _with_end(report, ended)
            self._orders.pop(key, None)
        return report


def _folders(path: Path) -> Iterable[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def _state(
    started: records.Started | None, *, alive: bool | None
) -> Literal["starting", "setup", "running", "unknown"]:
    if alive is None:
        return "unknown"
    if started is None:
        return "starting"
    if not alive:
        return "unknown"  # asked to conclude, and not concluded
    return "setup" if started.phase == "setup" else "running"


def _with_progress(report: RankReport, folder: Path) -> RankReport:
    """What the program last said of itself; nothing, when it is no such thing: it is the user's file."""
    try:
        progress = records.read(folder / run_dir.PROGRESS, records.Progress)
    except DriverError:
        progress = None
    if progress is None:
        return report
    metrics = {"step": float(progress.step), **progress.metrics}
    finite = [(name, value) for name, value in sorted(metrics.items()) if math.isfinite(value)]
    return msgspec.structs.replace(report, progress=tuple(finite[:METRICS_MAX]), completed=progress.completed)


def _with_ready(report: RankReport, folder: Path) -> RankReport:
    """Since when a replica answers; nothing, when it does not or its word is damaged."""
    try:
        ready = records.read(folder / run_dir.READY, records.Ready)
    except DriverError:
        ready = None
    if ready is None:
        return report
    return msgspec.structs.replace(report, ready_ms=ready.at_ms, load_ms=ready.load_ms)


def _with_end(report: RankReport, ended: records.Exit) -> RankReport:
    if ended.cause not in get_args(Cause):
        raise DriverError(f"exit.json names an unknown cause {ended.cause!r}")
    return msgspec.structs.replace(
        report,
        state="exited",
        ended_ms=ended.at_ms,
        exit_code=ended.exit_code,
        signal=ended.signal,
        cause=cast(Cause, ended.cause),
        detail=ended.detail,
        stop_delivered=ended.stop_delivered,
        artifacts=ended.artifacts,
    )
