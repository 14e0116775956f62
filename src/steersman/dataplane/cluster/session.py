"""The bridge's life with one cluster: what the driver asks for, and the news of every rank.

Theory of operation. Effects go to the fence, in the order of the driver's port: claimed in the mirror first,
then made, shipped and begun on the node; every step finds what an earlier try has done. News are followed by
one task a rank, which waits at the rank's host. A watch compares once a second what the cluster has with
what the home expects, and settles what has no host any more (see `fence` for when that is certain).

What the driver is told of a rank: true, its host answers; false, nothing of it has ever begun; null, nobody
can tell now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from steersman.dataplane.cluster import api, ship
from steersman.dataplane.cluster.actors import FenceActor
from steersman.dataplane.cluster.mirror import Mirror, mirrored
from steersman.dataplane.cluster.shipped import PACKAGES
from steersman.dataplane.cluster.words import UNSURE, fence_name, host_name, opened
from steersman.model.errors import DriverError
from steersman.ports import run_dir

WATCH_SECONDS = 1.0
LOOK_SECONDS_MAX = 10.0
SWEEP_SECONDS = 10.0
GIVE_UP_SECONDS = 20.0
"""A client that a head was made anew under may hear nothing for ever: then another one is better."""
NEWS_WAIT_SECONDS = 5.0
FINISH_SECONDS_MAX = 5.0
SILENT_SECONDS_MAX = 10.0
CALL_SECONDS_MAX = 60.0
MAKE_SECONDS_MAX = 330.0
FENCE_SECONDS_MAX = 60.0
PROBE_SECONDS_MAX = 3.0
RETRY_SECONDS = 0.5
LOOPBACK = ("127.", "localhost", "[::1]")

Key = tuple[str, int]


def _open(name: str, why: str) -> DriverError:
    return DriverError(
        f"the cluster {name} is open: {why}, so whoever reaches it can run programs there",
        hint="start the cluster with RAY_AUTH_MODE=token and give its token, "
        "or say `allow_open: true` in the fleet",
        code="cluster-open",
    )


def _crash(task: asyncio.Task[None]) -> None:
    """A bridge that does not watch any more is worse than none: the driver starts another."""
    if not task.cancelled() and (error := task.exception()) is not None:
        sys.stderr.write(f"it lost sight of the cluster: {error}\n")
        sys.stderr.flush()
        os._exit(1)


class Session:
    """One cluster. `code` is the folder that all this runs from; `changed` is called when there are news."""

    def __init__(self, settings: Mapping[str, Any], code: Path, changed: Callable[[], None]) -> None:
        self._cluster: dict[str, Any] = settings["cluster"]
        self._home = Path(settings["home"])
        self._home_id: str = settings["home_id"]
        self._code, self._changed = code, changed
        self._epoch: int = settings["epoch"]
        self._mirrors: dict[Key, Mirror] = {}
        self._locks: dict[Key, asyncio.Lock] = {}
        self._tenders: dict[Key, asyncio.Task[None]] = {}
        self._heard_at: dict[Key, float] = {}
        self._nodes: list[dict[str, Any]] = []
        self._looked_at = self._swept_at = 0.0
        self._handle: api.Handle | None = None
        """The fence, as it answered last."""
        self._problem = ""

    async def connect(self) -> dict[str, Any]:
        """Join, see that it is closed to strangers, find or make the fence. Raises DriverError."""
        await asyncio.to_thread(self._check_closed)
        packages = [str(self._code / package) for package in PACKAGES]
        try:
            found = api.connect(self._cluster["address"], packages)
        except api.JOIN_ERRORS as error:
            raise api.refused(error, self._cluster["address"]) from error
        await asyncio.to_thread(self._check_dashboard, found["dashboard"])
        await self._fence()
        await self._order("take", self._epoch)
        for mirror in mirrored(self._home, self._cluster["name"]):
            self._mirrors[mirror.key] = mirror
        await self._look()
        self._watching = asyncio.ensure_future(self._watch())
        self._watching.add_done_callback(_crash)
        return found

    def _check_closed(self) -> None:
        """See that the head opens to the token alone. Raises DriverError."""
        address, name = self._cluster["address"], self._cluster["name"]
        api.probe(address, api.token())
        if self._cluster["allow_open"] or address.removeprefix("ray://").startswith(LOOPBACK):
            return
        try:
            api.probe(address, "")
        except DriverError as error:
            if error.code == "cluster-token":
                return
            raise
        raise _open(name, f"its head at {address} asks for no token")

    def _check_dashboard(self, address: str) -> None:
        """The same for its dashboard, if it has one that is reached from here. Raises DriverError."""
        if not address or address.startswith(LOOPBACK) or self._cluster["allow_open"]:
            return
        try:
            with urllib.request.urlopen(f"http://{address}/api/jobs/", timeout=PROBE_SECONDS_MAX):
                pass
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                return
        except (OSError, ValueError):
            return  # nobody answers from here
        raise _open(self._cluster["name"], f"its dashboard at {address} asks for no token")

    async def _fence(self) -> Any:
        """The fence's handle: found, or made. Raises DriverError."""
        name = fence_name(self._home_id)
        handle = await asyncio.to_thread(api.find, name)
        try:
            if handle is not None:
                said = opened(await api.value(handle.do.remote("hello", []), FENCE_SECONDS_MAX))
                if said.get("code") == self._code.name:
                    return handle
                api.end(handle)  # of another version; the epoch is kept beside it
                await self._until_gone(name)
            handle = api.make_fence(FenceActor, name, {"home_id": self._home_id, "code": self._code.name})
            opened(await api.value(handle.do.remote("hello", []), FENCE_SECONDS_MAX))
        except api.ERRORS as error:
            raise api.told(error, "the fence on the cluster's head does not answer") from error
        return handle

    async def _until_gone(self, name: str) -> None:
        deadline = time.monotonic() + FENCE_SECONDS_MAX
        while await asyncio.to_thread(api.find, name) is not None and time.monotonic() < deadline:  # noqa: ASYNC110 - the cluster tells nobody
            await asyncio.sleep(RETRY_SECONDS)

    async def _order(self, verb: str, *arguments: Any, seconds: float = CALL_SECONDS_MAX) -> Any:
        """Have the fence do something. Raises DriverError."""
        handle = self._handle or await asyncio.to_thread(api.find, fence_name(self._home_id))
        if handle is None:
            handle = await self._fence()
        self._handle = handle
        try:
            return opened(await api.value(handle.do.remote(verb, list(arguments)), seconds))
        except api.ERRORS as error:
            self._handle = None  # it may be another by now
            raise api.told(error, "the fence on the cluster's head does not answer") from error

    def _ask(self, key: Key) -> ship.Ask:
        """Asks the host of a rank, without an effect on the rank itself."""
        known: api.Handle | None = None

        async def ask(verb: str, *arguments: Any) -> Any:
            nonlocal known
            known = known or await asyncio.to_thread(api.find, host_name(self._home_id, *key))
            if known is None:
                raise DriverError(f"the cluster has no host of {key[0]}/{key[1]}", code="no-host")
            try:
                return opened(await api.value(known.do.remote(verb, list(arguments)), CALL_SECONDS_MAX))
            except api.ERRORS as error:
                known = None
                raise api.told(error, f"the host of {key[0]}/{key[1]} does not answer") from error

        return ask

    # What the driver asks for.

    async def start(
        self, order: dict[str, Any], epoch: int, wish: dict[str, Any], files: dict[str, Any]
    ) -> None:
        """Begin a rank or find it. Raises DriverError, OSError.

        `order`: as for this machine, with `lineage`; `wish`: see `Fence.make`, without environment; `files`:
        {"inputs": [[digest, path]], "workdir": path or null, "secrets": [[variable, value]]}.
        """
        key = (order["run"], order["rank"])
        async with self._locks.setdefault(key, asyncio.Lock()):
            mirror = self._mirrors.get(key) or Mirror(self._home, *key)
            if not mirror.claim(epoch, order):
                return
            self._mirrors[key] = mirror
            self._epoch = max(self._epoch, epoch)
            if not mirror.begun:
                try:
                    await self._make(mirror, epoch, wish, files)
                except (DriverError, OSError):
                    await self._undo(mirror, epoch)
                    raise
            await self._begin(mirror, epoch, order["there"], files["secrets"])
        self._follow(mirror)

    async def _begin(self, mirror: Mirror, epoch: int, order: dict[str, Any], secrets: Any) -> None:
        """Once more, if need be: the host knows whether it has begun."""
        try:
            await self._order("begin", epoch, *mirror.key, order, secrets)
            self._heard_at[mirror.key] = time.monotonic()
        except DriverError as error:
            if error.code == "no-host":
                return  # the watch finds out what became of it
            if error.code not in UNSURE and await self._ask(mirror.key)("order") is None:
                mirror.keep(begun=False)  # it was refused before anything of it was there
                await self._undo(mirror, epoch)
            raise

    async def _make(self, mirror: Mirror, epoch: int, wish: dict[str, Any], files: dict[str, Any]) -> None:
        """A host on the node with all that the rank needs there."""
        environment = dict(self._cluster["runtime_env"])
        environment["env_vars"] = {**environment.get("env_vars", {}), **wish.pop("tags")}
        if files["workdir"] is not None:
            environment["working_dir"] = await self._workdir(epoch, Path(files["workdir"]))
        settings = {name: self._cluster[name] for name in ("node_dir", "lease_ms")}
        wish = {**wish, **settings, "environment": environment}
        there = await self._order("make", epoch, wish, seconds=MAKE_SECONDS_MAX)
        ask = self._ask(mirror.key)
        for digest, path in files["inputs"]:
            await ship.send(ask, Path(path), "artifact", digest)
        await ship.send_checkpoint(ask, mirror, files["lineage"])
        mirror.keep(node_id=there["node_id"], begun=True)

    async def _workdir(self, epoch: int, folder: Path) -> str:
        data = await asyncio.to_thread(ship.workdir_package, folder)
        uri = api.package_uri(data)
        if not await self._order("uploaded", uri):
            await self._order("upload", epoch, uri, data)
        return uri

    async def _undo(self, mirror: Mirror, epoch: int) -> None:
        """Leave nothing half-made: the program has not begun, and no host shall wait for it."""
        with contextlib.suppress(DriverError):
            await self._order("drop", epoch, *mirror.key)
        if not mirror.begun:
            mirror.unclaim()
            self._mirrors.pop(mirror.key, None)

    async def stop(self, run: str, rank: int, epoch: int, notice: dict[str, Any]) -> None:
        """Have a rank told to end; nothing for an unknown or ended one. Raises DriverError, OSError."""
        mirror = self._known((run, rank))
        if mirror is None:
            return
        mirror.accept(epoch)
        self._epoch = max(self._epoch, epoch)
        if mirror.begun:
            try:
                await self._order("stop", epoch, run, rank, notice)
            except DriverError as error:
                if error.code != "no-host":
                    raise  # else the watch finds out what became of it
            return
        lock = self._locks.setdefault(mirror.key, asyncio.Lock())
        if lock.locked():
            # Its host may take minutes to be made, and is not wanted any more.
            await self._order("drop", epoch, run, rank)
        async with lock:
            if mirror.begun or mirror.ended():
                return
            await self._order("drop", epoch, run, rank)
            mirror.conclude("start-failed", "stopped before the program began", stopped=True)
        self._end(mirror)

    async def interval(self, run: str, rank: int, epoch: int, interval_ms: int) -> None:
        """Have a rank told another checkpoint interval. Raises DriverError, OSError."""
        mirror = self._known((run, rank))
        if mirror is not None:
            mirror.accept(epoch)
            if mirror.begun:
                await self._order("set_interval", epoch, run, rank, interval_ms)

    def _known(self, key: Key) -> Mirror | None:
        mirror = self._mirrors.get(key)
        return None if mirror is None or mirror.ended() else mirror

    async def look(self) -> dict[str, Any]:
        """What is known now: nodes, ranks, and since when the cluster has not answered."""
        silent = time.monotonic() - self._looked_at > SILENT_SECONDS_MAX
        ranks = {f"{run}/{rank}": self._alive((run, rank), silent=silent) for run, rank in self._mirrors}
        return {"nodes": self._nodes, "ranks": ranks, "problem": self._problem if silent else ""}

    def _alive(self, key: Key, *, silent: bool) -> bool | None:
        if not self._mirrors[key].begun:
            return False
        heard = time.monotonic() - self._heard_at.get(key, 0.0) <= SILENT_SECONDS_MAX
        return True if heard and not silent else None

    async def finish(self) -> None:
        """Have hosts of ranks that have ended let go of, before nobody asks any more."""
        with contextlib.suppress(DriverError, OSError, TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS_MAX):
                await self._look()
                ending = [
                    task
                    for key, task in self._tenders.items()
                    if key not in self._mirrors or self._mirrors[key].ended()
                ]
                await asyncio.gather(*ending)

    # News.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._look()
            except (DriverError, OSError) as error:
                self._problem = str(error)
                self._changed()
            silent = time.monotonic() - self._looked_at
            if silent > GIVE_UP_SECONDS:
                raise DriverError(f"nothing for {silent:.0f} s, at last: {self._problem}")

    async def _look(self) -> None:
        """Compare what the cluster has with what the home expects. Raises DriverError, OSError."""
        found = await self._order("look", self._cluster["lease_ms"], seconds=LOOK_SECONDS_MAX)
        nodes = sorted(found["nodes"], key=lambda node: node["id"])
        if nodes != self._nodes:
            self._nodes = nodes
            self._changed()
        self._looked_at, self._problem = time.monotonic(), ""
        hosts = {(run, rank) for run, rank in found["hosts"]}
        for key in sorted(hosts - self._mirrors.keys()):
            self._tend(key, partial(self._adopt, key))
        for key in sorted(self._mirrors):
            mirror = self._mirrors[key]
            if self._locks.setdefault(key, asyncio.Lock()).locked():
                continue
            if key in hosts or mirror.ended():  # an end is here, and its host is not dropped yet
                self._follow(mirror)
            elif mirror.begun:
                self._settle(mirror, found)
        if time.monotonic() - self._swept_at > SWEEP_SECONDS:
            kept = sorted({run for run, _ in self._mirrors})
            await self._order("sweep", self._epoch, kept, seconds=LOOK_SECONDS_MAX)
            self._swept_at = time.monotonic()

    async def _adopt(self, key: Key) -> None:
        """Take in an object that this home does not know: the engine will say that it is a stray. What never
        began and nobody asks for is let go of: the fence may have died while it made it."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            mirror = Mirror(self._home, *key)
            if key in self._mirrors:
                return
            with contextlib.suppress(DriverError):  # the watch comes again
                said = None if mirror.ended() else await self._ask(key)("order")
                if said is None and (mirror.ended() or not mirror.claimed()):
                    await self._order("drop", self._epoch, *key)
                    return
                order: dict[str, Any] = json.loads(said["text"]) if said else {"decision": "", "epoch": 0}
                here = {**order, "driver": "ray", "cluster": self._cluster["name"], "checkpoint_dir": ""}
                mirror.claim(max(mirror.recorded_epoch(), int(order.get("epoch", 0))), here)
                there = await self._ask(key)("where")
                mirror.keep(node_id=there, begun=bool(said))
                self._mirrors[key] = mirror
                self._changed()

    def _settle(self, mirror: Mirror, found: Mapping[str, Any]) -> None:
        """A rank had begun, and its host is gone: see to its end, if it is certain."""
        run, rank = mirror.key
        if mirror.node_id in {node["id"] for node in found["nodes"] if node["alive"]}:
            self._follow(mirror, gone=True)
            return
        heard = found["heard"].get(f"{run}/{rank}")
        if heard is False or (heard is None and not found["young"]):
            mirror.conclude("lost", f"its node {mirror.node_id[:12]} left the cluster")
            self._follow(mirror)

    def _end(self, mirror: Mirror) -> None:
        self._mirrors.pop(mirror.key, None)
        self._heard_at.pop(mirror.key, None)
        self._changed()

    def _tend(self, key: Key, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done for a rank, unless something is: each may wait long for a node that is silent,
        and the watch must not."""
        task = self._tenders.get(key)
        if task is None or task.done():
            self._tenders[key] = asyncio.ensure_future(work())

    def _follow(self, mirror: Mirror, *, gone: bool = False) -> None:
        self._tend(mirror.key, partial(self._following, mirror, gone=gone))

    async def _following(self, mirror: Mirror, *, gone: bool) -> None:
        """Take the news of a rank until its end and drop its host; or until that does not answer: then the
        watch comes again. `gone`: first have another host on its node record the end."""
        ask = self._ask(mirror.key)
        try:
            if gone:
                await self._conclude(mirror)
            while not mirror.ended():
                found = await ask("news", mirror.cursor, NEWS_WAIT_SECONDS)
                self._heard_at[mirror.key] = time.monotonic()
                await self._take(mirror, ask, found)
            await self._order("drop", self._epoch, *mirror.key)
            self._end(mirror)
        except (DriverError, OSError, KeyError, ValueError) as error:
            self._problem = str(error)

    async def _conclude(self, mirror: Mirror) -> None:
        settings = {name: self._cluster[name] for name in ("node_dir", "lease_ms")}
        wish = {"run": mirror.run, "rank": mirror.rank, "node_id": mirror.node_id, **settings}
        await self._order("conclude", self._epoch, wish)

    async def _take(self, mirror: Mirror, ask: ship.Ask, found: Mapping[str, Any]) -> None:
        """Everything an end rests on, then the end."""
        told = found["told"]
        for name in found["saved"][-1:]:
            if mirror.lacks_checkpoint(name):
                lineage = f"{mirror.checkpoint_folder.name}" if mirror.checkpoint_folder else ""
                archive = mirror.incoming(name)
                await ship.fetch(ask, "checkpoint", f"{lineage}/{name}", archive)
                await asyncio.to_thread(mirror.take_checkpoint, name, archive)
                archive.unlink(missing_ok=True)
        end = told.get(run_dir.EXIT)
        for digest in mirror.artifacts(end) if end is not None else ():
            path = mirror.incoming(digest)
            await ship.fetch(ask, "artifact", digest, path)
            await asyncio.to_thread(mirror.take_artifact, digest, path)
        mirror.take_output(found["log"])
        mirror.take_files(told)
        mirror.keep(cursor=found["cursor"])
        if end is not None:
            mirror.take_end(end)
        if told or found["log"] or found["saved"]:
            self._changed()
