"""The folder of a rank in the control plane's home, kept like the one on the node where it runs.

    order.json, epoch.json           written here before anything is asked of the cluster: the claim
    cluster.json                     {"node_id", "begun", "cursor"}: where it is, whether it may have begun
    there,
                                     and up to where its news are here
    started, ready, progress, exit   as on the node; exit last, when all that it rests on is here
    logs/                            its output, in the same pieces

So whoever reads a home (status, logs, explain, the next run of the job) sees a rank elsewhere as one here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steersman.dataplane.cluster.host import digest_of, lost, unpack
from steersman.dataplane.shim.logs import LogWriter
from steersman.hosting import claim, files
from steersman.model.errors import DriverError
from steersman.ports import run_dir

CLUSTER = "cluster.json"
INCOMING = "incoming"
COPIED = (run_dir.STARTED, run_dir.READY, run_dir.PROGRESS)


class Mirror:
    """One rank, in the control plane's home."""

    def __init__(self, home: Path, run: str, rank: int) -> None:
        self.home, self.run, self.rank = home, run, rank
        self.folder = claim.rank_dir(home, run, rank)
        self._log: LogWriter | None = None
        self._kept: dict[str, Any] = {"node_id": "", "begun": False, "cursor": {}}
        data = files.read_bytes(self.folder / CLUSTER)
        if data is not None:
            with contextlib.suppress(ValueError):
                self._kept |= json.loads(data)

    @property
    def key(self) -> tuple[str, int]:
        """Run and rank."""
        return self.run, self.rank

    @property
    def node_id(self) -> str:
        """The engine's name of its node; empty before it has one."""
        return str(self._kept["node_id"])

    @property
    def begun(self) -> bool:
        """Whether its program may have begun."""
        return bool(self._kept["begun"])

    @property
    def cursor(self) -> dict[str, Any]:
        """Up to where the host's news are here."""
        return dict(self._kept["cursor"])

    def keep(self, **changes: Any) -> None:
        """Remember. Raises OSError."""
        self._kept |= changes
        files.write_json(self.folder / CLUSTER, self._kept)

    def ended(self) -> bool:
        """Whether its end is here, or it was forgotten."""
        return (self.folder / run_dir.EXIT).exists() or (self.folder / run_dir.DISCARDED).exists()

    def claimed(self) -> bool:
        """Whether an order of it is here."""
        return (self.folder / run_dir.ORDER).exists()

    def claim(self, epoch: int, order: Mapping[str, Any]) -> bool:
        """Put the order on record before anything is done; False: it has ended. Raises DriverError."""
        self.folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        with files.flocked(self.folder / run_dir.FENCE):
            claim.refuse_stale(self.folder, epoch)
            if self.ended():
                return False
            claim.accept_epoch(self.folder, epoch)
            if not self.claimed():
                files.write_json(self.folder / run_dir.ORDER, order)
        return True

    def accept(self, epoch: int) -> None:
        """Refuse a stale order, else keep its epoch. Raises DriverError, OSError."""
        with files.flocked(self.folder / run_dir.FENCE):
            claim.accept_epoch(self.folder, epoch)

    def unclaim(self) -> None:
        """Nothing of it has begun, and nobody will: as if the order had never come."""
        for name in (run_dir.ORDER, CLUSTER):
            (self.folder / name).unlink(missing_ok=True)
        self._kept |= {"node_id": "", "begun": False, "cursor": {}}

    def order(self) -> dict[str, Any]:
        """The order on record; empty when it is damaged."""
        data = files.read_bytes(self.folder / run_dir.ORDER)
        with contextlib.suppress(ValueError):
            return dict(json.loads(data or b"{}"))
        return {}

    def recorded_epoch(self) -> int:
        """The highest epoch that it has seen."""
        return max(files.recorded_epoch(self.folder), int(self.order().get("epoch", 0)))

    # News.

    def take_output(self, data: bytes) -> None:
        """Append to the log."""
        if not data:
            return
        if self._log is None:
            (self.folder / run_dir.LOGS).mkdir(mode=files.DIR_MODE, exist_ok=True)
            self._log = LogWriter(str(self.folder / run_dir.LOGS / run_dir.LOG_FILE))
        self._log.feed(data)

    def take_files(self, told: Mapping[str, bytes]) -> None:
        """Copy small files, all but the end. Raises OSError."""
        for name in COPIED:
            if name in told:
                files.write_bytes(self.folder / name, told[name])

    def take_end(self, data: bytes) -> None:
        """The end: from now on nothing of it changes. Raises OSError."""
        if not self.ended():
            files.write_bytes(self.folder / run_dir.EXIT, data)
        self.close()

    def conclude(self, cause: str, detail: str, *, stopped: bool = False) -> None:
        """Record an end that no shim could tell. Raises OSError."""
        self.take_end(json.dumps(lost(detail, cause, stopped=stopped)).encode())

    def close(self) -> None:
        """Let go of the log."""
        if self._log is not None:
            self._log.close()

    # What it shares with other runs.

    @property
    def checkpoint_folder(self) -> Path | None:
        """Where the checkpoints of its lineage lie here."""
        found = self.order().get("checkpoint_dir")
        return Path(found) if found else None

    def newest_checkpoint(self) -> str:
        """The name of the newest published one; empty when there is none."""
        return next(iter(reversed(self._checkpoints())), "")

    def _checkpoints(self) -> list[str]:
        folder = self.checkpoint_folder
        if folder is None or not folder.is_dir():
            return []
        return sorted(path.name for path in folder.glob(f"{run_dir.CHECKPOINT_PREFIX}*") if path.is_dir())

    def lacks_checkpoint(self, name: str) -> bool:
        """Whether a checkpoint of the node is to be fetched."""
        folder = self.checkpoint_folder
        return folder is not None and not (folder / name).is_dir()

    def take_checkpoint(self, name: str, archive: Path) -> None:
        """Publish one that was fetched, and forget the oldest. Raises DriverError, OSError."""
        folder = self.checkpoint_folder
        assert folder is not None, "nothing is fetched without a place"
        folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        unpack(archive, folder / name)
        keep = max(int(self.order().get("checkpoint_keep") or 1), 1)
        for old in self._checkpoints()[:-keep]:
            shutil.rmtree(folder / old, ignore_errors=True)

    def artifacts(self, end: bytes) -> list[str]:
        """Digests (hex) that an end names and that are not stored here yet."""
        named = [each["digest"].removeprefix("sha256:") for each in json.loads(end).get("artifacts", ())]
        return [digest for digest in named if not self.artifact(digest).exists()]

    def artifact(self, digest: str) -> Path:
        """Where an artifact is stored."""
        return self.home / run_dir.ARTIFACTS / "sha256" / Path(digest).name

    def take_artifact(self, digest: str, path: Path) -> None:
        """Store one that was fetched. Raises DriverError when it is damaged, OSError."""
        if digest_of(path) != digest:
            raise DriverError(
                f"the artifact {digest[:12]} came damaged from its node", hint="it is fetched again"
            )
        target = self.artifact(digest)
        target.parent.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        path.chmod(0o400)
        path.replace(target)
        files.sync_folder(target.parent)

    def incoming(self, name: str) -> Path:
        """Where something is put together that comes in pieces."""
        folder = self.home / run_dir.ARTIFACTS / INCOMING
        folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        return folder / f"{self.run}.{self.rank}.{Path(name).name}.{os.getpid()}"


def mirrored(home: Path, cluster: str) -> list[Mirror]:
    """The ranks of a cluster whose end is not here, by the orders in a home."""
    found = []
    for order in sorted((home / run_dir.RUNS).glob(f"*/*/{run_dir.ORDER}")):
        folder = order.parent
        if not folder.name.isdigit() or (folder / run_dir.EXIT).exists():
            continue
        mirror = Mirror(home, folder.parent.name, int(folder.name))
        if mirror.order().get("driver") == "ray" and mirror.order().get("cluster") == cluster:
            found.append(mirror)
    return found


def pieces(size_bytes: int, chunk_bytes: int) -> Sequence[int]:
    """The offsets at which something of that size is read."""
    return range(0, max(size_bytes, 1), chunk_bytes)
