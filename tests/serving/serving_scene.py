"""A home that serves: small models, a client that keeps asking while things happen, and what came of it."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.e2e.steer_process import steer, steer_json, write

FEATURES = 4
ROW = [1.0, 2.0, 3.0, 4.0]
LOOK_S = 0.02
SECONDS_MAX = 40
CLIENTS = 4


def make_model(path: Path, scale: float = 1.0) -> Path:
    """An ONNX file that sums up a row of four floats and multiplies by `scale`."""
    weights = numpy_helper.from_array(np.full((FEATURES, 1), scale, np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["sum"])],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["N", 1])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def service(model: str, *more: str, replicas: int = 1, name: str = "sum") -> str:
    """A declaration; `model` and `more` are lines of its own."""
    head = f"kind: service\nname: {name}\nresources: {{cpus: 0.5, memory: 512MB}}\nstop_duration: 10s\n"
    body = "".join(f"  {line}\n" for line in (f"replicas: {replicas}", *more))
    return f"{head}model: {{{model}}}\nservice:\n{body}"


FLEET = "kind: fleet\nname: f\nnodes: [{name: local, cpus: 4, memory: 6GB}]\n"


class Served:
    """One home with its gateway."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def up(self, text: str, code: int = 0) -> Any:
        """Declare a text; does not wait."""
        path = write(self.home.parent / "declared.yaml", text)
        run = steer(self.home, "up", path, "--no-wait", "--json")
        assert run.returncode == code, (run.stdout, run.stderr)
        return run

    @property
    def port(self) -> int:
        """Where the gateway listens."""
        address = self.home / "gateway" / "address.json"
        until(address.exists, "the gateway listens")
        return int(json.loads(address.read_text())["port"])

    def ask(self, body: object, name: str = "sum") -> tuple[int, Any]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        try:
            connection.request("POST", f"/predict/{name}", json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def row(self, name: str = "sum") -> Any:
        """What `steer status` says of the service."""
        return next(row for row in steer_json(self.home, "status")["services"] if row["name"] == name)

    def serves(self, name: str = "sum", revision: int | None = None, ready: int = 1) -> None:
        """Wait until so many replicas of that revision serve, and no others."""

        def reached() -> bool:
            row = self.row(name)
            settled = row["ready"] == row["target"] == ready and row["phase"] == "serving"
            return settled and (revision is None or row["revision"] == revision)

        until(reached, f"{name} serves")

    def replicas(self, name: str = "sum") -> list[Any]:
        """Its replicas, as the status has them."""
        return list(steer_json(self.home, "status", name)["replicas"])

    def pid_of(self, run: str) -> int:
        """The process of a run, from its folder."""
        return int(json.loads((self.home / "runs" / run / "0" / "started.json").read_text())["pid"])

    def control_plane(self) -> int:
        """Its process."""
        return int(json.loads((self.home / "server.json").read_text())["pid"])


def until(reached: Any, what: str) -> None:
    """Wait for it, so long as that is reasonable."""
    for _ in range(int(SECONDS_MAX / LOOK_S)):
        if reached():
            return
        time.sleep(LOOK_S)
    raise AssertionError(f"gave up waiting until {what}")


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists() or _zombie(pid), f"{pid} is gone")


def _zombie(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


class Asking(threading.Thread):
    """A client that asks one thing after another on one connection, until told to stop."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.port, self.path = port, f"/predict/{name}"
        self.stop = threading.Event()
        self.answers: list[tuple[int, Any]] = []
        self.lost: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS_MAX)
        body = json.dumps(ROW)
        while not self.stop.is_set():
            try:
                connection.request("POST", self.path, body)
                answer = connection.getresponse()
                self.answers.append((answer.status, json.loads(answer.read())))
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            self.stop.wait(LOOK_S / 4)
        connection.close()


@contextlib.contextmanager
def load(served: Served, name: str = "sum") -> Iterator[list[Asking]]:
    """Clients that ask meanwhile."""
    clients = [Asking(served.port, name) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join(SECONDS_MAX)


def statuses(clients: list[Asking]) -> set[int]:
    """Every status that was seen."""
    return {status for client in clients for status, _ in client.answers}


def lost(clients: list[Asking]) -> list[str]:
    """Requests without an answer."""
    return [words for client in clients for words in client.lost]


@contextlib.contextmanager
def serving(home: Path) -> Iterator[Served]:
    """A home with a control plane in the background; everything is ended at the end."""
    run = steer(home, "server", "--background")
    assert run.returncode == 0, run.stderr
    try:
        served = Served(home)
        served.up(FLEET)
        yield served
    finally:
        steer(home, "down", "--all")
        steer(home, "server", "--stop")
        _wait_gone(home)


def _wait_gone(home: Path) -> None:
    """Until no rank of the home lives: the gateway goes with the last service."""
    if not (home / "runs").exists():
        return
    started = list((home / "runs").glob("*/0/started.json"))
    for path in started:
        if not (path.parent / "exit.json").exists():
            steer(home, "server", "--background")
            until((path.parent / "exit.json").exists, f"{path.parent} has ended")
    steer(home, "server", "--stop")
