"""What acts on the world: starts, stops and reports the ranks of runs (and later replicas)."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from steersman.model.decisions import Placement
from steersman.model.ids import RunId, WorkloadName
from steersman.model.resources import Device
from steersman.model.workload import Job


class RankKey(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """The name of one outside object. At most one live object exists per key, ever."""

    run: RunId
    rank: int


class StartOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Begin one rank. `secrets` are the opened values (variable, value), in memory only.

    `input_paths` are (name, absolute path). All runs of one declaration (`workload`, `generation`) share the
    copied workdir, all of one `lineage` the checkpoint folder; both outlive the run. `epoch` fences: an
    object that has seen a higher one refuses the order. `node_devices` are all those of the placement's node.
    """

    key: RankKey
    workload: WorkloadName
    generation: int
    lineage: int
    decision: str
    epoch: int
    job: Job
    placement: Placement
    node_devices: tuple[Device, ...] = ()
    num_ranks: int
    gang: tuple[Placement, ...] = ()
    cluster: str = ""
    checkpoint_interval_ms: int | None
    input_paths: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()


class StopOrder(msgspec.Struct, frozen=True, kw_only=True):
    """End one rank: notice and SIGTERM now, SIGKILL of the whole tree after the grace."""

    key: RankKey
    epoch: int
    grace_ms: int
    cause: str


class CheckpointReport(msgspec.Struct, frozen=True, kw_only=True):
    step: int
    at_ms: int
    save_ms: int
    digest: str


class ArtifactReport(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    size_bytes: int


class RankReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one outside object now.

    `state`: ``starting`` (claimed, program not begun), ``setup`` (its setup command runs), ``running``,
    ``exited`` (proven gone), ``unknown``. `checkpoints` are those published by this run, oldest first, at
    most the last 16. `ready_ms` is when a replica began to answer, and `load_ms` what its model took to load.
    `progress` holds the last metrics the program reported (name, value).
    """

    key: RankKey
    epoch: int
    decision: str
    state: Literal["starting", "setup", "running", "exited", "unknown"]
    pid: int | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    cause: Literal["exited", "start-failed", "not-taken", "setup-failed", "lost", "memory"] = "exited"
    detail: str = ""
    completed: bool = False
    stop_delivered: bool = False
    limits: str = ""
    ready_ms: int | None = None
    load_ms: int = 0
    checkpoints: tuple[CheckpointReport, ...] = ()
    artifacts: tuple[ArtifactReport, ...] = ()
    progress: tuple[tuple[str, float], ...] = ()


class Driver(Protocol):
    """Applies one action, idempotently, by key. Raises DriverError; never blocks the loop for long.

    Contract (tests/contract/test_driver.py):

    * `start` twice with one key starts one object. After a crash at any instant inside `start`, calling it
      again starts it or finds it, never both. A key that has ended is never started again.
    * `stop` of an unknown or ended key does nothing. The whole process tree is gone within grace + 2 s,
      also when it double-forked or ignores SIGTERM. A second `stop` may only shorten the grace.
    * An order with a lower epoch than the object has seen is refused with DriverError.
    * `observe` reports every object of this home, live or ended and not yet discarded; what cannot be told
      is ``unknown``. It changes nothing. Objects outlive the control plane.
    * `discard` forgets an ended object and its working files; logs and artifacts stay.
    * `wait_changed` returns when something may have changed, or after the timeout.
    """

    @property
    def name(self) -> str:
        """What nodes name it by in `Node.driver`."""
        ...

    async def start(self, order: StartOrder) -> None: ...

    async def stop(self, order: StopOrder) -> None: ...

    async def set_checkpoint_interval(self, key: RankKey, epoch: int, interval_ms: int) -> None:
        """Tell a live rank to save this often from now on; nothing for an unknown or ended key."""
        ...

    async def observe(self) -> Sequence[RankReport]: ...

    async def wait_changed(self, timeout_ms: int) -> None: ...

    async def discard(self, key: RankKey) -> None: ...
