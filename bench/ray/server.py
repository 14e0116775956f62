"""Steersman on Ray as a server of `bench.serve`: a cluster of one node, a control plane beside it, a service.

    python -m bench.ray.server FOLDER       the tree's first process: the cluster and the control plane

Theory: it is as `bench.serve.steersman_server`, but that replicas are on a Ray cluster of their own network
namespace, so that every request goes over TCP with certificates on both sides. Ray's head with its dashboard,
the bridge, the gateway and the replicas are all below the launcher and counted. It ends with SIGTERM.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.ray.cluster import RayCluster, Shape

from bench.home import ROOT
from bench.serve import steersman_server
from bench.serve.servers import Kind, Running, ServerFailedError, Site, Wanted
from steersman.ports.gateway import ADDRESS_FILE, GATEWAY

RAY = ROOT / ".venvs" / "ray" / "bin"
READY = "cluster-ready"
START_SECONDS_MAX = 120.0
LOOK_SECONDS = 0.1
CPUS = 4
"""As many as Ray counts; more than there are, as for Ray Serve: while replicas change there are three."""


def serve(folder: Path) -> None:
    """Bring everything up, and keep it until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    home = folder / "home"
    cluster = RayCluster(RAY)
    with contextlib.closing(cluster):
        cluster.start(Shape(CPUS))
        steer(home, "secret", "set", "ray-token", stdin=cluster.token)
        steer(home, "server", "--background", "--port", "0")
        joining = {
            "name": "gpu",
            "infra": "ray",
            "address": cluster.address,
            "token": "ray-token",
            "python": str(cluster.python()),
            "node_dir": str(folder / "nodes"),
        }
        here = {"name": "here", "cpus": 1, "memory": "2GB"}
        fleet = {"kind": "fleet", "name": "bench", "nodes": [here], "clusters": [joining]}
        steer(home, "up", "-", stdin=json.dumps(fleet))
        while not any(each["nodes"] for each in json.loads(steer(home, "status", "--json"))["clusters"]):
            time.sleep(LOOK_SECONDS)
        (folder / READY).touch()
        signal.pause()


def steer(home: Path, *words: str, stdin: str = "") -> str:
    """A command, to its end."""
    command = [*steersman_server.STEER, *words, "--home", str(home)]
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"steer {' '.join(words)}: {done.stderr}")
    return done.stdout


def _prepare(site: Site) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "bench.ray.server", str(site.folder)], {"PYTHONPATH": str(ROOT)}


def _begin(site: Site) -> int:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not (site.folder / READY).exists():
        if time.monotonic() > deadline:
            raise ServerFailedError("the cluster does not come up")
        time.sleep(LOOK_SECONDS)
    steersman_server.up(site, Wanted(replicas=1, version="0"), steersman_server.REPLICA_CPUS, infra="ray")
    return steersman_server.gateway_port(site.folder / "home" / GATEWAY / ADDRESS_FILE)


def _change(server: Running, wanted: Wanted) -> None:
    steersman_server.up(server.site, wanted, steersman_server.CHANGING_CPUS, infra="ray")


ON_RAY = Kind(
    name="steersman on ray",
    prepare=_prepare,
    path=f"/predict/{steersman_server.SERVICE}",
    begin=_begin,
    change=_change,
)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
