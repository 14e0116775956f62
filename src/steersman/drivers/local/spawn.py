"""Beginning and ending one rank: the claim, the order, the shim. All blocking; called in threads.

    start   fence ─▶ ended? lives? ─▶ workdir ─▶ order.json ─▶ shim ─▶ payload ─▶ its answer
                                                                  └─ lock ─▶ started.json ─▶ program

The shim's lock is the claim that counts, and ``started.json`` is durable before the program may run. So a
control plane may die at any of the FAILPOINTS, and the next `start` finds what is there: an end (nothing to
do), a held lock (it lives), a record without a lock (it was lost; the new shim says so), or nothing, and then
nothing of the program has ever run. Secrets go through an anonymous pipe; a payload cut short begins nothing.
"""

import os
import re
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from steersman.drivers.local import files
from steersman.drivers.local.devices import device_envs
from steersman.drivers.local.folders import place_sdk, place_workdir
from steersman.model.errors import DriverError
from steersman.model.workload import Job
from steersman.ports import run_dir
from steersman.ports.driver import RankKey, StartOrder, StopOrder

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
"""Every boundary at which the hook of `LocalSettings` is called, in order."""


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the composition root decides.

    `shim_argv` is the command that `steersman.dataplane.shim.shim_argv` names. `trainer_path` is the folder
    of the package steersman_trainer. `programs` are the commands of the data plane's own programs by name: an
    interpreter and its arguments. `environ` is what every program inherits (Steersman's own variables are
    left out). `failpoint` is called with each of FAILPOINTS, in a worker thread.
    """

    home: Path
    home_id: str
    shim_argv: Sequence[str]
    trainer_path: Path | None = None
    programs: Mapping[str, Sequence[str]] = {}
    environ: Mapping[str, str] = {}
    failpoint: Callable[[str], None] = lambda _name: None


def rank_dir(home: Path, key: RankKey) -> Path:
    """The folder of one rank. Raises DriverError for a name that is no plain name."""
    if not RUN_NAME.fullmatch(key.run) or not 0 <= key.rank <= RANK_MAX:
        raise DriverError(f"{key.run!r}/{key.rank} cannot name a run's folder")
    return home / run_dir.RUNS / key.run / str(key.rank)


def refuse_stale(folder: Path, epoch: int) -> int:
    """The epoch on record; DriverError when the order's is lower."""
    seen = files.recorded_epoch(folder)
    if epoch < seen:
        raise DriverError(
            f"{folder.parent.name}/{folder.name} has seen epoch {seen} and refuses an order of epoch {epoch}",
            hint="another control plane has taken this home; stop this one",
            code="driver-fenced",
        )
    return seen


def accept_epoch(folder: Path, epoch: int) -> None:
    """Refuse a stale order, else put its epoch on record. The fence must be held."""
    if refuse_stale(folder, epoch) < epoch:
        files.write_json(folder / run_dir.EPOCH, files.Epoch(epoch=epoch))


def start(settings: LocalSettings, order: StartOrder) -> None:
    """Begin a rank or find it. Raises DriverError, OSError."""
    settings.failpoint("start:begin")
    folder = rank_dir(settings.home, order.key)
    folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
    with files.flocked(folder / run_dir.FENCE):
        settings.failpoint("start:fenced")
        refuse_stale(folder, order.epoch)
        if (folder / run_dir.EXIT).exists() or (folder / run_dir.DISCARDED).exists():
            return
        alive = _lives(folder)
        if not alive and not (folder / run_dir.STARTED).exists():
            body = _order(settings, order, folder)
            settings.failpoint("start:workdir")
        accept_epoch(folder, order.epoch)
        settings.failpoint("start:epoch")
        if alive:
            return
        if not (folder / run_dir.STARTED).exists():
            (folder / run_dir.LOGS).mkdir(mode=files.DIR_MODE, exist_ok=True)
            files.write_json(folder / run_dir.ORDER, body)
            settings.failpoint("start:ordered")
        spawn(settings, folder, {"secrets": order.secrets, "conclude": False})


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


def _order(settings: LocalSettings, order: StartOrder, folder: Path) -> dict[str, Any]:
    """``order.json``: everything the shim needs that is no secret; makes the folders it names."""
    home, job = settings.home, order.job
    declaration = f"{order.workload}-{order.generation}"
    workdir = place_workdir(home, declaration, job.workdir)
    output = folder.parent / run_dir.OUTPUT
    checkpoints = home / run_dir.CHECKPOINTS / f"{order.workload}-{order.lineage}"
    for made in (output, checkpoints):
        made.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
    sdk = None if settings.trainer_path is None else place_sdk(home, settings.trainer_path)
    return {
        "format": ORDER_FORMAT,
        "home": str(home),
        "home_id": settings.home_id,
        "rank_dir": str(folder),
        "run": order.key.run,
        "rank": order.key.rank,
        "num_ranks": order.num_ranks,
        "workload": order.workload,
        "generation": order.generation,
        "decision": order.decision,
        "epoch": order.epoch,
        "setup": job.setup,
        "command": _command(settings, job),
        "envs": (*job.envs, *device_envs(order.node_devices, order.placement), *_replica_env(order)),
        "workdir": str(workdir),
        "output_dir": str(output),
        "checkpoint_dir": str(checkpoints),
        "checkpoint_keep": job.checkpoint.keep_last,
        "checkpoint_interval_ms": order.checkpoint_interval_ms,
        "inputs": order.input_paths,
        "artifacts": [(artifact.name, artifact.path) for artifact in job.artifacts],
        "cpu_milli": order.placement.cpu_milli,
        "memory_bytes": order.placement.memory_bytes,
        "trainer_dir": None if sdk is None else str(sdk),
    }


