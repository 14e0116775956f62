"""Replicas as they live: real processes, real sockets, real models; what they answer."""

import json
import signal
import stat
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tests.serving.replica_scene import (
    FLOAT,
    INT64,
    callable_replica,
    graph_model,
    logistic,
    onnx_replica,
    values,
    weights,
)

from steersman.ports import replica_wire as wire
from steersman.ports import run_dir

ECHO = "def predict(row):\n    return row\n"


def test_an_onnx_model_is_served(tmp_path: Path) -> None:
    model, expected = logistic()
    deep = tmp_path / ("d" * 160)  # longer than a socket's address can be
    with onnx_replica(deep, model).ready() as replica, replica.gateway() as gateway:
        mode = (replica.folder / run_dir.REPLICA_SOCKET).stat().st_mode
        ready = json.loads((replica.folder / run_dir.READY).read_text())
        x = np.random.default_rng(1).normal(size=(5, 64)).astype("f4")
        gateway.ask_tensors(42, x=x)
        answer = gateway.read()
        hello = gateway.hello
        replica.terminate()
        assert gateway.read().kind == wire.DRAIN
        gateway.send(wire.DRAINED, 0, 0, {})
        code, out, err = replica.end()

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert sorted(ready) == ["at_ms", "load_ms"]
    assert (hello["run"], hello["service"], hello["revision"]) == ("svc.7", "svc", 3)
    assert (hello["kind"], hello["stream"], hello["batch_size_max"], hello["batches_max"]) == (
        "tensor",
        False,
        16,
        2,
    )
    assert hello["inputs"] == [{"name": "x", "dtype": "FP32", "shape": [64]}]
    assert hello["outputs"] == [
        {"name": "label", "dtype": "INT64", "shape": []},
        {"name": "p", "dtype": "FP32", "shape": [10]},
    ]
    assert hello["signature"].startswith("sha256:")
    assert (answer.kind, answer.batch, answer.rows) == (wire.RESULT, 42, 5)
    assert answer.meta["shapes"] == {"label": [], "p": [10]}
    assert "invalid" not in answer.meta
    assert {"run_us", "cpu_us"} <= set(answer.meta)
    label = np.frombuffer(answer.payload, "<i8", 5)
    p = np.frombuffer(answer.payload, "<f4", 50, 40).reshape(5, 10)
    np.testing.assert_allclose(p, expected(x), rtol=1e-4)
    assert (label == p.argmax(axis=1)).all()
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()] == [
        "loading",
        "loaded",
        "ready",
        "draining:",
        "drained:",
    ]
    assert "sha256:" in out


def test_a_row_that_the_model_refuses_fails_alone(tmp_path: Path) -> None:
    """Gather fails for the whole batch when one index is out of range."""
    table = np.arange(8, dtype="f4").reshape(4, 2)
    model = graph_model(
        [helper.make_node("Gather", ["w", "i"], ["g"]), helper.make_node("Log", ["g"], ["y"])],
        [("i", INT64, ["n"])],
        [("y", FLOAT, ["n", 2])],
        [weights("w", table)],
    )
    with onnx_replica(tmp_path, model).ready() as replica, replica.gateway() as gateway:
        gateway.ask_tensors(1, i=np.array([1, 9, 0, 3], dtype="i8"))
        answer = gateway.read()
        gateway.ask_tensors(2, i=np.array([9], dtype="i8"))
        alone = gateway.read()

    assert answer.kind == wire.RESULT
    assert list(answer.meta["errors"]) == ["1"]
    assert answer.meta["invalid"] == [2]  # the logarithm of 0
    y = np.frombuffer(answer.payload, "<f4").reshape(4, 2)
    np.testing.assert_allclose(y[[0, 3]], np.log(table[[1, 3]]), rtol=1e-6)
    assert (alone.kind, alone.meta["code"]) == (wire.ERROR, "model-error")
    assert "/" not in alone.meta["error"]


def test_a_model_of_one_row_takes_batches_of_one(tmp_path: Path) -> None:
    model = graph_model(
        [helper.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, [1, 2])], [("y", FLOAT, [1, 2])]
    )
    with onnx_replica(tmp_path, model).ready() as replica, replica.gateway() as gateway:
        gateway.ask_tensors(1, x=np.ones((2, 2), "f4"))
        refused = gateway.read()
        gateway.ask_tensors(2, x=np.ones((1, 2), "f4"))
        answer = gateway.read()
        hello = gateway.hello

    assert hello["batch_size_max"] == 1
    assert (refused.kind, refused.meta["code"]) == (wire.ERROR, "bad-frame")
    assert bytes(answer.payload) == np.full((1, 2), -1, "f4").tobytes()


