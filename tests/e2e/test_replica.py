"""Replicas as they live: real processes, real sockets, real models; what they answer and how they end."""

import json
import os
import resource
import signal
import stat
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.e2e.replica_scene import (
    FLOAT,
    INT64,
    Gateway,
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


@pytest.mark.parametrize("source", [ECHO, "async " + ECHO], ids=["sync", "async"])
def test_told_to_end_amid_200_batches_it_loses_none(tmp_path: Path, source: str) -> None:
    """Both gateways keep their credits used, also between the signal and their DRAINED."""
    with callable_replica(tmp_path, source).ready() as replica:
        seen: dict[int, tuple[list[int], list[int]]] = {}
        going = threading.Event()

        def drive(number: int) -> None:
            sent: list[int] = []
            answered: list[int] = []
            seen[number] = sent, answered
            with replica.gateway() as gateway:
                credit, drained = gateway.hello["batches_max"], False
                while not (drained and len(answered) == len(sent)):
                    while not drained and len(sent) - len(answered) < min(credit, 4):
                        sent.append(len(sent))
                        gateway.ask(sent[-1], sent[-1])
                    frame = gateway.read()
                    if frame.kind == wire.DRAIN:
                        gateway.send(wire.DRAINED, 0, 0, {})
                        drained = True
                    else:
                        answered += values(frame)
                    if len(answered) == 100:
                        going.set()
                with pytest.raises((EOFError, ConnectionError)):
                    gateway.read()

        drivers = [threading.Thread(target=drive, args=(number,)) for number in range(2)]
        for driver in drivers:
            driver.start()
        assert going.wait(60)
        replica.terminate()
        for driver in drivers:
            driver.join(60)
        code, _, err = replica.end()
        socket_left = (replica.folder / run_dir.REPLICA_SOCKET).exists()

    assert (code, err) == (0, "")
    assert not socket_left
    assert sum(len(sent) for sent, _ in seen.values()) >= 101
    for sent, answered in seen.values():
        assert sorted(answered) == sent


def test_without_gateways_it_ends_at_once(tmp_path: Path) -> None:
    for number, source in enumerate((ECHO, "async " + ECHO)):
        with callable_replica(tmp_path / str(number), source).ready() as replica:
            replica.terminate()
            assert replica.end()[0] == 0


def test_no_gateway_waits_for_another_s_second_batch(tmp_path: Path) -> None:
    """While the first batch runs, one gateway queues nine more and another comes with one."""
    os.mkfifo(tmp_path / "gate")
    source = """
ORDER = []
def predict(row):
    row or open("gate").read()
    ORDER.append(row)
    return len(ORDER)
"""
    with (
        callable_replica(tmp_path, source).ready() as replica,
        replica.gateway() as greedy,
        replica.gateway() as modest,
    ):
        for batch in range(10):
            greedy.ask(batch, batch)
        with (tmp_path / "gate").open("w"):  # open() returns when the model has begun to wait
            modest.ask(0, 100)
        place = values(modest.read())[0]
        places = [values(greedy.read())[0] for _ in range(10)]

    assert place <= 3
    assert sorted([*places, place]) == list(range(1, 12))


def test_killed_it_is_gone(tmp_path: Path) -> None:
    with callable_replica(tmp_path, ECHO).ready() as replica, replica.gateway() as gateway:
        replica.process.kill()
        with pytest.raises((EOFError, ConnectionError)):
            gateway.read()
        assert replica.end()[0] == -signal.SIGKILL
        with pytest.raises(ConnectionRefusedError):
            Gateway(replica.folder)


def _head(length: int, kind: int = wire.INFER, meta_length: int = 2) -> bytes:
    return wire.HEADER.pack(length, kind, 0, 1, 9) + struct.pack("<I", meta_length)


@pytest.mark.parametrize("source", [ECHO, "async " + ECHO], ids=["sync", "async"])
@pytest.mark.parametrize(
    "data",
    [
        _head(2**32 - 1),
        wire.HEADER.pack(0, wire.INFER, 0, 1, 9),
        _head(6, meta_length=2**31) + b"{}",
        _head(6) + b"[]",
        _head(6) + b"{x",
        _head(4 + 100_000, meta_length=100_000) + b"[" * 100_000,
        _head(6, kind=wire.RESULT) + b"{}",
        _head(6, kind=200) + b"{}",
    ],
    ids=["huge", "no-meta", "meta-too-long", "no-object", "no-json", "deep", "wrong-kind", "unknown-kind"],
)
def test_what_is_no_frame_ends_its_link_and_no_other(tmp_path: Path, source: str, data: bytes) -> None:
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as good:
        with replica.gateway() as bad:
            bad.socket.sendall(data)
            answer = bad.read()
            with pytest.raises((EOFError, ConnectionError)):
                bad.read()
        assert good.answers(7) == [7]

    assert (answer.kind, answer.meta["code"]) == (wire.ERROR, "bad-frame")


@pytest.mark.parametrize("source", [ECHO, "async " + ECHO], ids=["sync", "async"])
def test_a_batch_that_does_not_fit_is_refused_and_its_link_goes_on(tmp_path: Path, source: str) -> None:
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        wrong: list[tuple[int, dict[str, Any], bytes]] = [
            (1, {}, b"1"),
            (1, {"lengths": [2]}, b"1"),
            (1, {"lengths": [1]}, b"12"),
            (1, {"lengths": [-1]}, b""),
            (1, {"lengths": [True]}, b"1"),
            (1, {"lengths": [1]}, b"{"),
            (0, {"lengths": []}, b""),
            (9, {"lengths": [1] * 9}, b"1" * 9),
        ]
        for batch, (rows, meta, payload) in enumerate(wrong):
            gateway.send(wire.INFER, batch, rows, meta, payload)
            answer = gateway.read()
            assert (answer.kind, answer.batch, answer.meta["code"]) == (wire.ERROR, batch, "bad-frame")
        assert gateway.answers(7) == [7]


def test_tensors_that_do_not_fit_are_refused_and_the_link_goes_on(tmp_path: Path) -> None:
    model, _ = logistic(4, 3)
    with onnx_replica(tmp_path, model).ready() as replica, replica.gateway() as gateway:
        row = bytes(16)
        wrong: list[tuple[dict[str, Any], bytes]] = [
            ({}, row),
            ({"shapes": {}}, row),
            ({"shapes": {"x": [5]}}, bytes(20)),
            ({"shapes": {"x": [4, 1]}}, row),
            ({"shapes": {"x": [True]}}, row),
            ({"shapes": {"x": ["4"]}}, row),
            ({"shapes": {"x": [4]}}, row[:-1]),
            ({"shapes": {"x": [4]}}, row + b"x"),
        ]
        for batch, (meta, payload) in enumerate(wrong):
            gateway.send(wire.INFER, batch, 1, meta, payload)
            answer = gateway.read()
            assert (answer.kind, answer.batch, answer.meta["code"]) == (wire.ERROR, batch, "bad-frame")
        gateway.ask_tensors(9, x=np.ones((16, 4), "f4"))
        assert gateway.read().kind == wire.RESULT


@pytest.mark.parametrize("source", [ECHO, "async " + ECHO], ids=["sync", "async"])
def test_answers_larger_than_the_socket_holds_arrive_whole(tmp_path: Path, source: str) -> None:
    text = "x" * 3_000_000
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as slow:
        slow.ask(1, text)
        slow.ask(2, "second")
        with replica.gateway() as quick:  # not held up by one who does not read
            assert quick.answers(7) == [7]
        assert {frame.batch: values(frame) for frame in (slow.read(), slow.read())} == {
            1: [text],
            2: ["second"],
        }
        assert slow.answers("small") == ["small"]


def test_a_batch_that_wants_more_memory_than_there_is_fails_alone(tmp_path: Path) -> None:
    """Here the address space is the limit; under a shim it is the control group, which ends the process."""
    model = graph_model(
        [
            helper.make_node("ReduceMax", ["x"], ["m"], axes=[0], keepdims=0),
            helper.make_node("ConstantOfShape", ["m"], ["big"]),
            helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=1),
            helper.make_node("Cast", ["x"], ["f"], to=FLOAT),
            helper.make_node("Add", ["f", "sum"], ["y"]),
        ],
        [("x", INT64, ["n", 1])],
        [("y", FLOAT, ["n", 1])],
    )
    with onnx_replica(tmp_path, model).ready() as replica, replica.gateway() as gateway:
        resource.prlimit(replica.process.pid, resource.RLIMIT_AS, (2**33, 2**33))
        gateway.ask_tensors(1, x=np.array([[2**44]], "i8"))
        answer = gateway.read()
        gateway.ask_tensors(2, x=np.array([[3]], "i8"))
        after = gateway.read()

    assert (answer.kind, answer.meta["code"]) == (wire.ERROR, "model-error")
    assert np.frombuffer(after.payload, "f4").tolist() == [3.0]


