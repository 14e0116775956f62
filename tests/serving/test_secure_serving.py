"""Replicas on a network, as the gateway meets them: served like local ones, and strangers never."""

import concurrent.futures
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.gateway_scene import wait_for
from tests.serving.replica_scene import callable_replica
from tests.serving.secure_scene import (
    ECHO,
    HOME_ID,
    HOST,
    SLOW,
    WHO,
    address,
    authority,
    replica_at,
    served,
    server_context,
    server_context_of,
)

from steersman.ports import peers
from steersman.ports import replica_wire as wire
from steersman.ports.gateway import ReplicaTarget
from steersman.ports.run_dir import REPLICA_SOCKET

CLIENTS = 16


def _at(run: str, where: str) -> ReplicaTarget:
    return ReplicaTarget(run=run, address=where)


@pytest.mark.parametrize("source", [ECHO, "async " + ECHO], ids=["sync", "async"])
def test_a_replica_on_the_network_is_served_and_batched(tmp_path: Path, source: str) -> None:
    made = authority(tmp_path / "home")
    made.keep_gateway()
    large = {"text": "x" * 700_000}
    with (
        replica_at(tmp_path / "r", made, "svc.1", source).ready() as replica,
        served(tmp_path / "home") as gw,
    ):
        gw.configure(_at("svc.1", address(replica)))
        wait_for(lambda: gw.ready() == 1)
        assert not (replica.folder / REPLICA_SOCKET).exists()
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            replies = list(pool.map(gw.ask, range(100)))
        assert [reply.json for reply in replies] == list(range(100))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert all(reply.json == large for reply in pool.map(gw.ask, [large] * 12))
        replica.terminate()
        code, _, err = replica.end()
        assert (code, err) == (0, "")


def test_requests_share_batches(tmp_path: Path) -> None:
    made = authority(tmp_path / "home")
    made.keep_gateway()
    with replica_at(tmp_path / "r", made, "svc.1", SLOW).ready() as replica, served(tmp_path / "home") as gw:
        gw.configure(_at("svc.1", address(replica)))
        wait_for(lambda: gw.ready() == 1)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            replies = list(pool.map(gw.ask, range(CLIENTS)))
        assert max(reply.json[1] for reply in replies) > 1


def test_a_killed_replica_s_batches_are_answered_by_another(tmp_path: Path) -> None:
    """One of two on the network is killed with batches under way: nothing is lost."""
    made = authority(tmp_path / "home")
    made.keep_gateway()
    with contextlib.ExitStack() as held:
        replicas = [
            held.enter_context(replica_at(tmp_path / run, made, run, SLOW).ready()) for run in ("a.1", "a.2")
        ]
        gw = held.enter_context(served(tmp_path / "home"))
        gw.configure(*(_at(run, address(each)) for run, each in zip(("a.1", "a.2"), replicas, strict=True)))
        wait_for(lambda: gw.ready() == 2)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            pending = [pool.submit(gw.ask, number) for number in range(64)]
            wait_for(lambda: sum(each.done() for each in pending) >= 8)
            replicas[0].process.kill()
            statuses = [each.result().status for each in pending]
        assert statuses == [200] * 64
        assert wait_for(gw.retried) > 0


def test_a_replica_is_replaced_without_a_lost_request(tmp_path: Path) -> None:
    """From a Unix socket to the network, then the first is drained: clients are answered all the while."""
    made = authority(tmp_path / "home")
    made.keep_gateway()
    stop = threading.Event()
    statuses: list[int] = []
    with (
        callable_replica(tmp_path / "old", WHO).ready() as old,
        replica_at(tmp_path / "new", made, "svc.8", WHO).ready() as new,
        served(tmp_path / "home", workers=2) as gw,
    ):

        def ask() -> None:
            while not stop.is_set():
                statuses.append(gw.ask(1).status)

        here = ReplicaTarget(run="svc.7", socket=str(old.folder / REPLICA_SOCKET))
        gw.configure(here)
        wait_for(lambda: gw.ready() == 2)
        asking = threading.Thread(target=ask)
        asking.start()
        there = _at("svc.8", address(new))
        gw.configure(here, there)
        wait_for(lambda: gw.ready() == 4)
        gw.configure(there)
        old.terminate()
        assert old.end()[0] == 0
        before = len(statuses)
        wait_for(lambda: len(statuses) > before + 20)
        stop.set()
        asking.join()
        assert gw.ask(1).json[0] == new.process.pid
    assert set(statuses) == {200}


# who is not the run's replica


