"""What the local driver adds to the claim on a rank's folder: the order, and the folders of this machine."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from steersman.hosting import claim, files, orders
from steersman.hosting.claim import Beginning, Shims
from steersman.hosting.folders import place_sdk, place_workdir
from steersman.model.errors import DriverError
from steersman.model.workload import Job
from steersman.ports.driver import RankKey, StartOrder, StopOrder

NAME = "local"


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the composition root decides.

    `shim_argv` is the command that `steersman.dataplane.shim.shim_argv` names. `trainer_path` is the folder
    of the package steersman_trainer. `programs` are the commands of the data plane's own programs by name: an
    interpreter and its arguments. `environ` is what every program inherits (Steersman's own variables are
    left out). `failpoint` is called with each of `claim.FAILPOINTS`, in a worker thread.
    """

    home: Path
    home_id: str
    shim_argv: Sequence[str]
    trainer_path: Path | None = None
    programs: Mapping[str, Sequence[str]] = {}
    environ: Mapping[str, str] = {}
    failpoint: Callable[[str], None] = lambda _name: None

    @property
    def shims(self) -> Shims:
        """How this driver's shims are started."""
        return Shims(self.shim_argv, self.environ, self.failpoint)


def rank_dir(home: Path, key: RankKey) -> Path:
    """The folder of one rank. Raises DriverError for a name that is no plain name."""
    return claim.rank_dir(home, key.run, key.rank)


def start(settings: LocalSettings, order: StartOrder) -> None:
    """Begin a rank or find it. Raises DriverError, OSError."""
    folder = rank_dir(settings.home, order.key)
    beginning = Beginning(order.epoch, lambda: _order(settings, order, folder), order.secrets)
    claim.begin(settings.shims, folder, beginning)


def _order(settings: LocalSettings, order: StartOrder, folder: Path) -> dict[str, Any]:
    """``order.json``; makes the folders it names."""
    where = orders.places(settings.home, folder, order)
    place_workdir(settings.home, orders.declaration(order), order.job.workdir)
    for made in (where.output, where.checkpoints):
        Path(made).mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
    if settings.trainer_path is not None:
        sdk = place_sdk(settings.home, settings.trainer_path)
        where = msgspec.structs.replace(where, trainer=str(sdk))
    return orders.body(order, where, settings.home_id, _command(settings, order.job), NAME)


def _command(settings: LocalSettings, job: Job) -> str:
    """What the shell runs. Raises DriverError for a program that this control plane does not have."""
    if job.program == "command":
        return job.run
    argv = settings.programs.get(job.program)
    if argv is None:
        raise DriverError(f"this control plane cannot run a {job.program}", hint="install Steersman whole")
    interpreter = None if job.replica is None else job.replica.python
    return "exec " + shlex.join([interpreter or argv[0], *argv[1:]])


def stop(settings: LocalSettings, order: StopOrder) -> None:
    """Ask for an end. Raises DriverError, OSError."""
    notice = {"cause": order.cause, "grace_ms": order.grace_ms, "epoch": order.epoch}
    claim.stop(settings.shims, rank_dir(settings.home, order.key), notice)


def set_interval(settings: LocalSettings, key: RankKey, epoch: int, interval_ms: int) -> None:
    """Leave a new checkpoint interval for the trainer to find. Raises DriverError, OSError."""
    claim.set_interval(rank_dir(settings.home, key), epoch, interval_ms)
