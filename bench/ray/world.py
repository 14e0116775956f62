"""A cluster with work on it, and whether all of that work is as it should be.

On the cluster run: jobs that beat (three alone, one gang of two), a service of two replicas under a constant
rate of requests, one training after another, each of which must end with the weights of one that nobody
disturbed, and short jobs that end with a code of their own. The control plane is `steer server`, of whatever
source tree `source` names; its home is of `bench.home`.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
from tests.ray.cluster import Node, RayCluster

from bench.home import ROOT, Home
from bench.serve.models import BUILDERS
from steersman.app.client import path
from steersman.app.wire import Row, StatusView, WorkloadView
from steersman.model.errors import SteersmanError

FIRE = runpy.run_path(str(ROOT / "examples" / "02-serve" / "load.py"))["fire"]
"""The open-loop client of 02-serve."""
PROGRAM = Path(__file__).parent / "program"
TRAINING = ROOT / "examples" / "01-train"
CLUSTER, SERVICE = "gpu", "table"
BEATING = {"beat-1": 1, "beat-2": 1, "beat-3": 1, "pair": 2}
REPLICAS = 2
STEPS = 8_000
RATE = 50
FIRED_SECONDS = 5.0
FRESH_SECONDS = 1.5
SHORT_EVERY_SECONDS = (3.0, 8.0)
SERVE_SECONDS_MAX = 60.0
POLL_SECONDS = 0.1


class Beats:
    """What the beating programs wrote: for every process the rank, and its first and last time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def last(self) -> dict[tuple[str, int], float]:
        """The newest time of every (run, rank), in seconds since the epoch."""
        found: dict[tuple[str, int], float] = {}
        for file in self._folder.iterdir():
            key = _rank(file)
            times = _times(file)
            if times:
                found[key] = max(found.get(key, 0.0), times[1])
        return found

    def doubles(self) -> list[str]:
        """Pairs of programs for one rank of one workload that lived at one time."""
        lives: dict[tuple[str, int], list[tuple[float, float, str]]] = {}
        for file in sorted(self._folder.iterdir()):
            run, rank = _rank(file)
            times = _times(file)
            if times:
                lives.setdefault((run.rpartition(".")[0], rank), []).append((*times, run))
        found = []
        for (name, rank), intervals in sorted(lives.items()):
            ordered = sorted(intervals)
            for one, other in itertools.pairwise(ordered):
                if other[0] <= one[1]:
                    found.append(
                        f"double: {one[2]} and {other[2]}, rank {rank} of {name}, "
                        f"for {one[1] - other[0]:.1f} s"
                    )
        return found


def _rank(file: Path) -> tuple[str, int]:
    run, rank, _ = file.name.rsplit("_", 2)
    return run, int(rank)


