"""One rank on a node of the cluster: its folder there, its shim, and what there is to tell of it.

Theory of operation. The node has a home like the control plane's, with the same folders, so that shim and
trainer find what they know. The host puts there what the rank needs, begins the shim through the same claim
as the local driver, and hands out what changed: small files whole, output from where the reader stands, the
names of new checkpoints. It keeps nothing that is not in the folder, except the lifeline: the shim ends the
rank when this process is gone, or when `beat` was not called for the length of the lease.

All methods block; the engine's actor calls them in threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from steersman.dataplane.cluster.words import CHUNK_BYTES
from steersman.dataplane.replica import replica_argv
from steersman.dataplane.shim import shim_argv
from steersman.hosting import claim, files
from steersman.hosting.claim import Beginning, Shims
from steersman.hosting.folders import place_sdk
from steersman.model.errors import DriverError
from steersman.ports import run_dir

TOLD = (run_dir.STARTED, run_dir.READY, run_dir.PROGRESS, run_dir.EXIT)
"""Files whose content is told when they change; the end last, for it ends the telling."""
LOG_BYTES_MAX = 64 * 1024
"""With the files that are told beside it less than CHUNK_BYTES."""
READ_BYTES = 4 * 1024 * 1024
LOOK_SECONDS = 0.1
INCOMING = "incoming"
WORKDIR_TAR = "workdir.tar"
KEPT_ENVIRON = frozenset({"RAY_ADDRESS"})
"""Of the engine's own variables the only one that a program gets: the others are the host's, or the token."""


def node_home(base: str, home_id: str, node_id: str) -> Path:
    """The home of a home on one node, made if need be. Raises DriverError when it is somebody else's."""
    top = Path(base or tempfile.gettempdir()) / f"steersman-{os.getuid()}"
    path = top / home_id / node_id[:16]
    try:
        top.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        path.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        status = top.lstat()
    except OSError as error:
        raise DriverError(
            f"the node cannot hold Steersman's files in {top}: {error.strerror}",
            hint="give the cluster a `node_dir` that its nodes can write to",
        ) from error
    if top.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise DriverError(
            f"{top} on the node is not a folder of Steersman's own, closed to others",
            hint="remove it there, or give the cluster another `node_dir`",
        )
    return path


class Place(NamedTuple):
    """The node: Steersman's home there, the engine's name of it, and the variables of its processes."""

    home: Path
    node_id: str
    inherited: Mapping[str, str]


