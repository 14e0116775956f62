"""A home with a running gateway, and raw sockets to attack it with."""

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from steersman.model.ids import WorkloadName
from steersman.model.service import ApiKey, Gateway, RequestLimits
from steersman.ports.gateway import (
    GatewayAddress,
    GatewayConfig,
    GatewayStats,
    ReplicaTarget,
    RevisionConfig,
    ServiceConfig,
)

PROGRAM = Path(__file__).with_name("gateway_under_test.py")
SERVICES = ("echo", "slow", "slower", "fails", "big", "stream", "endless", "none")
WAIT_S = 20.0
GOOD, SCOPED, EXPIRED, SLOWED = "good-key", "scoped-key", "expired-key", "slowed-key"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def keys() -> tuple[ApiKey, ...]:
    return (
        ApiKey(name="good", digest=digest(GOOD), rate_milli=None),
        ApiKey(name="scoped", digest=digest(SCOPED), services=(WorkloadName("echo"),)),
        ApiKey(name="expired", digest=digest(EXPIRED), expires_ms=1),
        ApiKey(name="slowed", digest=digest(SLOWED), rate_milli=100, burst=5),
    )


def wait_for(what: Callable[[], Any], seconds: float = WAIT_S) -> Any:
    """The first true value of `what`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not come true in {seconds} s")


class Reply:
    """One response, read to its end."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A raw connection."""

    def __init__(self, where: GatewayAddress, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection((where.address, where.port), timeout=WAIT_S)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> Reply:
        """The next response."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        raw, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = raw.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", "0"))
        while len(self.buffer) < size:
            self._more()
        body, self.buffer = self.buffer[:size], self.buffer[size:]
        return Reply(int(first.split()[1]), headers, body)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("closed")
        self.buffer += data

    def ask(self, data: bytes) -> Reply:
        self.send(data)
        return self.read()

    def closed(self) -> bool:
        """Whether the gateway closes, within the time of the socket."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            return True
        return True


def post(
    path: str, body: bytes = b"[1]", *headers: str, host: str = "127.0.0.1", key: str | None = GOOD
) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str, *headers: str, method: str = "GET", key: str | None = GOOD) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if key is not None:
        lines.append(f"X-API-Key: {key}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Scene:
    """One gateway."""

    def __init__(self, home: Path, gateway: Gateway, **limits: float) -> None:
        self.home = home
        self.gateway = gateway
        self.position = 0
        (home / "gateway").mkdir(parents=True)
        self.configure(gateway)
        env = {**os.environ, "GATEWAY_TEST_LIMITS": json.dumps(limits)}
        self.process = subprocess.Popen([sys.executable, str(PROGRAM), str(home)], env=env)
        self.where: GatewayAddress = wait_for(self.address)
        wait_for(lambda: len(self.stats()) >= gateway.workers)

    def configure(self, gateway: Gateway, **changed: Any) -> None:
        self.position += 1
        limits = RequestLimits(body_bytes_max=2**20, timeout_ms=5_000)
        replicas = (ReplicaTarget(run="r", socket="/nowhere"),)
        revision = RevisionConfig(revision=1, replicas=replicas)
        services = tuple(ServiceConfig(name=name, revisions=(revision,), limits=limits) for name in SERVICES)
        fields: dict[str, Any] = {
            "epoch": 1, "position": self.position, "gateway": gateway, "services": services, "keys": keys(),
            **changed,
        }  # fmt: skip
        self.write(msgspec.json.encode(GatewayConfig(**fields)))

    def write(self, data: bytes) -> None:
        temporary = self.home / "gateway" / "new"
        temporary.write_bytes(data)
        temporary.rename(self.home / "gateway" / "config.json")

    def address(self) -> GatewayAddress | None:
        path = self.home / "gateway" / "address.json"
        return msgspec.json.decode(path.read_bytes(), type=GatewayAddress) if path.exists() else None

    def stats(self) -> list[GatewayStats]:
        files = sorted((self.home / "gateway").glob("stats-*.json"))
        return [msgspec.json.decode(path.read_bytes(), type=GatewayStats) for path in files]

    def client(self, context: ssl.SSLContext | None = None) -> Client:
        return Client(self.where, context)

    def healthy(self) -> None:
        """A client that does nothing wrong is served."""
        with self.client() as client:
            for _ in range(3):
                reply = client.ask(post("/predict/echo", b'{"a":[1,2]}'))
                assert (reply.status, reply.json) == (200, {"a": [1, 2]})

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)