def _times(file: Path) -> tuple[float, float] | None:
    """Its first and last time; None before it has written one."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        first = opened.readline()
        opened.seek(max(size - 64, 0))
        whole = [line for line in opened.read().split(b"\n")[:-1] if len(line) == len(first) - 1]
    return (int(first) / 1e9, int(whole[-1]) / 1e9) if whole else None


class World(Home):
    """The home, the cluster and the work; `lease` is the fleet's, empty for Steersman's own."""

    def __init__(self, cluster: RayCluster, source: Path, lease: str = "") -> None:
        super().__init__()
        self.cluster, self._lease = cluster, lease
        self.beats = Beats(self.folder / "beats")
        self._program, self._training = self.folder / "program", self.folder / "training"
        shutil.copytree(PROGRAM, self._program)
        shutil.copytree(TRAINING, self._training, ignore=shutil.ignore_patterns("*.yaml", "*.md"))
        shutil.copy(PROGRAM / "beat.py", self._training)
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STEERSMAN_")},
            "PYTHONPATH": str(source),
            "STEERSMAN_HOME": str(self.home),
            "STEERSMAN_PORT": "0",
        }
        self.model = BUILDERS["tabular"](self.folder)
        self.trainings = 0
        self.acknowledged: list[tuple[str, int]] = []

    # The control plane.

    def steer(self, *words: str, stdin: str = "") -> str:
        """A command of the source tree's. Raises AssertionError."""
        command = [sys.executable, "-P", "-m", "steersman.app.cli", *words]
        done = subprocess.run(
            command, input=stdin, text=True, capture_output=True, env=self._environ, cwd=self.folder
        )
        assert done.returncode == 0, f"steer {' '.join(words)}: {done.stderr}"
        return done.stdout

    def serve(self) -> None:
        """Have a control plane."""
        self.steer("server", "--background")

    def plane(self) -> int:
        """Its process."""
        return int(json.loads((self.home / "server.json").read_text())["pid"])

    def join(self) -> None:
        """Have a control plane that knows the cluster's nodes."""
        self.steer("secret", "set", "ray-token", stdin=self.cluster.token)
        self.serve()
        self.declare(self._fleet())
        assert wait(lambda: self.nodes_seen() >= len(self.cluster.nodes), SERVE_SECONDS_MAX), self.look()

    def begin(self) -> None:
        """Join the cluster and declare the work."""
        self.join()
        self.declare(_json(kind="gateway", port=0))
        for name, ranks in BEATING.items():
            self.declare(self.job(name, "python beat.py 1000000 0", cpus=0.25, num_nodes=ranks))
        self.declare(
            _json(
                kind="service",
                name=SERVICE,
                model={"onnx": str(self.model.path)},
                service={"replicas": REPLICAS},
                resources={"infra": "ray", "cpus": 0.5, "memory": "256MB"},
            )
        )
        self.train()

    def _fleet(self) -> str:
        cluster = {
            "name": CLUSTER,
            "infra": "ray",
            "address": self.cluster.address,
            "token": "ray-token",
            "python": str(self.cluster.python()),
            "node_dir": str(self.folder / "nodes"),
        }
        here = {"name": "here", "cpus": 1, "memory": "2GB"}
        lease = {"lease": self._lease} if self._lease else {}
        return _json(kind="fleet", name="chaos", nodes=[here], clusters=[{**cluster, **lease}])

    def job(self, name: str, run: str, cpus: float, memory: str = "128MB", **more: object) -> str:
        """A job's declaration; `more` are keys that differ, None for one that is left out."""
        envs = {"LEDGER": str(self.ledger), "BEATS": str(self.folder / "beats"), "STEPS": str(STEPS)}
        fields: dict[str, object] = {
            "kind": "job",
            "name": name,
            "run": run,
            "workdir": str(self._program),
            "resources": {"infra": "ray", "cpus": cpus, "memory": memory},
            "retry": {"on_events": ["interruption"], "attempts": 1_000},
            "stop_duration": "5s",
            "envs": envs,
            **more,
        }
        return _json(**{key: value for key, value in fields.items() if value is not None})

    def declare(self, text: str) -> None:
        """Declare until it is acknowledged, and note that it was."""
        deadline = time.monotonic() + SERVE_SECONDS_MAX
        while True:
            try:
                said = self.up(text)
            except SteersmanError:
                assert time.monotonic() < deadline, "no plane serves"
                time.sleep(POLL_SECONDS)
            else:
                self.acknowledged += [(item.name, said.position) for item in said.workloads]
                return

    def train(self) -> str:
        """Declare one more training; its name."""
        self.trainings += 1
        name = f"train-{self.trainings}"
        self.declare(
            self.job(
                name,
                "python beat.py train.py",
                cpus=1,
                memory="1GB",
                workdir=str(self._training),
                checkpoint={"interval": "2s", "keep": 2},
                artifacts={"metrics": "metrics.json"},
            )
        )
        return name

    def short(self, name: str, seconds: float, code: int) -> None:
        """Declare a job that ends soon."""
        self.declare(self.job(name, f"python beat.py {seconds:.2f} {code}", cpus=0.25))

    # What there is.

    def look(self) -> StatusView | None:
        """Everything; None while no plane answers."""
        try:
            return self.status(owned=True)
        except SteersmanError:
            return None

    def nodes_seen(self) -> int:
        """How many nodes of the cluster the control plane knows to be there."""
        status = self.look()
        return 0 if status is None else sum(each.nodes for each in status.clusters if each.name == CLUSTER)

    def running(self, node: Node | None = None) -> dict[str, Row]:
        """Runs on the cluster, or on one node, by their ids. There must be a plane."""
        return {run: row for run, row in self.placed(node).items() if row.run_state == "running"}

    def placed(self, node: Node | None = None) -> dict[str, Row]:
        """The same with those that begin or end there."""
        status = self.look()
        assert status is not None, "no plane serves"
        word = "" if node is None else spelled(node)
        rows = [row for row in status.workloads if row.run and row.run_state != "ended"]
        return {row.run: row for row in rows if row.run and any(word in at for at in row.nodes)}

    def lacks(self, gone: frozenset[str]) -> list[str]:
        """Why the work is not as it should be; `gone` are runs that a fault has ended. Empty: it is."""
        status = self.look()
        if status is None:
            return ["no plane answers"]
        rows = {row.name: row for row in status.workloads}
        found = [f"the cluster: {each.problem}" for each in status.clusters if each.problem]
        last, now = self.beats.last(), time.time()
        for name, ranks in (*BEATING.items(), (f"train-{self.trainings}", 1)):
            row = rows.get(name)
            if row is not None and row.settled and name.startswith("train"):
                continue
            if row is None or row.run is None or row.run_state != "running" or row.run in gone:
                found.append(f"{name} does not run: {row and (row.run, row.run_state, row.code)}")
            elif any(now - last.get((row.run, rank), 0.0) > FRESH_SECONDS for rank in range(ranks)):
                found.append(f"{name} does not beat")
        return found + self._lacks_service(status, gone)

    def _lacks_service(self, status: StatusView, gone: frozenset[str]) -> list[str]:
        live = [
            row
            for row in status.workloads
            if row.service == SERVICE and row.run_state == "running" and row.run not in gone
        ]
        ready = next((row.ready for row in status.services if row.name == SERVICE), 0)
        if len(live) < REPLICAS or ready < REPLICAS:
            return [f"{SERVICE} has {len(live)} replicas, {ready} ready"]
        return []

    # The end.

    def settled(self, number: int) -> bool:
        """Whether that training has ended."""
        status = self.look()
        rows = () if status is None else status.workloads
        return any(row.name == f"train-{number}" and row.settled for row in rows)

    def trained(self) -> dict[str, tuple[str, int]]:
        """Of every training the digest of its weights, or what became of it, and how many runs it took."""
        found = {}
        for number in range(1, self.trainings + 1):
            with self.client() as client:
                view = client.get(path("workloads", f"train-{number}"), WorkloadView)
            metrics = [item.path for item in view.artifacts if item.name == "metrics"]
            weights = (
                json.loads(Path(metrics[-1]).read_text())["weights_sha256"] if metrics else view.row.phase
            )
            found[view.row.name] = (weights, view.row.runs)
        return found

    def finish(self) -> None:
        """Remove everything, and end the plane."""
        self.steer("down", "--all")
        self.steer("server", "--stop")

    def remove(self) -> None:
        """End what is left of this home, and take its folder away."""
        with contextlib.suppress(OSError, ValueError, ProcessLookupError):
            kill(self.plane())
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                kill(pid)
        super().remove()