class Host:
    """One rank."""

    def __init__(self, place: Place, run: str, rank: int, lease_ms: int) -> None:
        self._home, self._node_id = place.home, place.node_id
        self._run, self._rank, self._lease_ms = run, rank, lease_ms
        self._folder = claim.rank_dir(self._home, run, rank)
        self._shims = Shims(shim_argv(sys.executable), environ(place.inherited, sys.executable))
        self._hears, self._feeds = os.pipe()
        os.set_blocking(self._feeds, False)

    # The lifeline.

    def beat(self) -> None:
        """The cluster has just answered here."""
        with contextlib.suppress(OSError):  # full, or the rank has ended: then nobody reads
            os.write(self._feeds, b".")

    # What the rank needs.

    def has(self, kind: str, name: str) -> bool:
        """Whether the node has an artifact (``artifact``) or a checkpoint (``checkpoint``) already."""
        return self._place(kind, name).exists()

    def put(self, token: str, offset: int, data: bytes) -> None:
        """Take a piece of something that comes, the first one first."""
        path = self._incoming(token)
        path.parent.mkdir(mode=files.DIR_MODE, exist_ok=True)
        with path.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)

    def place(self, token: str, kind: str, name: str, digest: str) -> None:
        """Put what has come where it belongs. Raises DriverError when it is not what was sent."""
        path = self._incoming(token)
        if digest_of(path) != digest:
            path.unlink()
            raise DriverError(f"the {kind} {name} came damaged to the node", hint="it is sent again")
        target = self._place(kind, name)
        target.parent.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        if kind == "artifact":
            path.replace(target)
            return
        unpack(path, target)
        path.unlink()

    def _incoming(self, token: str) -> Path:
        return self._home / INCOMING / Path(token).name

    def _place(self, kind: str, name: str) -> Path:
        """Where something lies. Raises DriverError for a name that leads elsewhere."""
        parts = name.split("/")
        if not all(part and part not in (".", "..") for part in parts):
            raise DriverError(f"{name!r} cannot name a {kind}")
        match kind:
            case "artifact":
                return self._home / run_dir.ARTIFACTS / "sha256" / parts[0]
            case "checkpoint":
                return self._home.joinpath(run_dir.CHECKPOINTS, *parts)
            case _:
                raise DriverError(f"{kind!r} is nothing that a node holds")

    # The rank.

    def begin(self, epoch: int, order: Mapping[str, Any], secrets: Sequence[Sequence[str]]) -> None:
        """Begin the rank or find it. Raises DriverError, OSError."""
        beginning = Beginning(epoch, lambda: self._order(order), secrets, self._hears, self._lease_ms)
        claim.begin(self._shims, self._folder, beginning)

    def _order(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """``order.json`` with this node's paths; makes the folders it names."""
        home, job = self._home, dict(order)
        workdir = home / run_dir.WORKDIRS / job.pop("declaration")
        with_files = bool(job.pop("with_workdir"))
        self._workdir(workdir, with_files=with_files)
        shared = job.pop("shared_checkpoints")
        checkpoints = Path(shared) if shared else home / run_dir.CHECKPOINTS / job.pop("checkpoint_name")
        job.pop("checkpoint_name", None)
        output = self._folder.parent / run_dir.OUTPUT
        for made in (output, checkpoints):
            made.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        trainer = place_sdk(home, _trainer())
        program, python = job.pop("program"), job.pop("python")
        if program == "replica":
            job["command"] = "exec " + shlex.join(replica_argv(python or sys.executable))
        inputs = [(name, str(self._place("artifact", digest))) for name, digest in job.pop("input_digests")]
        return {
            **job,
            "home": str(home),
            "rank_dir": str(self._folder),
            "workdir": str(workdir),
            "output_dir": str(output),
            "checkpoint_dir": str(checkpoints),
            "trainer_dir": str(trainer),
            "inputs": inputs,
        }

    def _workdir(self, target: Path, *, with_files: bool) -> None:
        """The declaration's working folder, unpacked the first time from what the engine brought."""
        target.parent.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        with files.flocked(target.with_name(f".{target.name}.lock")):
            if target.is_dir():
                return
            if not with_files:
                target.mkdir(mode=files.DIR_MODE)
                return
            brought = Path.cwd() / WORKDIR_TAR
            if not brought.is_file():
                raise DriverError(f"the engine did not bring the workdir to this node: {brought} is missing")
            unpack(brought, target)

    def stop(self, epoch: int, notice: Mapping[str, Any]) -> None:
        """Ask for the end. Raises DriverError, OSError."""
        claim.stop(self._shims, self._folder, {**notice, "epoch": epoch})

    def set_interval(self, epoch: int, interval_ms: int) -> None:
        """Leave a new checkpoint interval for the trainer. Raises DriverError, OSError."""
        claim.set_interval(self._folder, epoch, interval_ms)

    def conclude(self) -> None:
        """End what a host that is gone left behind, and record it. Raises DriverError, OSError."""
        if (self._folder / run_dir.ORDER).exists():
            claim.conclude(self._shims, self._folder)
            return
        self._folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
        with files.flocked(self._folder / run_dir.FENCE):
            if not (self._folder / run_dir.ORDER).exists():
                files.write_json(self._folder / run_dir.EXIT, lost("its host ended before it began"))

    def clean(self) -> None:
        """Forget an ended rank's files; what others may use again stays. Raises OSError."""
        if (self._folder / run_dir.EXIT).exists() or not (self._folder / run_dir.ORDER).exists():
            shutil.rmtree(self._folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                ranks = [path for path in self._folder.parent.iterdir() if path.name != run_dir.OUTPUT]
                if not ranks:
                    shutil.rmtree(self._folder.parent, ignore_errors=True)

    # What there is to tell.

    def where(self) -> str:
        """The engine's name of its node."""
        return self._node_id

    def order(self) -> dict[str, Any] | None:
        """``order.json``, for a control plane that does not know the rank."""
        data = files.read_bytes(self._folder / run_dir.ORDER)
        return None if data is None else {"text": data.decode("utf-8", "replace")}

    def news(self, cursor: Mapping[str, Any], wait_seconds: float) -> dict[str, Any]:
        """What the reader does not have: waits for it, or for so long. `cursor` is of the last answer."""
        deadline = time.monotonic() + wait_seconds
        while True:
            found = self._look(cursor)
            if found["told"] or found["log"] or found["saved"] != cursor.get("saved", []):
                return found
            if time.monotonic() >= deadline:
                return found
            time.sleep(LOOK_SECONDS)

    def _look(self, cursor: Mapping[str, Any]) -> dict[str, Any]:
        saved = self._saved()  # before the files: the end must not be told before what it rests on
        seen = dict(cursor.get("seen", {}))
        told: dict[str, bytes] = {}
        for name in TOLD:
            identity = _identity(self._folder / name)
            if identity is None or seen.get(name) == identity:
                continue
            data = files.read_bytes(self._folder / name)
            if data is not None:
                told[name], seen[name] = data, identity
        log, place = self._output(cursor.get("log"))
        if run_dir.EXIT in told and len(log) == LOG_BYTES_MAX:
            del told[run_dir.EXIT], seen[run_dir.EXIT]  # its output first
        return {
            "told": told,
            "log": log,
            "saved": saved,
            "cursor": {"seen": seen, "log": place, "saved": saved},
        }

    def _saved(self) -> list[str]:
        """The published checkpoints of this rank's lineage, by name, oldest first; rank 0 tells of them."""
        data = files.read_bytes(self._folder / run_dir.ORDER)
        if data is None or self._rank:
            return []
        folder = Path(json.loads(data)["checkpoint_dir"])
        if not folder.is_relative_to(self._home):
            return []  # shared with the control plane: it sees for itself
        with contextlib.suppress(OSError):
            return sorted(path.name for path in folder.glob(f"{run_dir.CHECKPOINT_PREFIX}*") if path.is_dir())
        return []

    def _output(self, place: Sequence[int] | None) -> tuple[bytes, list[int] | None]:
        """Output from a place on: (inode, offset); the reader of a file that was rotated away goes on."""
        logs = self._logs()
        if not logs:
            return b"", None if place is None else list(place)
        at = next((index for index, log in enumerate(logs) if place and log[0] == place[0]), 0)
        offset = place[1] if place and logs[at][0] == place[0] else 0
        while True:
            inode, path = logs[at]
            try:
                with path.open("rb") as file:
                    if os.fstat(file.fileno()).st_ino != inode:
                        return b"", [inode, offset]  # rotated just now: look again
                    file.seek(offset)
                    data = file.read(LOG_BYTES_MAX)
            except FileNotFoundError:
                return b"", [inode, offset]
            if data or at + 1 == len(logs):
                return data, [inode, offset + len(data)]
            at, offset = at + 1, 0

    def _logs(self) -> list[tuple[int, Path]]:
        """The files of output, oldest first."""
        newest = self._folder / run_dir.LOGS / run_dir.LOG_FILE
        found = []
        for path in sorted(newest.parent.glob(f"{run_dir.LOG_FILE}.*"), key=_number, reverse=True):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_ino, path))
        with contextlib.suppress(OSError):
            found.append((newest.stat().st_ino, newest))
        return found

    def size(self, kind: str, name: str) -> int:
        """Bytes of an artifact, or of a checkpoint as it is sent. Raises OSError."""
        return self._outgoing(kind, name).stat().st_size

    def get(self, kind: str, name: str, offset: int) -> bytes:
        """A piece of it. Raises OSError."""
        with self._outgoing(kind, name).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)

    def sent(self, kind: str, name: str) -> None:
        """It has arrived."""
        if kind == "checkpoint":
            self._packed(name).unlink(missing_ok=True)

    def _outgoing(self, kind: str, name: str) -> Path:
        place = self._place(kind, name)
        if kind == "artifact":
            return place
        packed = self._packed(name)
        if not packed.exists():
            packed.parent.mkdir(mode=files.DIR_MODE, exist_ok=True)
            partial = packed.with_name(f"{packed.name}.{os.getpid()}.partial")
            pack(place, partial)
            partial.rename(packed)
        return packed

    def _packed(self, name: str) -> Path:
        return self._home / INCOMING / f"{self._run}.{self._rank}.{name.replace('/', '.')}.tar"


