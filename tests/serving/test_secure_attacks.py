"""Attacks on the port of a replica on a network: only the home's gateway is spoken to, and it always is."""

import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving.gateway_scene import WAIT_S, wait_for
from tests.serving.replica_scene import Replica
from tests.serving.secure_scene import (
    ECHO,
    HOME_ID,
    SecureLink,
    address,
    authority,
    connect,
    context_for,
    gateway_context,
    replica_at,
)

from steersman.dataplane.replica.tls import SHAKING_MAX
from steersman.ports import replica_wire as wire
from steersman.ports import run_dir

SECRETS = """
import ctypes, os, ssl
SEEN = [name for name in os.environ if name.startswith("STEERSMAN_REPLICA_")]
BLOCK = open("/proc/self/environ").read()
CHILD = os.popen("env").read()

def predict(row):
    return [SEEN, "PRIVATE" in BLOCK, "PRIVATE" in CHILD, [os.readlink(f"/proc/self/fd/{n}") for n in
        os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{n}")]]
"""


@pytest.fixture(params=[ECHO, "async " + ECHO], ids=["sync", "async"])
def replica(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Replica]:
    with replica_at(tmp_path / "r", authority(tmp_path / "home"), "svc.1", request.param).ready() as made:
        yield made


def _serves(tmp_path: Path, replica: Replica) -> None:
    """The gateway is still served."""
    context = gateway_context(tmp_path / "home", authority(tmp_path / "home"))
    with SecureLink(address(replica), context) as link:
        assert link.answers(1) == [1]


def _refused(where: str, context: ssl.SSLContext) -> None:
    """Not one byte of a frame comes."""
    with pytest.raises((OSError, EOFError)):
        SecureLink(where, context)


def test_only_the_gateway_s_certificate_is_let_in(tmp_path: Path, replica: Replica) -> None:
    home, where = tmp_path / "home", address(replica)
    own = dict(authority(home).replica("svc.2"))
    trusted = own[run_dir.ENV_REPLICA_CA]
    _refused(where, context_for("", "", trusted))
    _refused(where, context_for(own[run_dir.ENV_REPLICA_CERT], own[run_dir.ENV_REPLICA_KEY], trusted))
    for home_id in (HOME_ID, "f" * 16):
        other = tmp_path / f"other-{home_id}"
        context = gateway_context(other, authority(other, home_id))
        context.load_verify_locations(cadata=trusted)
        _refused(where, context)
    old = gateway_context(home, authority(home, shift_days=-366))
    _refused(where, old)
    (home / "gateway" / "replicas.pem").unlink()
    _serves(tmp_path, replica)


def test_what_does_not_speak_tls_is_hung_up_on(tmp_path: Path, replica: Replica) -> None:
    where = address(replica)
    for data in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4_096), b"".join(wire.pack(wire.DRAINED, 0, 0, {}))):
        with connect(where) as stranger:
            stranger.sendall(data)
            assert _until_hung_up(stranger)[:1] in (b"", b"\x15")  # an alert, never a frame in the clear
    _serves(tmp_path, replica)


def test_those_who_connect_and_say_nothing_keep_nobody_out(tmp_path: Path, replica: Replica) -> None:
    """More of them than may shake hands at once; in the end all are hung up on."""
    where, files = address(replica), Path(f"/proc/{replica.process.pid}/fd")
    before = len(list(files.iterdir()))
    silent = [connect(where) for _ in range(SHAKING_MAX + 20)]
    try:
        for one in silent[::2]:
            one.sendall(b"\x16\x03\x01\x02")  # the beginning of a handshake
        _serves(tmp_path, replica)
        wait_for(lambda: len(list(files.iterdir())) <= before + SHAKING_MAX + 1, seconds=3.0)
        for one in silent:
            one.settimeout(WAIT_S)
            _until_hung_up(one)
    finally:
        for one in silent:
            one.close()
    _serves(tmp_path, replica)