def test_a_graph_that_never_ends_is_ended(tmp_path: Path) -> None:
    """The loop runs as often as the input says: not at all while it is warmed."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("k", INT64, []),
            helper.make_tensor_value_info("c", 9, []),
            helper.make_tensor_value_info("v", INT64, ["n"]),
        ],
        [helper.make_tensor_value_info("c2", 9, []), helper.make_tensor_value_info("v2", INT64, ["n"])],
    )
    model = graph_model(
        [
            helper.make_node("ReduceMax", ["x"], ["trips"], keepdims=0),
            helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body),
        ],
        [("x", INT64, ["n"])],
        [("y", INT64, ["n"])],
    )
    with onnx_replica(tmp_path, model, batch_timeout_ms=300).ready() as replica, replica.gateway() as gateway:
        gateway.ask_tensors(1, x=np.array([2], "i8"))
        assert np.frombuffer(gateway.read().payload, "<i8").tolist() == [8]
        gateway.ask_tensors(2, x=np.array([2**62], "i8"))
        code, out, err = replica.end()
        with pytest.raises(EOFError):
            gateway.read()

    assert code == -signal.SIGALRM
    assert "onnx_model.py" in err  # where it was stuck
    assert "signal 14" in out


@pytest.mark.parametrize(
    ("source", "rows", "expected"),
    [
        (ECHO, [1, {"a": [2.5, None]}, "ä"], [1, {"a": [2.5, None]}, "ä"]),
        (
            "def predict(rows):\n    return [len(rows)] * len(rows)\npredict.batched = True",
            [1, 2, 3],
            [3, 3, 3],
        ),
        ("async def predict(row):\n    return row + 1", [1], [2]),
        (
            "class predict:\n    def load(self): self.b = 5\n    def predict(self, x): return x + self.b",
            [1, 2],
            [6, 7],
        ),
        (
            "class predict:\n    batched = True\n    async def __call__(self, xs): return xs[::-1]",
            [1, 2],
            [2, 1],
        ),
    ],
    ids=["function", "batched", "coroutine", "class", "async-batched-class"],
)
def test_forms_of_callables(tmp_path: Path, source: str, rows: list[object], expected: list[object]) -> None:
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        assert gateway.hello["kind"] == "json"
        assert gateway.answers(*rows) == expected
        replica.terminate()
        assert gateway.read().kind == wire.DRAIN
        gateway.send(wire.DRAINED, 0, 0, {})
        assert replica.end()[0] == 0


def test_rows_of_a_callable_fail_alone(tmp_path: Path) -> None:
    source = """
import sys
class Odd(ValueError): pass
def predict(row):
    if row == "fault": raise KeyError("/secret/path")
    if row == "told": raise Odd("too long:\\n 7")
    if row == "exit": sys.exit(3)
    if row == "nan": return [float("nan")]
    if row == "stop": raise StopIteration
    return {"object": object(), "nothing": None, "loop": LOOP}.get(row, row)
LOOP = []
LOOP.append(LOOP)
"""
    rows = ["fine", "fault", "told", "exit", "nan", "object", "nothing", "loop"]
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        gateway.ask(1, *rows)
        answer = gateway.read()
        assert gateway.answers("stop", "after") == [None, "after"]
        log = replica.stderr()

    assert values(answer) == ["fine", *[None] * 7]
    assert answer.meta["invalid"] == [4]
    errors = answer.meta["errors"]
    assert errors["1"] == "the model raised KeyError"
    assert errors["2"] == "Odd: too long: 7"
    assert errors["3"] == "the model raised SystemExit"
    assert "object that is not JSON" in errors["5"]
    assert errors["6"] == "the model returned nothing"
    assert set(errors) == {"1", "2", "3", "5", "6", "7"}
    assert "/secret/path" in log
    assert "an answer cannot be sent: it holds NaN or infinity" in log
    assert "an answer cannot be sent: the model returned nothing" in log
    assert "/secret/path" not in json.dumps(answer.meta)


@pytest.mark.parametrize(
    ("body", "code"),
    [("return rows[1:]", "wrong-shape"), ("return 5", "wrong-shape"), ("return {}['x']", "model-error")],
)
def test_a_batch_of_a_batched_callable_fails_whole(tmp_path: Path, body: str, code: str) -> None:
    source = f"def predict(rows):\n    {body}\npredict.batched = True\n"
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        gateway.ask(5, 1, 2)
        answer = gateway.read()

    assert (answer.kind, answer.batch, answer.meta["code"]) == (wire.ERROR, 5, code)


HANGS = {
    "spins": "def predict(row):\n    while True: pass",
    "blocks-the-loop": "import time\nasync def predict(row):\n    time.sleep(600)",
    "blocks-in-a-stream": "import time\ndef predict(row):\n    yield 1\n    time.sleep(600)",
    "ignores-its-cancel": """
