"""The Ray driver: the driver's verbs, and what its clusters have, over one bridge process a cluster.

Nothing is held in memory that cannot be read again from the home and the clusters. What a rank is comes from
its mirrored folder, read by the same code as a rank of this machine; whether it is alive comes from the
bridge. A cluster that does not answer makes its ranks unknown, which destroys nothing.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from steersman.drivers.ray.bridge import Bridge, bridge_environ
from steersman.drivers.ray.nodes import asked, node_names, nodes_of
from steersman.hosting import orders
from steersman.hosting.claim import rank_dir
from steersman.hosting.discard import discard
from steersman.hosting.folders import place_workdir
from steersman.hosting.report import Scanner, Sight
from steersman.model.decisions import Placement
from steersman.model.errors import DriverError, NotTakenError, SteersmanError
from steersman.model.fleet import Cluster
from steersman.ports import run_dir
from steersman.ports.clusters import ClusterReport
from steersman.ports.driver import RankKey, RankReport, StartOrder, StopOrder

NAME = "ray"
DIGEST_PREFIX = "sha256:"


class RaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the composition root decides.

    `bridge_argv` gives a bridge's command for an interpreter, `python` is the one that is used unless a
    cluster names its own. `environ` is what bridges inherit. `open_secret` opens a cluster's token by its
    name.
    """

    home: Path
    home_id: str
    python: str
    bridge_argv: Callable[[str], Sequence[str]]
    environ: Mapping[str, str]
    open_secret: Callable[[str], str]
    certify: Callable[[str], Sequence[tuple[str, str]]]


class _Joined:
    """A cluster, its bridge, and what the last look at it gave."""

    def __init__(self, cluster: Cluster, bridge: Bridge) -> None:
        self.cluster, self.bridge = cluster, bridge
        self.nodes: list[dict[str, Any]] | None = None
        self.ranks: dict[str, bool | None] = {}
        self.problem: DriverError | None = None


