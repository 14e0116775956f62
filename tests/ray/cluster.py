"""A real Ray cluster on this machine: a head and nodes, each with an address of its own where possible.

As root, every node gets a network namespace on a bridge, so that it has its own address and its link can be
cut; otherwise all share one address. Nodes are started one at a time: several at once on a loaded machine
time out.
Everything is ended by the process ids of what was started here, and by nothing else.
"""

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

START_SECONDS_MAX = 120.0
END_SECONDS_MAX = 20.0
STARTED = "Ray runtime started"
STORE_BYTES = 80_000_000
GCS_PORT = 6379
DASHBOARD_PORT = 8265


class Shape(NamedTuple):
    """What a node offers."""

    cpus: int = 2
    gpus: int = 0
    resources: Mapping[str, float] = {}
    labels: Mapping[str, str] = {}


class Node:
    """One raylet with what belongs to it."""

    def __init__(self, name: str, address: str, prefix: Sequence[str], shape: Shape) -> None:
        self.name, self.address, self.prefix, self.shape = name, address, tuple(prefix), shape
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def pids(self, word: str = "") -> list[int]:
        """Its processes, below the one that was started; with a word in their command line."""
        if self.process is None:
            return []
        return [pid for pid in tree(self.process.pid) if not word or word in command(pid)]


