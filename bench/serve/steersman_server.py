"""Steersman as a server of the comparison: a home, a control plane below the launcher, one service.

Theory: `steer server` in the foreground is the tree's first process; the gateway and the replicas, which it
detaches from itself, stay below the launcher and are counted with it. `steer up` is a client, as in every
user's hands, and is outside the count. The gateway's port is in <home>/gateway/address.json once it listens.
A rollout is the same declaration with another value in `envs`, a scale-down one with fewer replicas; `steer
up` returns when it is so.
"""

import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench.serve.servers import CHANGE_SECONDS_MAX, Kind, Running, ServerFailedError, Site, Wanted
from steersman.ports.gateway import ADDRESS_FILE, GATEWAY, GatewayAddress

STEER = (sys.executable, "-P", "-m", "steersman.app.cli")
SERVICE = "bench"
START_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.02
REPLICA_CPUS = 1
CHANGING_CPUS = 0.5
"""While replicas come and go three of them must fit on two cores."""


def _home(site: Site) -> Path:
    return site.folder / "home"


def _prepare(site: Site) -> tuple[list[str], dict[str, str]]:
    return [*STEER, "server", "--home", str(_home(site)), "--port", "0"], {}


def declaration(site: Site, wanted: Wanted, cpus: float, infra: str = "local") -> bytes:
    """The gateway and the service. JSON is YAML."""
    gateway = {"kind": "gateway", "port": 0}
    service = {
        "kind": "service",
        "name": SERVICE,
        "model": {"onnx": str(site.model.path)},
        "service": {"max_batch_size": site.batch, "replicas": wanted.replicas},
        "resources": {"cpus": cpus, "infra": infra},
        "envs": {"VERSION": wanted.version},
    }
    return b"\n---\n".join(msgspec.json.encode(document) for document in (gateway, service)) + b"\n"


def up(site: Site, wanted: Wanted, cpus: float, infra: str = "local") -> None:
    """Declares it and waits until it is so. Raises ServerFailedError."""
    file = site.folder / "bench.yaml"
    file.write_bytes(declaration(site, wanted, cpus, infra))
    command = [*STEER, "up", str(file), "--home", str(_home(site))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CHANGE_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise ServerFailedError(f"steer up did not return within {CHANGE_SECONDS_MAX} s") from late
    if done.returncode != 0:
        raise ServerFailedError(f"steer up ends with {done.returncode}: {done.stdout}{done.stderr}")


def _begin(site: Site) -> int:
    """Declares the service; the gateway's port."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while not (_home(site) / "server.json").exists():
        if time.monotonic() > deadline:
            raise ServerFailedError("steer server does not start")
        time.sleep(LOOK_SECONDS)
    up(site, Wanted(replicas=1, version="0"), REPLICA_CPUS)
    return gateway_port(_home(site) / GATEWAY / ADDRESS_FILE)


def gateway_port(address: Path) -> int:
    """Where a gateway listens, once it says so. Raises ServerFailedError."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if address.exists():
            return msgspec.json.decode(address.read_bytes(), type=GatewayAddress).port
        time.sleep(LOOK_SECONDS)
    raise ServerFailedError("the gateway does not say where it listens")


def _change(server: Running, wanted: Wanted) -> None:
    up(server.site, wanted, CHANGING_CPUS)


STEERSMAN = Kind(name="steersman", prepare=_prepare, path=f"/predict/{SERVICE}", begin=_begin, change=_change)