class Trap:
    """A listener that counts connections and keeps what it was sent after the handshake."""

    def __init__(self, context: ssl.SSLContext | None, *, speak: bool = True) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.context, self.speak = context, speak
        self.met = 0
        self.heard = b""
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return peers.join_address(HOST, self.listener.getsockname()[1])

    def met_again(self) -> bool:
        """Whether a first connection came to nothing and another one was made."""
        return self.met >= 2

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.met += 1
            self._held.append(connection)
            with contextlib.suppress(OSError):
                self._meet(connection)

    def _meet(self, connection: socket.socket) -> None:
        if not self.speak:
            return
        connection.settimeout(5)
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True)
            self._held.append(connection)
        connection.sendall(HELLO)
        while data := connection.recv(65_536):
            if self.context is not None:
                self.heard += data

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join()
        for connection in self._held:
            connection.close()


def strangers(home: Path) -> dict[str, ssl.SSLContext | None]:
    """What may listen at a run's address and is not its replica; None speaks in the clear."""
    own, other = authority(home), authority(home.with_name("other"))
    aged = authority(home, shift_days=-365 * 5 - 1)
    aged.replica("svc.1")
    impostor = authority(home.with_name("impostor"), HOME_ID[::-1])
    own.keep_gateway()
    client = home / "gateway" / "replicas.pem"
    return {
        "another run": server_context(own.replica("svc.2")),
        "a run whose name begins alike": server_context(own.replica("svc.11")),
        "another authority for the same home": server_context(other.replica("svc.1")),
        "another home": server_context(impostor.replica("svc.1")),
        "one that ran out": server_context(aged.replica("svc.1")),
        "the gateway's own": server_context_of(client.read_text()),
        "in the clear": None,
    }


def test_a_stranger_at_a_replica_s_address_gets_no_batch(tmp_path: Path) -> None:
    """The law: a batch is never sent to a peer whose name is not the run's. Strangers are tried
    again and again, and meanwhile callers are told that there is no replica."""
    home = tmp_path / "home"
    contexts = strangers(home)
    with served(home) as gw:
        for what, context in contexts.items():
            with _trap(context) as trap:
                gw.configure(_at("svc.1", trap.address))
                wait_for(trap.met_again)
                assert gw.ask(1).status == 503, what
                assert (gw.ready(), trap.heard) == (0, b""), what


def test_a_listener_that_says_nothing_is_given_up_and_tried_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    authority(home).keep_gateway()
    with _trap(None, speak=False) as trap, served(home) as gw:
        gw.configure(_at("svc.1", trap.address))
        wait_for(trap.met_again)
        assert gw.ask(1).status == 503


def test_the_trap_would_hear_a_batch(tmp_path: Path) -> None:
    """The law's own check: at the right name the same listener is sent what callers ask."""
    home = tmp_path / "home"
    made = authority(home)
    made.keep_gateway()
    with _trap(server_context(made.replica("svc.1"))) as trap, served(home) as gw:
        gw.configure(_at("svc.1", trap.address), timeout_ms=500)
        wait_for(lambda: gw.ready() == 1)
        assert gw.ask("marked").status == 504
        assert b"marked" in trap.heard


def test_a_renewed_certificate_is_used_and_nothing_is_cut(tmp_path: Path) -> None:
    """The gateway begins with a certificate that ran out; the control plane's next look mends it."""
    home = tmp_path / "home"
    authority(home, shift_days=-366).keep_gateway()
    made = authority(home)
    with replica_at(tmp_path / "r", made, "svc.1", WHO).ready() as replica, served(home) as gw:
        gw.configure(_at("svc.1", address(replica)))
        wait_for(lambda: gw.position_seen() == gw.position)
        assert gw.ask(1).status == 503
        made.keep_gateway()
        wait_for(lambda: gw.ready() == 1)
        assert gw.ask(1).json[0] == replica.process.pid
        (home / "gateway" / "replicas.pem").write_text("half")
        assert gw.ask(1).status == 200


HELLO = b"".join(
    wire.pack(
        wire.HELLO,
        0,
        0,
        {
            "protocol": 1,
            "run": "svc.1",
            "service": "svc",
            "revision": 3,
            "kind": "json",
            "batch_size_max": 8,
            "batches_max": 2,
        },
    )
)


@contextlib.contextmanager
def _trap(context: ssl.SSLContext | None, *, speak: bool = True) -> Iterator[Trap]:
    trap = Trap(context, speak=speak)
    try:
        yield trap
    finally:
        trap.close()
