"""Notices and intervals found in a run's folder, in virtual time, and real signals."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import steersman_trainer
from steersman_trainer.orders import Orders


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def sigterm_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def order_stop(folder: Path, cause: str = "preempted") -> None:
    (folder / "stop.json").write_text(json.dumps({"cause": cause, "grace_ms": 1000, "epoch": 1}))


def order_interval(folder: Path, interval_ms: object, epoch: object = 1) -> None:
    temporary = folder / "new"
    temporary.write_text(json.dumps({"interval_ms": interval_ms, "epoch": epoch}))
    temporary.replace(folder / "interval.json")


def make(folder: Path | None) -> tuple[Orders, Time]:
    clock = Time()
    return Orders(folder, interval_ms=5000, monotonic=clock), clock


def test_a_notice_that_is_there_already_is_seen_at_once(tmp_path: Path) -> None:
    order_stop(tmp_path)
    assert make(tmp_path)[0].notice == "preempted"


def test_a_notice_is_seen_within_200_ms_and_stays(tmp_path: Path) -> None:
    orders, clock = make(tmp_path)
    assert orders.notice is None
    order_stop(tmp_path)
    clock.now += 0.199
    assert orders.notice is None
    clock.now += 0.002
    assert orders.notice == "preempted"
    (tmp_path / "stop.json").unlink()
    clock.now += 10
    assert orders.notice == "preempted"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"cause": 5}', b'{"cause": ""}', b"[" * 60_000, b"\xff"]
)
def test_a_notice_that_cannot_be_read_is_a_notice(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stop.json").write_bytes(content)
    assert make(tmp_path)[0].notice == "unknown"


def test_an_interval_is_changed_while_the_run_goes_on(tmp_path: Path) -> None:
    orders, clock = make(tmp_path)
    orders.look()
    assert orders.interval_ms == 5000
    order_interval(tmp_path, 700)
    clock.now += 0.1
    orders.look()
    assert orders.interval_ms == 5000
    clock.now += 0.15
    orders.look()
    assert orders.interval_ms == 700


def test_an_order_of_an_earlier_control_plane_is_refused(tmp_path: Path) -> None:
    orders, clock = make(tmp_path)
    for interval_ms, epoch, wanted in [(700, 3, 700), (900, 2, 700), (800, 3, 800), (600, 4, 600)]:
        order_interval(tmp_path, interval_ms, epoch)
        clock.now += 1
        orders.look()
        assert orders.interval_ms == wanted


@pytest.mark.parametrize(
    ("interval_ms", "epoch"), [(-1, 1), ("5", 1), (True, 1), (1.5, 1), (None, 1), (10**13, 1), (5, None)]
)
def test_a_malformed_interval_changes_nothing(tmp_path: Path, interval_ms: object, epoch: object) -> None:
    orders, _ = make(tmp_path)
    order_interval(tmp_path, interval_ms, epoch)
    orders.look()
    assert orders.interval_ms == 5000


def test_an_unchanged_interval_is_not_read_again(tmp_path: Path) -> None:
    orders, clock = make(tmp_path)
    order_interval(tmp_path, 700)
    orders.look()
    orders.interval_ms = 1
    clock.now += 1
    orders.look()
    assert orders.interval_ms == 1


def test_without_a_run_folder_there_are_no_orders() -> None:
    before = signal.getsignal(signal.SIGTERM)
    orders, _ = make(None)
    orders.listen()
    assert signal.getsignal(signal.SIGTERM) is before
    assert orders.notice is None
    orders.unlisten()


def test_sigterm_is_a_notice_seen_without_delay(tmp_path: Path) -> None:
    orders, _ = make(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    orders.listen()
    assert orders.notice is None
    os.kill(os.getpid(), signal.SIGTERM)
    assert orders.notice == "sigterm"
    orders.unlisten()
    assert signal.getsignal(signal.SIGTERM) is before
    orders.unlisten()


def test_sigterm_brings_the_cause_from_the_file(tmp_path: Path) -> None:
    orders, _ = make(tmp_path)
    orders.listen()
    assert orders.notice is None
    order_stop(tmp_path, "stop-requested")
    os.kill(os.getpid(), signal.SIGTERM)
    assert orders.notice == "stop-requested"
    orders.unlisten()


def test_another_thread_than_the_main_one_leaves_signals_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    orders, _ = make(tmp_path)
    thread = threading.Thread(target=orders.listen)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_from_outside_python_becomes_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders, _ = make(tmp_path)
    real = signal.signal
    # The interpreter answers None for a handler that was not set from Python.
    monkeypatch.setattr(signal, "signal", lambda number, handler: [real(number, handler), None][1])
    orders.listen()
    orders.unlisten()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


FORKING = """
import os, signal, sys, time
from pathlib import Path
from steersman_trainer.orders import Orders
orders = Orders(Path(sys.argv[1]), interval_ms=1, monotonic=time.monotonic)
orders.listen()
ready, tell = os.pipe()
child = os.fork()
if child == 0:
    os.write(tell, b"x")
    time.sleep(60)
    os._exit(1)
os.read(ready, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), orders.notice)
"""


def test_a_forked_worker_still_dies_of_sigterm(tmp_path: Path) -> None:
    source = str(Path(steersman_trainer.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"{-signal.SIGTERM} None\n", done.stderr