import asyncio
async def predict(row):
    while True:
        try: await asyncio.sleep(600)
        except BaseException: pass
""",
    "ignores-the-signal": """
import signal, time
signal.signal(signal.SIGALRM, signal.SIG_IGN)
def predict(row): time.sleep(600)
""",
}


@pytest.mark.parametrize("source", HANGS.values(), ids=HANGS)
def test_a_callable_that_hangs_is_ended(tmp_path: Path, source: str) -> None:
    replica = callable_replica(tmp_path, source, batch_timeout_ms=250)
    with replica.ready(), replica.gateway() as gateway:
        gateway.ask(1, 0)
        code, _, err = replica.end()

    assert code == -signal.SIGALRM
    assert "most recent call first" in err


def test_a_model_that_hangs_at_load_is_ended(tmp_path: Path) -> None:
    with callable_replica(tmp_path, "import time\ntime.sleep(600)", load_timeout_ms=700) as replica:
        assert replica.end()[0] == -signal.SIGALRM


def test_a_coroutine_that_takes_too_long_fails_alone(tmp_path: Path) -> None:
    source = "import asyncio\nasync def predict(row):\n    await asyncio.sleep(row)\n    return row"
    replica = callable_replica(tmp_path, source, batch_timeout_ms=300)
    with replica.ready(), replica.gateway() as gateway:
        gateway.ask(1, 600)
        gateway.ask(2, 0)
        first, second = gateway.read(), gateway.read()

    assert (first.batch, values(first)) == (2, [0])
    assert (second.kind, second.batch, second.meta["error"]) == (wire.ERROR, 1, "it took longer than 300 ms")


def test_coroutines_run_together(tmp_path: Path) -> None:
    """Nobody is answered before all 64 have begun."""
    source = """
import asyncio
COUNT, OPEN = [], None
async def predict(row):
    global OPEN
    OPEN = OPEN or asyncio.Event()
    COUNT.append(row)
    if len(COUNT) == 64: OPEN.set()
    await OPEN.wait()
    return row
"""
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        assert (gateway.hello["batches_max"], gateway.hello["batch_size_max"]) == (64, 1)
        for batch in range(64):
            gateway.ask(batch, batch)
        answers = {frame.batch: values(frame) for frame in (gateway.read() for _ in range(64))}

    assert answers == {batch: [batch] for batch in range(64)}


STREAMS = {
    "generator": """
def predict(row):
    try:
        for number in range(row): yield {"n": number}
    finally: open("closed", "a").write("x")
""",
    "async-generator": """
import asyncio
async def predict(row):
    try:
        for number in range(row):
            await asyncio.sleep(0)
            yield {"n": number}
    finally: open("closed", "a").write("x")
""",
}


@pytest.mark.parametrize("form", STREAMS)
def test_a_stream_comes_in_parts_and_can_be_cancelled(tmp_path: Path, form: str) -> None:
    with callable_replica(tmp_path, STREAMS[form]).ready() as replica, replica.gateway() as gateway:
        assert gateway.hello["stream"] is True
        gateway.ask(1, 3)
        parts = [gateway.read() for _ in range(4)]
        gateway.ask(2, 10**12)
        gateway.ask(3, 2)  # streams take turns: the endless one does not hold this one up
        others: list[wire.Frame] = []
        while len(others) < 3:
            frame = gateway.read()
            others += [frame] if frame.batch == 3 else []
        gateway.send(wire.CANCEL, 2, 0, {})
        frame = gateway.read()
        while not frame.meta["last"]:
            frame = gateway.read()
        replica.terminate()
        assert gateway.read().kind == wire.DRAIN
        gateway.send(wire.DRAINED, 0, 0, {})
        code, _, err = replica.end()

    assert [json.loads(bytes(part.payload)) for part in parts[:3]] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [part.meta["last"] for part in parts] == [False, False, False, True]
    assert {"run_us", "cpu_us"} <= set(parts[3].meta)
    assert [part.meta["last"] for part in others] == [False, False, True]
    assert (frame.batch, frame.meta["error"]) == (2, "cancelled")
    assert (tmp_path / "closed").read_text() == "xxx"
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def predict(row):\n    yield 1\n    raise ValueError('too hot')", "ValueError: too hot"),
        ("async def predict(row):\n    yield 1\n    yield float('inf')", "the model gave NaN or infinity"),
        ("def predict(row):\n    yield 1\n    yield None", "the model returned nothing"),
    ],
)
def test_a_stream_that_fails_says_so_in_its_last_part(tmp_path: Path, source: str, text: str) -> None:
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        gateway.ask(1, 0)
        first, last = gateway.read(), gateway.read()

    assert (first.kind, first.meta["last"]) == (wire.PART, False)
    assert (last.kind, last.meta["last"], last.meta["error"]) == (wire.PART, True, text)
