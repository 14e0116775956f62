"""A home with replicas on a network: its authority, a real gateway, and replicas that listen on loopback."""

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from tests.serving.gateway_scene import WAIT_S, Client, Reply, wait_for
from tests.serving.replica_scene import Gateway as Link
from tests.serving.replica_scene import Replica

from steersman.guard.authority import Authority
from steersman.model.service import Gateway, RequestLimits
from steersman.ports import peers, run_dir
from steersman.ports.gateway import (
    GatewayAddress,
    GatewayConfig,
    GatewayStats,
    ReplicaTarget,
    RevisionConfig,
    ServiceConfig,
)

HOME_ID = "0123456789abcdef"
HOST = "127.0.0.1"
ECHO = "def predict(row):\n    return row\n"
WHO = "import os\nBATCHES = 0\n\ndef predict(rows):\n    return [[os.getpid(), len(rows)] for _ in rows]\n"
WHO += "\npredict.batched = True\n"
SLOW = WHO.replace("    return", "    import time\n    time.sleep(0.2)\n    return")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def authority(home: Path, home_id: str = HOME_ID, shift_days: int = 0) -> Authority:
    """The authority of a home, which may believe that it is another day."""
    home.mkdir(parents=True, exist_ok=True)
    return Authority(home, home_id, lambda: now_ms() + shift_days * 86_400_000)


def replica_at(base: Path, made: Authority, run: str, source: str = ECHO, **asked: Any) -> Replica:
    """A replica on the network, certified for `run`."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "model.py").write_text(source)
    settings = {"kind": "callable", "target": "model:predict", "batch_size_max": 8}
    settings |= {"batch_timeout_ms": 30_000, "listen": {"address": HOST}}
    return Replica(base, {**settings, **asked}, **{run_dir.ENV_RUN_ID: run}, **dict(made.replica(run)))


def address(replica: Replica) -> str:
    """Where it listens."""
    return str(json.loads((replica.folder / run_dir.READY).read_text())["address"])


def context_for(certificate: str, key: str, trusted: str) -> ssl.SSLContext:
    """A client with this certificate, if any, that trusts this authority."""
    context = peers.make_context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted)
    if certificate:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(key + certificate)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def server_context(texts: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """A server with a replica's certificate."""
    found = dict(texts)
    return server_context_of(found[run_dir.ENV_REPLICA_KEY] + found[run_dir.ENV_REPLICA_CERT])


def server_context_of(pem: str) -> ssl.SSLContext:
    """A server with this key and certificate; it asks for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def gateway_context(home: Path, made: Authority) -> ssl.SSLContext:
    """What the gateway of the home connects with."""
    made.keep_gateway()
    context = peers.make_context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(home / "gateway" / "replicas-ca.pem")
    context.load_cert_chain(home / "gateway" / "replicas.pem")
    return context


def connect(where: str) -> socket.socket:
    """A bare connection."""
    place = peers.split_address(where)
    assert place is not None
    return socket.create_connection(place, timeout=WAIT_S)


class SecureLink(Link):
    """A gateway's end of a connection to a replica on the network."""

    def __init__(self, where: str, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(connect(where))
        try:
            self.hello = self.read().meta
        except (OSError, EOFError):
            self.socket.close()
            raise


class Served:
    """A real gateway before replicas that are told to it."""

    def __init__(self, home: Path, workers: int = 1) -> None:
        self.home, self.position = home, 0
        self.gateway = Gateway(port=0, workers=workers)
        self.configure()
        argv = [sys.executable, "-m", "steersman.dataplane.gateway.main", str(home)]
        self.process = subprocess.Popen(argv, env=dict(os.environ))
        path = home / "gateway" / "address.json"
        wait_for(path.exists)
        self.where = msgspec.json.decode(path.read_bytes(), type=GatewayAddress)

    def configure(self, *targets: ReplicaTarget, timeout_ms: int = 10_000) -> None:
        self.position += 1
        (self.home / "gateway").mkdir(parents=True, exist_ok=True)
        service = ServiceConfig(
            name="svc",
            revisions=(RevisionConfig(revision=3, replicas=targets),),
            limits=RequestLimits(timeout_ms=timeout_ms),
        )
        config = GatewayConfig(
            epoch=1, position=self.position, gateway=self.gateway, services=(service,), keys=()
        )
        temporary = self.home / "gateway" / "new"
        temporary.write_bytes(msgspec.json.encode(config))
        temporary.rename(self.home / "gateway" / "config.json")

    def stats(self) -> list[GatewayStats]:
        files = sorted((self.home / "gateway").glob("stats-*.json"))
        return [msgspec.json.decode(path.read_bytes(), type=GatewayStats) for path in files]

    def ready(self) -> int:
        """How many replicas its processes have, in all."""
        return sum(model.ready_replicas for stats in self.stats() for model in stats.models)

    def position_seen(self) -> int:
        return min((stats.config_position for stats in self.stats()), default=0)

    def retried(self) -> int:
        return sum(model.retried for stats in self.stats() for model in stats.models)

    def ask(self, body: object) -> Reply:
        """One request on a connection of its own."""
        data = json.dumps(body).encode()
        head = f"POST /predict/svc HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(data)}\r\n\r\n"
        with Client(self.where) as client:
            return client.ask(head.encode() + data)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


@contextlib.contextmanager
def served(home: Path, workers: int = 1) -> Iterator[Served]:
    """A gateway that ends with the block."""
    made = Served(home, workers)
    try:
        yield made
    finally:
        assert made.end() == 0
