"""The loop of one thread: a gateway that does not read is dropped, and only so many may connect."""

import select
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from steersman.dataplane.replica import places, server, watchdog
from steersman.dataplane.replica.ending import NUMBERS, Ending
from steersman.dataplane.replica.model import Signature
from steersman.ports import replica_wire as wire


class Big:
    """Answers with more than a socket holds."""

    signature = Signature(kind="json", batch_size_max=1)

    def run(self, frame: wire.Frame) -> tuple[dict[str, Any], list[bytes | memoryview]]:
        assert frame.rows == 1
        return {}, [*[bytes(1)] * 100, bytes(8 * 2**20)]


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Connects to a server that runs in a thread, which has no alarm: that is the main thread's."""
    monkeypatch.setattr(watchdog, "arm", lambda _: None)
    monkeypatch.setattr(watchdog, "disarm", lambda: None)
    monkeypatch.setattr(server, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(server, "LINKS_MAX", 2)
    listener = places.listen(tmp_path)
    before = [signal.getsignal(number) for number in NUMBERS]
    ending = Ending()
    served = server.Server(Big(), wire.pack(wire.HELLO, 0, 0, {}), server.Limits(1, 60.0))
    thread = threading.Thread(target=served.serve, args=(listener, ending, listener.close))
    thread.start()
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        opened.append(made)
        made.settimeout(30)
        made.connect(str(tmp_path / "replica.sock"))
        return made

    yield connect
    signal.raise_signal(signal.SIGTERM)
    for link in opened:
        link.close()
    thread.join(30)
    signal.set_wakeup_fd(-1)
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)
    assert not thread.is_alive()


def test_who_does_not_read_is_dropped(connect: Any) -> None:
    link = connect()
    link.sendall(b"".join(wire.pack(wire.INFER, 1, 1, {}, b"")))
    got = 0
    gone = select.poll()
    gone.register(link, select.POLLRDHUP)
    assert gone.poll(30_000)  # it was hung up on, without having read a byte
    while data := link.recv(2**20):
        got += len(data)

    assert 0 < got < 8 * 2**20


def test_who_reads_gets_every_piece(connect: Any) -> None:
    link = connect()
    hello = link.recv(wire.HEADER_BYTES + 6)
    link.sendall(b"".join(wire.pack(wire.INFER, 1, 1, {}, b"")))
    with link.makefile("rb") as stream:
        head = stream.read(wire.HEADER_BYTES)
        body = stream.read(wire.HEADER.unpack(head)[0])

    assert wire.unpack(hello[:16], hello[16:]).kind == wire.HELLO
    assert len(wire.unpack(head, body).payload) == 100 + 8 * 2**20


def test_one_link_too_many_is_hung_up_on(connect: Any) -> None:
    first, second = connect(), connect()
    assert first.recv(1)
    assert second.recv(1)
    assert connect().recv(1) == b""
