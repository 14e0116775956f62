"""Beginning and ending one rank in its folder: the claim, the order, the shim. All blocking.

    begin   fence ─▶ ended? lives? ─▶ order.json ─▶ shim ─▶ payload ─▶ its answer
                                                      └─ lock ─▶ started.json ─▶ program

The shim's lock is the claim that counts, and ``started.json`` is durable before the program may run. So
whoever begins a rank may die at any of the FAILPOINTS, and the next `begin` finds what is there: an end
(nothing to do), a held lock (it lives), a record without a lock (it was lost; the new shim says so), or
nothing, and then nothing of the program has ever run. Secrets go through an anonymous pipe; a payload cut
short begins nothing.

The standard library alone, for this is shipped to other machines.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from steersman.hosting import files
from steersman.model.errors import DriverError
from steersman.ports import run_dir

READY_SECONDS_MAX = 30.0
READY_BYTES_MAX = 4_096
BEGIN_RETRY_SECONDS = 0.01
ORDER_FORMAT = 1
RUN_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,126}")
RANK_MAX = 100_000

FAILPOINTS = (
    "start:begin",
    "start:fenced",
    "start:workdir",
    "start:epoch",
    "start:ordered",
    "start:spawned",
    "start:handed-over",
    "start:answered",
    "stop:begin",
    "stop:fenced",
    "stop:epoch",
    "stop:written",
    "stop:rung",
    "discard:begin",
    "discard:marked",
    "discard:removed",
)
"""Every boundary at which the hook of `Shims` is called, in order."""


def _pass(_name: str) -> None:
    """Nobody wants to know which boundary was reached."""


class Shims(NamedTuple):
    """How shims are started: their command (`steersman.dataplane.shim.shim_argv`), what they inherit
    (Steersman's own variables are left out), and who is called with each of FAILPOINTS."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    failpoint: Callable[[str], None] = _pass


def rank_dir(home: Path, run: str, rank: int) -> Path:
    """The folder of one rank. Raises DriverError for a name that is no plain name."""
    if not RUN_NAME.fullmatch(run) or not 0 <= rank <= RANK_MAX:
        raise DriverError(f"{run!r}/{rank} cannot name a run's folder")
    return home / run_dir.RUNS / run / str(rank)


def refuse_stale(folder: Path, epoch: int) -> int:
    """The epoch on record; DriverError when the order's is lower."""
    seen = files.recorded_epoch(folder)
    if epoch < seen:
        raise fenced(f"{folder.parent.name}/{folder.name}", seen, epoch)
    return seen


def fenced(what: str, seen: int, epoch: int) -> DriverError:
    """The refusal of an order whose epoch is lower than one that was seen."""
    return DriverError(
        f"{what} has seen epoch {seen} and refuses an order of epoch {epoch}",
        hint="another control plane has taken this home; stop this one",
        code="driver-fenced",
    )


def accept_epoch(folder: Path, epoch: int) -> None:
    """Refuse a stale order, else put its epoch on record. The fence must be held."""
    if refuse_stale(folder, epoch) < epoch:
        files.write_json(folder / run_dir.EPOCH, {"epoch": epoch})


class Beginning(NamedTuple):
    """What a rank is begun with. `order` makes ``order.json`` and the folders it names; it is called only if
    nothing has begun. `lifeline`: a descriptor whose other end is held by whoever hosts the rank."""

    epoch: int
    order: Callable[[], dict[str, Any]]
    secrets: Sequence[Sequence[str]]
    lifeline: int | None = None
    lifeline_ms: int = 0


def begin(shims: Shims, folder: Path, rank: Beginning) -> None:
    """Begin a rank or find it. Raises DriverError, OSError."""
    shims.failpoint("start:begin")
    folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
    with files.flocked(folder / run_dir.FENCE):
        shims.failpoint("start:fenced")
        refuse_stale(folder, rank.epoch)
        if (folder / run_dir.EXIT).exists() or (folder / run_dir.DISCARDED).exists():
            return
        alive = _lives(folder)
        if not alive and not (folder / run_dir.STARTED).exists():
            body = rank.order()
            shims.failpoint("start:workdir")
        accept_epoch(folder, rank.epoch)
        shims.failpoint("start:epoch")
        if alive:
            return
        if not (folder / run_dir.STARTED).exists():
            (folder / run_dir.LOGS).mkdir(mode=files.DIR_MODE, exist_ok=True)
            files.write_json(folder / run_dir.ORDER, body)
            shims.failpoint("start:ordered")
        payload = {"secrets": [list(pair) for pair in rank.secrets], "conclude": False}
        if rank.lifeline is not None:
            payload["lifeline_ms"] = rank.lifeline_ms
        spawn(shims, folder, payload, rank.lifeline)


def _lives(folder: Path) -> bool:
    """Whether a shim has the rank.

    One that holds the lock and has put nothing on record is beginning or dying (a killed process lets go of
    its lock last, and its child behind the gate holds it an instant longer): wait and see which. To take a
    dying one for alive would leave the rank unbegun for ever.
    """
    deadline = time.monotonic() + READY_SECONDS_MAX
    while files.shim_lives(folder):
        if (folder / run_dir.STARTED).exists() or (folder / run_dir.EXIT).exists():
            return True
        if time.monotonic() > deadline:
            raise DriverError(
                f"the shim of {folder.parent.name}/{folder.name} holds its lock and does not begin",
                hint="the machine is overloaded, or its disk hangs; the order is tried again",
            )
        time.sleep(BEGIN_RETRY_SECONDS)
    return False


def stop(shims: Shims, folder: Path, notice: Mapping[str, Any]) -> None:
    """Ask for an end; `notice` is ``stop.json``: cause, grace_ms, epoch. Raises DriverError, OSError."""
    shims.failpoint("stop:begin")
    if not (folder / run_dir.ORDER).exists():
        return
    with files.flocked(folder / run_dir.FENCE):
        shims.failpoint("stop:fenced")
        if (folder / run_dir.EXIT).exists() or (folder / run_dir.DISCARDED).exists():
            return
        accept_epoch(folder, notice["epoch"])
        shims.failpoint("stop:epoch")
        grace_ms = min(notice["grace_ms"], _grace_left_ms(folder / run_dir.STOP))
        files.write_json(folder / run_dir.STOP, {**notice, "grace_ms": grace_ms})
        shims.failpoint("stop:written")
        if _lives(folder):
            ring_control(folder)
            shims.failpoint("stop:rung")
        else:  # nobody is there to obey: a shim that may only record the end
            spawn(shims, folder, {"secrets": (), "conclude": True})


def _grace_left_ms(path: Path) -> float:
    """What an earlier notice leaves, whether or not its shim has read it; without one there is no limit."""
    data = files.read_bytes(path)
    if data is None:
        return math.inf
    try:
        grace_ms = int(json.loads(data)["grace_ms"])
        passed_ms = time.time() * 1000 - path.stat().st_mtime * 1000
    except (OSError, ValueError, TypeError, KeyError):
        return math.inf
    return max(grace_ms - max(int(passed_ms), 0), 0)


def set_interval(folder: Path, epoch: int, interval_ms: int) -> None:
    """Leave a new checkpoint interval for the trainer to find. Raises DriverError, OSError."""
    if not (folder / run_dir.ORDER).exists():
        return
    with files.flocked(folder / run_dir.FENCE):
        if (folder / run_dir.EXIT).exists():
            return
        accept_epoch(folder, epoch)
        files.write_json(folder / run_dir.INTERVAL, {"interval_ms": interval_ms, "epoch": epoch})


def conclude(shims: Shims, folder: Path) -> None:
    """Have the end of a rank recorded whose shim was killed. Raises DriverError, OSError."""
    with files.flocked(folder / run_dir.FENCE):
        if not (folder / run_dir.EXIT).exists() and not files.shim_lives(folder):
            spawn(shims, folder, {"secrets": (), "conclude": True})


def ring_control(folder: Path) -> None:
    """Tell the shim to read its files now; it looks each second anyway."""
    try:
        descriptor = os.open(folder / run_dir.CONTROL, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # not yet listening, or gone
        return
    try:
        os.write(descriptor, b"!")
    except OSError:  # full: then it has been rung already
        return
    finally:
        os.close(descriptor)


def spawn(shims: Shims, folder: Path, payload: Mapping[str, Any], lifeline: int | None = None) -> None:
    """Start a shim on a folder, hand over the payload, wait for its answer. Raises DriverError."""
    payload_read, payload_write = os.pipe()
    ready_read, ready_write = os.pipe()
    with os.fdopen(payload_write, "wb") as hand_over, os.fdopen(ready_read, "rb", buffering=0) as ready:
        try:
            _popen(shims, folder, (payload_read, ready_write, *([] if lifeline is None else [lifeline])))
        finally:
            os.close(payload_read)
            os.close(ready_write)
        shims.failpoint("start:spawned")
        try:
            hand_over.write(json.dumps(payload).encode())
            hand_over.close()
        except BrokenPipeError:
            pass  # it died at once: its answer, or the lack of one, tells
        shims.failpoint("start:handed-over")
        answer = _answer(ready.fileno())
        shims.failpoint("start:answered")
    if answer not in (run_dir.READY_STARTED, run_dir.READY_HELD, run_dir.READY_ENDED):
        reason = answer[1:].decode("utf-8", "replace") if answer else "it ended without an answer"
        raise DriverError(
            f"the shim of {folder.parent.name}/{folder.name} could not begin: {reason}",
            hint=f"see {folder / run_dir.LOGS / run_dir.SHIM_LOG_FILE}",
        )


def _popen(shims: Shims, folder: Path, descriptors: tuple[int, ...]) -> None:
    """Run the shim's first process, which forks and leaves: there is nothing to wait for later."""
    (folder / run_dir.LOGS).mkdir(mode=files.DIR_MODE, exist_ok=True)
    environ = {name: value for name, value in shims.environ.items() if not name.startswith("STEERSMAN_")}
    with (folder / run_dir.LOGS / run_dir.SHIM_LOG_FILE).open("ab") as errors:
        process = subprocess.Popen(
            [*shims.argv, str(folder), *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            cwd="/",
            env=environ,
            pass_fds=descriptors,
            start_new_session=True,
        )
    try:
        process.wait(timeout=READY_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()  # the first process, which has begun nothing; its fork would have let it leave
        process.wait()


def _answer(descriptor: int) -> bytes:
    """The shim's answer; empty when it died. Raises DriverError when it does not answer in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + READY_SECONDS_MAX
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            return os.read(descriptor, READY_BYTES_MAX)
    raise DriverError(
        f"a shim did not answer within {READY_SECONDS_MAX:.0f} s",
        hint="the machine is overloaded, or its disk hangs; the start is tried again",
    )
