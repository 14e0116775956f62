"""Gateway processes: restarts, draining, configuration, ports, TLS."""

import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.certificates import make_pair
from tests.serving.gateway_scene import Scene, post, wait_for

from steersman.dataplane.gateway import sockets
from steersman.model.service import Gateway


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@contextlib.contextmanager
def running(home: Path, gateway: Gateway) -> Iterator[Scene]:
    scene = Scene(home, gateway)
    try:
        yield scene
    finally:
        if scene.process.poll() is None:
            scene.end()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_two_homes_never_share_a_port_and_workers_do() -> None:
    first = sockets.listen("127.0.0.1", 0, 3)
    port = first[0].getsockname()[1]
    try:
        assert {one.getsockname()[1] for one in first} == {port}
        second = sockets.listen("127.0.0.1", port, 2)
        assert second[0].getsockname()[1] != port
        sockets.close(second)
    finally:
        sockets.close(first)
    again = sockets.listen("127.0.0.1", port, 1)  # and is free again
    assert again[0].getsockname()[1] == port
    sockets.close(again)


def test_a_killed_worker_is_replaced_and_nobody_is_refused(home: Path) -> None:
    with running(home, Gateway(port=0, workers=2)) as scene:
        victim = scene.stats()[0].pid
        os.kill(victim, signal.SIGKILL)
        for _ in range(20):
            scene.healthy()  # also when the connection waits for the worker to come
        wait_for(lambda: scene.stats()[0].pid != victim)


def test_draining_answers_what_is_under_way_and_says_so(home: Path) -> None:
    with running(home, Gateway(port=0)) as scene, scene.client() as busy, scene.client() as idle:
        assert idle.ask(post("/predict/echo")).status == 200
        busy.send(post("/predict/slower", b"[7]"))
        wait_for(lambda: any(one.ongoing for one in scene.stats()[0].models))
        scene.process.send_signal(signal.SIGTERM)
        reply = busy.read()
        assert (reply.status, reply.json, reply.headers["connection"]) == (200, [7], "close")
        assert busy.closed()
        assert idle.closed()
        assert scene.process.wait(20) == 0


def test_workers_end_with_their_master(home: Path) -> None:
    with running(home, Gateway(port=0, workers=2)) as scene:
        pids = [one.pid for one in scene.stats()]
        scene.process.kill()
        scene.process.wait(20)
        wait_for(lambda: all(gone(pid) for pid in pids))


def test_a_bad_or_older_configuration_changes_nothing(home: Path) -> None:
    with running(home, Gateway(port=0)) as scene:
        scene.configure(scene.gateway, epoch=5)
        wait_for(lambda: scene.stats()[0].config_position == scene.position)
        scene.write(b'{"epoch":')
        wait_for(lambda: scene.stats()[0].config_refused == 1)
        scene.configure(scene.gateway, epoch=4, services=())
        wait_for(lambda: scene.stats()[0].config_refused == 2)
        scene.healthy()


def test_port_and_number_of_workers_follow_the_configuration(home: Path) -> None:
    with running(home, Gateway(port=0)) as scene, socket.socket() as probe:
        scene.configure(Gateway(port=0, workers=3))
        wait_for(lambda: len(scene.stats()) == 3)
        scene.healthy()
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        before = scene.where
        scene.configure(Gateway(port=port))
        scene.where = wait_for(lambda: (now := scene.address()) and now.port != before.port and now)
        scene.healthy()


def served(scene: Scene) -> str:
    """The certificate that a new connection sees."""
    return ssl.get_server_certificate((scene.where.address, scene.where.port))


def test_tls_follows_the_files_and_keeps_the_last_good_pair(home: Path, tmp_path: Path) -> None:
    make_pair(tmp_path, "one")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    context = ssl.create_default_context(cafile=str(certificate))
    gateway = Gateway(port=0, certificate=str(certificate), private_key=str(key))
    with running(home, gateway) as scene, scene.client(context) as old:
        assert scene.where.tls
        assert old.ask(post("/predict/echo")).status == 200
        first = served(scene)
        weak = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        weak.check_hostname, weak.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            weak.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):  # noqa: PT011 - any way of failing the handshake will do
            scene.client(weak)
        key.write_text("not a key")
        wait_for(lambda: scene.stats()[0].config_refused >= 1)
        assert served(scene) == first
        make_pair(tmp_path, "two")
        wait_for(lambda: served(scene) != first)
        assert old.ask(post("/predict/echo")).status == 200
        assert msgspec.json.decode((home / "gateway" / "address.json").read_bytes())["tls"] is True
