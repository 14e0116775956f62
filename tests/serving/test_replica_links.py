"""Replicas and the gateways that talk to them: how they end, and what a link bears."""

import os
import resource
import signal
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from tests.serving.replica_scene import (
    FLOAT,
    INT64,
    Gateway,
    callable_replica,
    graph_model,
    logistic,
    onnx_replica,
    values,
)

from steersman.ports import replica_wire as wire
from steersman.ports import run_dir

ECHO = "def predict(row):\n    return row\n"


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


@pytest.mark.parametrize("source", [ECHO, "async " + ECHO], ids=["sync", "async"])
def test_a_signal_that_interrupts_no_wait_is_heard(tmp_path: Path, source: str) -> None:
    """It goes to another thread, as one does that comes just before the wait: nothing wakes the main one."""
    aside = """
import signal, threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
"""
    with callable_replica(tmp_path, aside + source).ready() as replica:
        replica.terminate()
        assert replica.end()[0] == 0


@pytest.mark.parametrize("source", [ECHO, "async " + ECHO], ids=["sync", "async"])
def test_a_signal_of_the_model_s_own_ends_nothing(tmp_path: Path, source: str) -> None:
    own = """
import signal
signal.signal(signal.SIGUSR1, lambda *_: None)
"""
    with callable_replica(tmp_path, own + source).ready() as replica:
        with replica.gateway() as gateway:
            replica.process.send_signal(signal.SIGUSR1)
            assert gateway.answers(5) == [5]
        replica.terminate()
        _, out, _ = replica.end()
    assert "drained: 1 batches" in out


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