def test_a_batch_number_in_use_ends_the_link(tmp_path: Path) -> None:
    source = "import asyncio\nasync def predict(row):\n    await asyncio.sleep(row)"
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        gateway.ask(1, 600)
        gateway.ask(1, 600)
        refused = gateway.read()
        with pytest.raises((EOFError, ConnectionError)):
            gateway.read()

    assert (refused.kind, refused.meta["code"]) == (wire.ERROR, "bad-frame")


def test_the_tasks_of_a_gateway_that_is_gone_are_cancelled(tmp_path: Path) -> None:
    source = """
import asyncio
async def predict(row):
    if row: return "alive"
    try: await asyncio.sleep(600)
    finally: open("ended", "w").write("x")
"""
    os.mkfifo(tmp_path / "ended")
    with callable_replica(tmp_path, source).ready() as replica:
        with replica.gateway() as gateway:
            gateway.ask(1, 0)
            gateway.ask(2, 1)
            assert values(gateway.read()) == ["alive"]
        assert (tmp_path / "ended").read_text() == "x"  # a FIFO: waits for the task's end


def test_a_coroutine_that_cancels_itself_is_an_error(tmp_path: Path) -> None:
    source = "import asyncio\nasync def predict(row):\n    raise asyncio.CancelledError"
    with callable_replica(tmp_path, source).ready() as replica, replica.gateway() as gateway:
        gateway.ask(1, 0)
        answer = gateway.read()

    assert (answer.kind, answer.meta["error"]) == (wire.ERROR, "the model raised CancelledError")
