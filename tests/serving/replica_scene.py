"""What tests of real replicas share: a process, a gateway's end of its socket, and small ONNX models."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
from onnx import TensorProto, helper

from steersman.dataplane.replica import replica_argv
from steersman.ports import replica_wire as wire
from steersman.ports import run_dir

WAIT_SECONDS = 60.0
OPSET = [helper.make_opsetid("", 17)]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Gateway:
    """One connection, as a gateway would hold it."""

    def __init__(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(WAIT_SECONDS)
        try:
            self.socket.connect(f"/proc/self/fd/{handle}/{run_dir.REPLICA_SOCKET}")
        except OSError:
            self.socket.close()
            raise
        finally:
            os.close(handle)
        self.hello = self.read().meta

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def read(self) -> wire.Frame:
        header = self._exactly(wire.HEADER_BYTES)
        return wire.unpack(header, self._exactly(wire.HEADER.unpack(header)[0]))

    def send(self, kind: int, batch: int, rows: int, meta: dict[str, Any], *payload: bytes) -> None:
        self.socket.sendall(b"".join(wire.pack(kind, batch, rows, meta, *payload)))

    def ask(self, batch: int, *rows: Any) -> None:
        """An INFER of JSON rows."""
        texts = [json.dumps(row).encode() for row in rows]
        self.send(wire.INFER, batch, len(rows), {"lengths": list(map(len, texts))}, *texts)

    def ask_tensors(self, batch: int, **inputs: np.ndarray[Any, Any]) -> None:
        """An INFER of tensors, in HELLO's order."""
        names = [tensor["name"] for tensor in self.hello["inputs"]]
        shapes = {name: list(inputs[name].shape[1:]) for name in names}
        rows = len(inputs[names[0]])
        self.send(wire.INFER, batch, rows, {"shapes": shapes}, *(inputs[name].tobytes() for name in names))

    def answers(self, *rows: Any) -> list[Any]:
        """What becomes of JSON rows: each one's value."""
        self.ask(1, *rows)
        return values(self.read())


def values(frame: wire.Frame) -> list[Any]:
    """The rows of a RESULT of JSON."""
    assert frame.kind == wire.RESULT, frame.meta
    found, place = [], 0
    for length in frame.meta["lengths"]:
        found.append(json.loads(bytes(frame.payload[place : place + length])))
        place += length
    return found


def command() -> Sequence[str]:
    """The replica's command; when coverage is measured, which does not see a file that is run, its import."""
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        return replica_argv(sys.executable)
    return (
        sys.executable,
        "-c",
        "import sys; from steersman.dataplane.replica import main; sys.exit(main.main())",
    )


class Replica:
    """A replica's process, in a folder of its own."""

    def __init__(self, base: Path, asked: Mapping[str, Any], **more: str) -> None:
        self.folder = base / "run"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bell.settimeout(WAIT_SECONDS)
        handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        self.bell.bind(f"/proc/self/fd/{handle}/doorbell")
        os.close(handle)
        env = {name: value for name, value in os.environ.items() if not name.startswith("STEERSMAN_")}
        env |= {
            run_dir.ENV_RUN_DIR: str(self.folder),
            run_dir.ENV_RUN_ID: "svc.7",
            run_dir.ENV_DOORBELL: str(base / "doorbell"),
            run_dir.ENV_CPU_MILLI: "1000",
            run_dir.ENV_REPLICA: json.dumps({"service": "svc", "revision": 3, **asked}),
            **more,
        }
        with (base / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(
                command(),
                cwd=base,
                env=env,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._base = base

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()  # without gateways it drains at once, and leaves its coverage behind
        try:
            self.process.communicate(timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.bell.close()

    def ready(self) -> Self:
        """Wait until it rings."""
        try:
            self.bell.recv(16)
        except TimeoutError as error:
            raise AssertionError(self.stderr()) from error
        return self

    def gateway(self) -> Gateway:
        return Gateway(self.folder)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, stdout, stderr. Raises AssertionError, with where it is stuck."""
        try:
            out, _ = self.process.communicate(timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            ended = self.process.poll()
            self.process.send_signal(signal.SIGALRM)  # faulthandler writes where it is, and it dies
            self.process.wait(WAIT_SECONDS)
            raise AssertionError(f"no end; before SIGALRM {ended}: {self.stderr()}") from error
        return self.process.returncode, out, self.stderr()

    def stderr(self) -> str:
        return (self._base / "stderr").read_text(errors="replace")


def callable_replica(base: Path, source: str, target: str = "model:predict", **asked: Any) -> Replica:
    """A replica of a Python object."""
    base.mkdir(parents=True, exist_ok=True)
    (base / "model.py").write_text(source)
    settings = {"kind": "callable", "target": target, "batch_size_max": 8, "batch_timeout_ms": 30_000}
    return Replica(base, {**settings, **asked})


def onnx_replica(base: Path, model: onnx.ModelProto | bytes | Path, **asked: Any) -> Replica:
    """A replica of an ONNX file."""
    base.mkdir(parents=True, exist_ok=True)
    path = base / "model.onnx"
    if isinstance(model, Path):
        path = model
    else:
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    settings = {"kind": "onnx", "batch_size_max": 16, "batch_timeout_ms": 30_000}
    return Replica(base, {**settings, **asked}, STEERSMAN_INPUT_MODEL=str(path))


Info = tuple[str, int, Sequence[int | str | None] | None]


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Info],
    outputs: Sequence[Info],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """A model of a few nodes."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*info) for info in inputs],
        [helper.make_tensor_value_info(*info) for info in outputs],
        list(weights),
    )
    return helper.make_model(graph, opset_imports=OPSET, ir_version=8)


def weights(name: str, array: np.ndarray[Any, Any]) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array, name)


def logistic(features: int = 64, classes: int = 10) -> tuple[onnx.ModelProto, Callable[[Any], Any]]:
    """Softmax of an affine map, and the same in numpy."""
    chance = np.random.default_rng(7)
    matrix = chance.normal(size=(features, classes)).astype("f4")
    model = graph_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Softmax", ["m"], ["p"], axis=1),
            helper.make_node("ArgMax", ["m"], ["label"], axis=1, keepdims=0),
        ],
        [("x", FLOAT, ["n", features])],
        [("label", INT64, ["n"]), ("p", FLOAT, ["n", classes])],
        [weights("w", matrix)],
    )

    def expected(x: Any) -> Any:
        scores = np.exp(x @ matrix - (x @ matrix).max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    return model, expected