def _command(settings: LocalSettings, job: Job) -> str:
    """What the shell runs. Raises DriverError for a program that this control plane does not have."""
    if job.program == "command":
        return job.run
    argv = settings.programs.get(job.program)
    if argv is None:
        raise DriverError(f"this control plane cannot run a {job.program}", hint="install Steersman whole")
    interpreter = None if job.replica is None else job.replica.python
    return "exec " + shlex.join([interpreter or argv[0], *argv[1:]])


def _replica_env(order: StartOrder) -> tuple[tuple[str, str], ...]:
    serves = order.job.replica
    if serves is None:
        return ()
    threads = max(order.placement.cpu_milli // 1000, 1)
    body = {**msgspec.to_builtins(serves), "threads": threads}
    return ((run_dir.ENV_REPLICA, msgspec.json.encode(body).decode()),)


def stop(settings: LocalSettings, order: StopOrder) -> None:
    """Ask for an end. Raises DriverError, OSError."""
    settings.failpoint("stop:begin")
    folder = rank_dir(settings.home, order.key)
    if not (folder / run_dir.ORDER).exists():
        return
    with files.flocked(folder / run_dir.FENCE):
        settings.failpoint("stop:fenced")
        if (folder / run_dir.EXIT).exists() or (folder / run_dir.DISCARDED).exists():
            return
        accept_epoch(folder, order.epoch)
        settings.failpoint("stop:epoch")
        notice = {"cause": order.cause, "grace_ms": order.grace_ms, "epoch": order.epoch}
        files.write_json(folder / run_dir.STOP, notice)
        settings.failpoint("stop:written")
        if _lives(folder):
            ring_control(folder)
            settings.failpoint("stop:rung")
        else:  # nobody is there to obey: a shim that may only record the end
            spawn(settings, folder, {"secrets": (), "conclude": True})


def set_interval(settings: LocalSettings, key: RankKey, epoch: int, interval_ms: int) -> None:
    """Leave a new checkpoint interval for the trainer to find. Raises DriverError, OSError."""
    folder = rank_dir(settings.home, key)
    if not (folder / run_dir.ORDER).exists():
        return
    with files.flocked(folder / run_dir.FENCE):
        if (folder / run_dir.EXIT).exists():
            return
        accept_epoch(folder, epoch)
        files.write_json(folder / run_dir.INTERVAL, {"interval_ms": interval_ms, "epoch": epoch})


def conclude(settings: LocalSettings, folder: Path) -> None:
    """Have the end of a rank recorded whose shim was killed. Raises DriverError, OSError."""
    with files.flocked(folder / run_dir.FENCE):
        if not (folder / run_dir.EXIT).exists() and not files.shim_lives(folder):
            spawn(settings, folder, {"secrets": (), "conclude": True})


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


def spawn(settings: LocalSettings, folder: Path, payload: Mapping[str, Any]) -> None:
    """Start a shim on a folder, hand over the payload, wait for its answer. Raises DriverError."""
    payload_read, payload_write = os.pipe()
    ready_read, ready_write = os.pipe()
    with os.fdopen(payload_write, "wb") as hand_over, os.fdopen(ready_read, "rb", buffering=0) as ready:
        try:
            _popen(settings, folder, (payload_read, ready_write))
        finally:
            os.close(payload_read)
            os.close(ready_write)
        settings.failpoint("start:spawned")
        try:
            hand_over.write(msgspec.json.encode(payload))
            hand_over.close()
        except BrokenPipeError:
            pass  # it died at once: its answer, or the lack of one, tells
        settings.failpoint("start:handed-over")
        answer = _answer(ready.fileno())
        settings.failpoint("start:answered")
    if answer not in (run_dir.READY_STARTED, run_dir.READY_HELD, run_dir.READY_ENDED):
        reason = answer[1:].decode("utf-8", "replace") if answer else "it ended without an answer"
        raise DriverError(
            f"the shim of {folder.parent.name}/{folder.name} could not begin: {reason}",
            hint=f"see {folder / run_dir.LOGS / run_dir.SHIM_LOG_FILE}",
        )


def _popen(settings: LocalSettings, folder: Path, descriptors: tuple[int, int]) -> None:
    """Run the shim's first process, which forks and leaves: there is nothing to wait for later."""
    (folder / run_dir.LOGS).mkdir(mode=files.DIR_MODE, exist_ok=True)
    environ = {name: value for name, value in settings.environ.items() if not name.startswith("STEERSMAN_")}
    with (folder / run_dir.LOGS / run_dir.SHIM_LOG_FILE).open("ab") as errors:
        process = subprocess.Popen(
            [*settings.shim_argv, str(folder), *map(str, descriptors)],
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