def spelled(node: Node) -> str:
    """Its address as the names of the fleet's nodes have it."""
    return node.address.replace(".", "-")


def _json(**fields: object) -> str:
    """A declaration: JSON is YAML."""
    return msgspec.json.encode(fields).decode()


class Busy(threading.Thread):
    """Declares and clears away short jobs, and the next training when one has ended."""

    def __init__(self, world: World, seed: str) -> None:
        super().__init__(daemon=True)
        self._world, self._chance = world, random.Random(seed)
        self.over = threading.Event()
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._shorts: dict[str, int] = {}
        self._count = 0

    def run(self) -> None:
        due = 0.0
        while not self.over.wait(0.5):
            if time.monotonic() >= due:
                self._declare()
                due = time.monotonic() + self._chance.uniform(*SHORT_EVERY_SECONDS)
            self._clear()

    def _declare(self) -> None:
        self._count += 1
        name, code = f"short-{self._count}", self._chance.choice((0, 0, 3))
        self._shorts[name] = code
        self._world.short(name, self._chance.uniform(0.2, 3.0), code)

    def _clear(self) -> None:
        status = self._world.look()
        rows = {} if status is None else {row.name: row for row in status.workloads}
        for name, code in list(self._shorts.items()):
            row = rows.get(name)
            if row is not None and row.settled:
                wanted = "failed" if code else "succeeded"
                if row.phase != wanted:
                    self.wrong.append(f"{name} is {row.phase} ({row.code}), and was to be {wanted}")
                self.ended[row.phase] += 1
                if self._surely(name):
                    del self._shorts[name]
        training = rows.get(f"train-{self._world.trainings}")
        if training is not None and training.settled:
            self._world.train()

    def _surely(self, name: str) -> bool:
        try:
            self._world.down(name)
        except SteersmanError as error:
            return error.code in {"not-found", "unknown-workload"}
        return True


class Asking(threading.Thread):
    """Requests to the service at a constant rate."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._world = world
        self.over = threading.Event()
        self.replies: list[tuple[float, int, float]] = []
        """When it was sent, to FIRED_SECONDS; status (0: none); and seconds of each."""

    def run(self) -> None:
        status = self._world.look()
        assert status is not None and status.gateway is not None, "the gateway listens by now"  # noqa: PT018 - one thing
        port = int(status.gateway.listens_on.rpartition(":")[2])
        bodies = [msgspec.json.encode(row) for row in self._world.model.rows]
        while not self.over.is_set():
            at = time.monotonic()
            replies = asyncio.run(FIRE(port, f"/predict/{SERVICE}", bodies, RATE, FIRED_SECONDS))
            self.replies += [(at, reply.status, reply.seconds) for reply in replies]


def wait(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something comes to hold."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(POLL_SECONDS)
    return False


def kill(pid: int) -> None:
    """SIGKILL, of one that is there."""
    os.kill(pid, signal.SIGKILL)
