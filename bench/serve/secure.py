"""What it costs to reach a replica over TCP with certificates on both sides, against a Unix socket.

    python -m bench.serve.secure

Theory: one gateway worker before one replica of the tabular model, the model for which the way there weighs
the most. The same replica program listens either way, the load generator (closed loop, one connection for
each of its own) is the same, and the two ways take turns, so that a busy machine disturbs both. What is
compared is requests per CPU-second of gateway and replica together; the ratio is the median over the rounds.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.serve import load, models
from bench.serve.tree import cpu_seconds
from steersman.dataplane.gateway import gateway_argv
from steersman.dataplane.replica import replica_argv
from steersman.dataplane.replica.settings import ENV_MODEL
from steersman.guard.authority import Authority
from steersman.model.service import Gateway, RequestLimits
from steersman.ports import run_dir
from steersman.ports.gateway import (
    ADDRESS_FILE,
    CONFIG_FILE,
    GATEWAY,
    STATS_PREFIX,
    GatewayAddress,
    GatewayConfig,
    GatewayStats,
    ReplicaTarget,
    RevisionConfig,
    ServiceConfig,
)

SERVICE, RUN, HOME_ID, HOST = "bench", "bench.1", "bench", "127.0.0.1"
BATCH = 64
WAIT_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.02
WARM_SECONDS = 1.0


@contextlib.contextmanager
def _process(argv: list[str], environ: dict[str, str]) -> Iterator[int]:
    """A program and its pid; it is ended with the block."""
    process = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(WAIT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(path: Path) -> bytes:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path.name} does not come")
        time.sleep(LOOK_SECONDS)
    return path.read_bytes()


def _replica_environ(home: Path, folder: Path, model: models.Model, secure: bool) -> dict[str, str]:
    serves: dict[str, Any] = {"service": SERVICE, "revision": 1, "kind": "onnx", "batch_size_max": BATCH}
    secrets: dict[str, str] = {}
    if secure:
        authority = Authority(home, HOME_ID, lambda: time.time_ns() // 1_000_000)
        authority.keep_gateway()
        serves["listen"] = {"address": HOST}
        secrets = dict(authority.replica(RUN))
    return {
        **os.environ,
        **secrets,
        run_dir.ENV_RUN_DIR: str(folder),
        run_dir.ENV_RUN_ID: RUN,
        run_dir.ENV_REPLICA: json.dumps(serves),
        ENV_MODEL: str(model.path),
    }


def _configure(home: Path, target: ReplicaTarget) -> None:
    service = ServiceConfig(
        name=SERVICE,
        revisions=(RevisionConfig(revision=1, replicas=(target,)),),
        limits=RequestLimits(),
        hold_ms=10_000,
    )
    config = GatewayConfig(
        epoch=1, position=1, gateway=Gateway(port=0, workers=1), services=(service,), keys=()
    )
    (home / GATEWAY).mkdir(exist_ok=True)
    (home / GATEWAY / CONFIG_FILE).write_bytes(msgspec.json.encode(config))


def _until_ready(home: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        stats = msgspec.json.decode(_wait(home / GATEWAY / f"{STATS_PREFIX}0.json"), type=GatewayStats)
        if sum(model.ready_replicas for model in stats.models):
            return
        if time.monotonic() > deadline:
            raise RuntimeError("the gateway does not reach the replica")
        time.sleep(LOOK_SECONDS)


def _one(folder: Path, model: models.Model, seconds: float, secure: bool) -> float:
    """Requests per CPU-second of gateway and replica."""
    home, run = folder / "home", folder / "run"
    for made in (home, run):
        made.mkdir(parents=True)
    bodies = []
    for number, row in enumerate(model.rows):
        bodies.append(folder / f"body-{number}")
        bodies[-1].write_bytes(msgspec.json.encode(row))
    environ = _replica_environ(home, run, model, secure)
    with _process([*replica_argv(sys.executable)], environ) as replica:
        ready = json.loads(_wait(run / run_dir.READY))
        socket = "" if secure else str(run / run_dir.REPLICA_SOCKET)
        _configure(home, ReplicaTarget(run=RUN, socket=socket, address=ready.get("address", "")))
        with _process([*gateway_argv(sys.executable, home)], dict(os.environ)) as gateway:
            address = msgspec.json.decode(_wait(home / GATEWAY / ADDRESS_FILE), type=GatewayAddress)
            _until_ready(home)
            target = load.Target(port=address.port, path=f"/predict/{SERVICE}", bodies=tuple(bodies))
            load.run(target, 0, WARM_SECONDS)
            before = cpu_seconds(replica) + cpu_seconds(gateway)
            done = load.run(target, 0, seconds)
            spent = cpu_seconds(replica) + cpu_seconds(gateway) - before
    if done.lost or not done.ok:
        raise RuntimeError(f"requests were lost: {done.outcomes}")
    return done.ok / spent


def measure(seconds: float = 6.0, rounds: int = 5) -> dict[str, float]:
    """Figures by name."""
    with tempfile.TemporaryDirectory(prefix="steersman-bench-") as name:
        folder = Path(name)
        model = models.BUILDERS["tabular"](folder)
        rates: dict[bool, list[float]] = {False: [], True: []}
        for number in range(rounds):
            for secure in (False, True) if number % 2 else (True, False):
                place = folder / f"{number}-{secure}"
                rates[secure].append(_one(place, model, seconds, secure))
                shutil.rmtree(place)
    ratios = [there / here for there, here in zip(rates[True], rates[False], strict=True)]
    return {
        "unix_requests_per_cpu_s": statistics.median(rates[False]),
        "secure_requests_per_cpu_s": statistics.median(rates[True]),
        "secure_to_unix": statistics.median(ratios),
    }


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    for name, value in measure().items():
        print(f"{name:30} {value:,.2f}")


if __name__ == "__main__":
    main()