def _until_hung_up(one: socket.socket) -> bytes:
    """What it says before it hangs up."""
    said = b""
    try:
        while data := one.recv(4_096):
            said += data
    except ConnectionError:
        return said
    return said


def test_a_slow_handshake_does_not_hold_up_the_gateway(tmp_path: Path, replica: Replica) -> None:
    context = gateway_context(tmp_path / "home", authority(tmp_path / "home"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    slow = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        slow.do_handshake()
    with connect(address(replica)) as one:
        for byte in outgoing.read():
            one.sendall(bytes([byte]))
        _serves(tmp_path, replica)


def test_frames_that_are_none_end_their_link_alone(tmp_path: Path, replica: Replica) -> None:
    context = gateway_context(tmp_path / "home", authority(tmp_path / "home"))
    where = address(replica)
    with SecureLink(where, context) as other:
        for data in (
            wire.HEADER.pack(wire.BODY_BYTES_MAX + 1, wire.INFER, 0, 1, 1),
            wire.HEADER.pack(8, wire.INFER, 0, 1, 1) + b"\xff" * 8,
            b"".join(wire.pack(wire.HELLO, 0, 0, {})),
        ):
            with SecureLink(where, context) as link:
                link.socket.sendall(data)
                assert link.read().kind == wire.ERROR
                with pytest.raises((OSError, EOFError)):
                    link.read()
        assert other.answers(5) == [5]


def test_many_frames_in_one_record_are_all_answered(tmp_path: Path, replica: Replica) -> None:
    """What was decrypted together is served though no poll tells of it."""
    context = gateway_context(tmp_path / "home", authority(tmp_path / "home"))
    with SecureLink(address(replica), context) as link:
        texts = [json.dumps("x" * 100_000).encode(), *(json.dumps(number).encode() for number in range(7))]
        frames = [
            b"".join(wire.pack(wire.INFER, number, 1, {"lengths": [len(text)]}, text))
            for number, text in enumerate(texts)
        ]
        link.socket.sendall(b"".join(frames))
        assert sorted(link.read().batch for _ in texts) == list(range(8))


def test_frames_of_megabytes_go_both_ways(tmp_path: Path, replica: Replica) -> None:
    context = gateway_context(tmp_path / "home", authority(tmp_path / "home"))
    with SecureLink(address(replica), context) as link:
        for row in ("a" * 6_000_000, "b" * 100_000):
            assert link.answers(row) == [row]


def test_user_code_and_children_never_see_the_key(tmp_path: Path) -> None:
    made = authority(tmp_path / "home")
    with replica_at(tmp_path / "r", made, "svc.1", SECRETS).ready() as replica:
        with SecureLink(address(replica), gateway_context(tmp_path / "home", made)) as link:
            seen, block, child, files = link.answers(0)[0]
        environ = Path(f"/proc/{replica.process.pid}/environ").read_bytes()
    assert (seen, block, child) == ([], False, False)
    assert not [name for name in files if "memfd" in name]
    assert b"PRIVATE KEY" not in environ


@pytest.mark.parametrize(
    "missing", [run_dir.ENV_REPLICA_CERT, run_dir.ENV_REPLICA_KEY, run_dir.ENV_REPLICA_CA]
)
@pytest.mark.parametrize("value", ["", "no PEM"])
def test_without_a_usable_certificate_it_does_not_begin(tmp_path: Path, missing: str, value: str) -> None:
    texts = dict(authority(tmp_path / "home").replica("svc.1")) | {missing: value}

    class Made:
        def replica(self, _run: str) -> tuple[tuple[str, str], ...]:
            return tuple(texts.items())

    with replica_at(tmp_path / "r", Made(), "svc.1") as replica:  # type: ignore[arg-type] # all it needs
        code, _, err = replica.end()
    assert code == 78
    assert missing in err
    assert "hint: " in err