def lost(detail: str, cause: str = "lost", *, stopped: bool = False) -> dict[str, Any]:
    """An end that no shim could record."""
    return {
        "exit_code": None,
        "signal": None,
        "cause": cause,
        "detail": detail,
        "at_ms": time.time_ns() // 1_000_000,
        "stop_delivered": stopped,
        "artifacts": [],
    }


def environ(inherited: Mapping[str, str], python: str) -> dict[str, str]:
    """What a program inherits: not the engine's own variables, and its interpreter comes first."""
    kept = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("RAY_") or name in KEPT_ENVIRON
    }
    kept["PATH"] = os.pathsep.join(filter(None, [str(Path(python).parent), kept.get("PATH", "")]))
    kept.pop("PYTHONPATH", None)  # the engine's way of bringing Steersman here
    return kept


def _trainer() -> Path:
    """The folder of the trainer package, which came with this one."""
    found = importlib.util.find_spec("steersman_trainer")
    if found is None or found.origin is None:
        raise DriverError("the trainer package did not come to this node", hint="install Steersman again")
    return Path(found.origin).parent


def pack(folder: Path, into: Path) -> None:
    """A folder as an archive."""
    with tarfile.open(into, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(folder)), recursive=False)


def unpack(archive: Path, target: Path) -> None:
    """An archive as a folder, whole or not at all; there already, it stays. Raises DriverError, OSError."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=files.DIR_MODE, parents=True)
    try:
        with tarfile.open(archive) as opened:
            for member in opened.getmembers():
                inside = Path(member.name)
                if inside.is_absolute() or ".." in inside.parts or not _plain(member):
                    raise DriverError(f"{archive.name} holds {member.name!r}, which is not taken")
                opened.extract(member, partial)
        os.sync()  # cut short by a power cut it would pass for whole after the rename
        if not target.is_dir():
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _plain(member: tarfile.TarInfo) -> bool:
    return member.isfile() or member.isdir() or member.issym()


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _identity(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_ino, status.st_mtime_ns, status.st_size]


def _number(path: Path) -> int:
    return int(path.suffix[1:]) if path.suffix[1:].isdigit() else 0