class RayCluster:
    """`ray` is the folder of the programs of an environment that has Ray."""

    def __init__(self, ray: Path, *, token: bool = True, open_dashboard: bool = False) -> None:
        self.ray = ray
        self.token = secrets.token_hex(16) if token else ""
        self._open_dashboard = open_dashboard
        self.folder = Path(tempfile.mkdtemp(prefix="rc-"))
        self.nodes: list[Node] = []
        self._net = Network() if may_make_namespaces() else None
        self._environ: dict[str, str] = {}

    @property
    def address(self) -> str:
        return f"{self.head.address}:{GCS_PORT if self._net else self._port}"

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def run_in_head(self) -> tuple[str, ...]:
        """What to put before a command that is to run where the head is."""
        return self.head.prefix

    def python(self) -> Path:
        """The interpreter as a program where the head is: who joins must have the head's address."""
        script = self.folder / "python"
        command = shlex.join([*self.run_in_head, str(self.ray / "python")])
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
        return script

    def environ(self) -> dict[str, str]:
        """What a program needs to talk to it."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))
        }
        kept |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120", **self._environ}
        kept |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token} if self.token else {}
        return kept

    def start(self, head: Shape, *nodes: Shape, environ: Mapping[str, str] | None = None) -> "RayCluster":
        """Bring it up. Raises AssertionError with the log's last lines when a node does not come."""
        self._environ = dict(environ or {})
        self._port = free_port()
        try:
            self._start_head(self._place(head))
            for shape in nodes:
                self.add(shape)
        except BaseException:
            self.close()
            raise
        return self

    def _place(self, shape: Shape) -> Node:
        number = len(self.nodes)
        if self._net is None:
            node = Node(f"n{number}", host_address(), (), shape)
        else:
            node = Node(f"n{number}", *self._net.add(number), shape)
        self.nodes.append(node)
        return node

    def _start_head(self, node: Node) -> None:
        dashboard = node.address if self._open_dashboard or self._net else "127.0.0.1"
        self._run(
            node,
            "--head",
            f"--port={GCS_PORT if self._net else self._port}",
            f"--dashboard-host={dashboard}",
            f"--dashboard-port={DASHBOARD_PORT if self._net else free_port()}",
            f"--ray-client-server-port={free_port()}",
            f"--temp-dir={self.folder / 'head'}",
        )

    def add(self, shape: Shape) -> Node:
        """One more node."""
        node = self._place(shape)
        self._run(node, f"--address={self.address}")
        return node

    def start_again(self, node: Node) -> None:
        """A node that was killed, with the same name, address and offer."""
        if node is self.head:
            self._start_head(node)
        else:
            self._run(node, f"--address={self.address}")

    def _run(self, node: Node, *options: str) -> None:
        shape, log = node.shape, self.folder / f"{node.name}.log"
        words = [
            *options,
            f"--node-ip-address={node.address}",
            f"--num-cpus={shape.cpus}",
            f"--num-gpus={shape.gpus}",
        ]
        words += [f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats", "--block"]
        if shape.resources:
            inner = ", ".join(f'"{name}": {amount}' for name, amount in shape.resources.items())
            words.append(f"--resources={{{inner}}}")
        if shape.labels:
            words.append("--labels=" + ",".join(f"{name}={value}" for name, value in shape.labels.items()))
        log.write_bytes(b"")
        with log.open("wb") as out:
            node.process = subprocess.Popen(
                [*node.prefix, str(self.ray / "ray"), "start", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environ(),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while STARTED not in (text := log.read_text(errors="replace")):
            if node.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{node.name} did not come up: {text[-2000:]}")
            time.sleep(0.1)

    # Faults.

    def kill(self, node: Node) -> None:
        """The machine is gone: all of its processes at once."""
        if node.process is not None:
            kill_all(node.process.pid)
            node.process.wait()

    def kill_part(self, node: Node, word: str) -> list[int]:
        """Only what has this word in its command line, and is not what was started."""
        found = [pid for pid in node.pids(word) if node.process is None or pid != node.process.pid]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def cut(self, node: Node) -> None:
        """Nothing goes to the node or comes from it."""
        assert self._net is not None, "a link can be cut only where namespaces are permitted"
        self._net.link(node.prefix[3], up=False)

    def heal(self, node: Node) -> None:
        """The link is back."""
        assert self._net is not None, "as for cut"
        self._net.link(node.prefix[3], up=True)

    def pause(self, node: Node, *, resume: bool = False) -> None:
        """All its processes stand still, or go on."""
        for pid in node.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT if resume else signal.SIGSTOP)

    @property
    def can_cut(self) -> bool:
        return self._net is not None

    def close(self) -> None:
        """End it all, the head last; nothing is left."""
        for node in reversed(self.nodes):
            self.kill(node)
        if self._net is not None:
            self._net.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Network:
    """Namespaces on a bridge, with names and a subnet that nobody uses."""

    def __init__(self) -> None:
        self._tag = secrets.token_hex(3)
        used = subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True, check=True).stdout
        self._net = next(f"10.77.{part}" for part in range(8, 250) if f"10.77.{part}." not in used)
        self._bridge = f"rb{self._tag}"
        self._names: list[str] = []
        ip("link", "add", self._bridge, "type", "bridge")
        ip("addr", "add", f"{self._net}.1/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")

    def add(self, number: int) -> tuple[str, tuple[str, ...]]:
        """A namespace: its address, and what to put before a command to run in it."""
        name, address = f"rn{self._tag}{number}", f"{self._net}.{10 + number}"
        ip("netns", "add", name)
        self._names.append(name)
        ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"v{name}", "master", self._bridge, "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "route", "add", "default", "via", f"{self._net}.1")
        return address, ("ip", "netns", "exec", name)

    def link(self, name: str, *, up: bool) -> None:
        ip("link", "set", f"v{name}", "up" if up else "down")

    def close(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            subprocess.run(["ip", "link", "del", f"v{name}"], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, capture_output=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def may_make_namespaces() -> bool:
    """Whether this user and this kernel allow network namespaces; tried, for nothing else tells."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"rt{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return True


def host_address() -> str:
    """The address by which this machine names itself to others; Ray takes no loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill_all(root: int) -> None:
    """A process and all below it, stopped first so that none begins another meanwhile."""
    pids: list[int] = []
    for _ in range(3):
        for pid in [pid for pid in tree(root) if pid not in pids]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                pids.append(pid)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