class RayDriver:
    """Ranks on Ray clusters; also the Clusters port."""

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._home = settings.home.absolute()
        self._joined: dict[str, _Joined] = {}
        self._scanner = Scanner(
            self._home, Sight(driver=NAME, alive=self._alive, conclude=lambda _k, _f: None)
        )
        self._one_scan = asyncio.Lock()
        self._bells = {bell: asyncio.Event() for bell in ("ranks", "nodes")}

    @property
    def name(self) -> str:
        """The name that a node's `driver` field uses."""
        return NAME

    # The clusters.

    async def observe_clusters(self, clusters: Sequence[Cluster], epoch: int) -> Sequence[ClusterReport]:
        """Join those that are new, leave those that are gone, and say what each has."""
        wanted = {cluster.name: cluster for cluster in clusters if cluster.driver == NAME}
        for name in sorted(self._joined):
            if self._joined[name].cluster != wanted.get(name):
                await self._joined.pop(name).bridge.close()
        reports = []
        for name in sorted(wanted):
            if name not in self._joined:
                try:
                    self._joined[name] = self._join(wanted[name], epoch)
                except SteersmanError as error:
                    reports.append(ClusterReport(cluster=name, problem=error.message, hint=error.hint))
                    continue
            report = await self._report(self._joined[name])
            if report is not None:
                reports.append(report)
        return reports

    def _join(self, cluster: Cluster, epoch: int) -> _Joined:
        token = self._settings.open_secret(cluster.token) if cluster.token else ""
        try:
            argv = self._settings.bridge_argv(cluster.python or self._settings.python)
        except OSError as error:
            raise DriverError(f"the home {self._home} cannot be used: {error}") from error
        known = {**msgspec.to_builtins(cluster), "runtime_env": json.loads(cluster.runtime_env)}
        bridge = Bridge(
            argv,
            bridge_environ(self._settings.environ, token),
            {"cluster": known, "home": str(self._home), "home_id": self._settings.home_id, "epoch": epoch},
            self._ring,
        )
        return _Joined(cluster, bridge)

    async def _report(self, joined: _Joined) -> ClusterReport | None:
        """None while it is being connected to for the first time."""
        name = joined.cluster.name
        await self._look(joined)
        problem = joined.problem
        if problem is not None:
            return ClusterReport(cluster=name, problem=problem.message, hint=problem.hint)
        if joined.nodes is None:
            return None
        return ClusterReport(cluster=name, nodes=nodes_of(joined.cluster, joined.nodes))

    async def _look(self, joined: _Joined) -> None:
        try:
            found = await joined.bridge.ask("look")
        except DriverError as error:
            joined.ranks = {}
            first = error.code == "connecting" and joined.nodes is None
            joined.problem = None if first else error
            return
        self._note(joined, found)

    def _note(self, joined: _Joined, found: Mapping[str, Any]) -> None:
        joined.nodes, joined.ranks = found["nodes"], found["ranks"]
        joined.problem = DriverError(found["problem"]) if found["problem"] else None

    # The driver.

    async def start(self, order: StartOrder) -> None:
        """Begin one rank or find it. Raises DriverError."""
        joined = self._of(order.cluster)
        if joined.nodes is None:
            self._note(joined, await joined.bridge.ask("look"))  # or raises what is wrong with it
        folder = rank_dir(self._home, order.key.run, order.key.rank)
        try:
            await asyncio.to_thread(self._prepare, order)
            wish = await self._wish(joined, order)
            await joined.bridge.ask(
                "start",
                order=self._order(joined, order, folder),
                epoch=order.epoch,
                wish=wish,
                files=self._files(order),
            )
        except OSError as error:
            raise DriverError(f"the home {self._home} cannot be used: {error}") from error
        finally:
            self._scanner.touch(order.key)
        self._ring()

    def _prepare(self, order: StartOrder) -> None:
        """The declaration's files, copied once, so that all its runs have the same. Raises DriverError."""
        if order.job.workdir is not None:
            place_workdir(self._home, orders.declaration(order), order.job.workdir)

    def _order(self, joined: _Joined, order: StartOrder, folder: Path) -> dict[str, Any]:
        """The order as it is on record here, and under `there` what the node makes its own of."""
        job, where = order.job, orders.places(self._home, folder, order)
        if job.program == "replica":
            where = msgspec.structs.replace(where, listen=self._raw(joined, order.placement)["ip"])
        here = orders.body(order, where, self._settings.home_id, job.run, NAME)
        lineage = Path(where.checkpoints).name
        shared = joined.cluster.shared_dir
        checkpoints = f"{shared}/{self._settings.home_id}/{lineage}" if shared else ""
        there = {
            **here,
            "declaration": orders.declaration(order),
            "with_workdir": job.workdir is not None,
            "checkpoint_name": lineage,
            "shared_checkpoints": checkpoints,
            "program": job.program,
            "python": None if job.replica is None else job.replica.python,
            "input_digests": [(name, Path(path).name) for name, path in order.input_paths],
        }
        return {**here, "checkpoint_dir": checkpoints or here["checkpoint_dir"], "there": there}

    async def _wish(self, joined: _Joined, order: StartOrder) -> dict[str, Any]:
        """What is asked of Ray for the whole gang, and this rank's tags."""
        gang = []
        for placement in order.gang or (order.placement,):
            node = self._raw(joined, placement)
            gang.append({"node_id": node["id"], "resources": asked(placement, order.node_devices, node)})
        tags = {
            "STEERSMAN_HOME_ID": self._settings.home_id,
            run_dir.ENV_RUN_ID: order.key.run,
            run_dir.ENV_NODE_RANK: str(order.key.rank),
            "STEERSMAN_DECISION": order.decision,
        }
        return {"run": order.key.run, "rank": order.key.rank, "gang": gang, "tags": tags}

    def _raw(self, joined: _Joined, placement: Placement) -> dict[str, Any]:
        """The node of a placement as Ray told of it. Raises DriverError when it is gone."""
        raw = joined.nodes or []
        names = node_names(joined.cluster.name, raw)
        for node in raw:
            if node["alive"] and names[node["id"]] == placement.node:
                return node
        raise NotTakenError(
            f"the node {placement.node} has left the cluster {joined.cluster.name}",
            hint="it is placed anew by itself",
            code="node-gone",
        )

    def _files(self, order: StartOrder) -> dict[str, Any]:
        workdir = self._home / run_dir.WORKDIRS / orders.declaration(order)
        return {
            "inputs": [(Path(path).name, path) for _, path in order.input_paths],
            "workdir": None if order.job.workdir is None else str(workdir),
            "lineage": f"{order.workload}-{order.lineage}",
            "secrets": (*order.secrets, *self._certificates(order)),
        }

    def _certificates(self, order: StartOrder) -> Sequence[tuple[str, str]]:
        return self._settings.certify(order.key.run) if order.job.program == "replica" else ()

    async def stop(self, order: StopOrder) -> None:
        """Ask for the end of one rank. Raises DriverError."""
        notice = {"cause": order.cause, "grace_ms": order.grace_ms}
        await self._told(order.key, "stop", epoch=order.epoch, notice=notice)

    async def set_checkpoint_interval(self, key: RankKey, epoch: int, interval_ms: int) -> None:
        """Leave a new interval for the trainer. Raises DriverError."""
        await self._told(key, "interval", epoch=epoch, interval_ms=interval_ms)

    async def _told(self, key: RankKey, verb: str, **arguments: Any) -> None:
        cluster = self._cluster_of(key)
        if cluster is not None:
            try:
                await self._of(cluster).bridge.ask(verb, run=key.run, rank=key.rank, **arguments)
            finally:
                self._scanner.touch(key)
            self._ring()

    async def discard(self, key: RankKey) -> None:
        """Forget an ended rank. Raises DriverError when it has not ended."""
        try:
            await asyncio.to_thread(discard, rank_dir(self._home, key.run, key.rank))
        except OSError as error:
            raise DriverError(f"the home {self._home} cannot be used: {error}") from error
        finally:
            self._scanner.touch(key)
        self._ring()

    async def observe(self) -> Sequence[RankReport]:
        """Every rank of this driver's, as its mirrored folder says."""
        async with self._one_scan:
            for joined in list(self._joined.values()):
                await self._look(joined)
            return await asyncio.to_thread(self._scanner.scan)

    async def wait_changed(self, timeout_ms: int) -> None:
        """Return when a bridge has news, or after the timeout."""
        await self._wait("ranks", timeout_ms)

    async def wait_clusters_changed(self, timeout_ms: int) -> None:
        """The same for who looks at the clusters."""
        await self._wait("nodes", timeout_ms)

    async def close(self) -> None:
        """Let go of the clusters; the ranks live on."""
        joined = list(self._joined.values())
        self._joined.clear()
        await asyncio.gather(*(each.bridge.close() for each in joined))

    def _of(self, cluster: str) -> _Joined:
        joined = self._joined.get(cluster)
        if joined is None:
            raise NotTakenError(
                f"the cluster {cluster!r} is not connected", hint="wait a moment, or declare it again"
            )
        return joined

    def _cluster_of(self, key: RankKey) -> str | None:
        """The cluster of a rank that is on record; None for an unknown one."""
        order = self._scanner.order(key)
        return None if order is None else order.cluster

    def _alive(self, key: RankKey, _folder: Path) -> bool | None:
        order = self._scanner.order(key)
        joined = None if order is None else self._joined.get(order.cluster)
        if joined is None or f"{key.run}/{key.rank}" not in joined.ranks:
            return None
        return joined.ranks[f"{key.run}/{key.rank}"]

    def _ring(self) -> None:
        """There are news. Not of what failed: who looks at once would try again at once."""
        for bell in self._bells.values():
            bell.set()

    async def _wait(self, bell: str, timeout_ms: int) -> None:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._bells[bell].wait()
        except TimeoutError:
            pass
        self._bells[bell].clear()
