"""Who a replica on a network is, and whether its machine still answers: the rules, without a network."""

import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from steersman.dataplane.gateway.exchange.secure import REPEATS_MIN, SILENT_MS, Secure, silent, vanished
from steersman.guard.authority import Authority
from steersman.ports import peers

HOME_ID = "00ff00ff00ff00ff"
NOW_MS = 1_800_000_000_000


def secure(home: Path) -> Secure:
    Authority(home, HOME_ID, lambda: NOW_MS).keep_gateway()
    made = Secure(home)
    assert made.context() is not None
    return made


def shown(*given: tuple[str, str]) -> dict[str, Any]:
    return {"subjectAltName": given}


@pytest.mark.parametrize(
    "certificate",
    [
        None,
        {},
        shown(),
        shown(("DNS", f"spiffe://{HOME_ID}/run/a.1")),
        shown(("URI", f"spiffe://{HOME_ID}/run/a.11")),
        shown(("URI", f"spiffe://{HOME_ID}/run/A.1")),
        shown(("URI", f"spiffe://{HOME_ID}/run/a.1/")),
        shown(("URI", f"spiffe://{HOME_ID}/gateway")),
        shown(("URI", f"spiffe://{HOME_ID}")),
        shown(("URI", "spiffe://ff/run/a.1")),
        shown(("URI", f"https://{HOME_ID}/run/a.1")),
        shown(("URI", f"spiffe://{HOME_ID}/run/a.1"), ("URI", f"spiffe://{HOME_ID}/run/a.2")),
        shown(("URI", f"spiffe://{HOME_ID}/run/a.1"), ("DNS", "localhost")),
    ],
)
def test_only_a_certificate_with_the_run_s_one_name_is_no_stranger(
    tmp_path: Path, certificate: dict[str, Any] | None
) -> None:
    made = secure(tmp_path)
    assert "not of the run a.1" in made.stranger(certificate, "a.1")
    assert made.stranger(shown(("URI", f"spiffe://{HOME_ID}/run/a.1")), "a.1") == ""


def test_without_files_there_is_no_context_and_with_new_ones_there_is_another(tmp_path: Path) -> None:
    assert Secure().context() is None
    late = Secure(tmp_path)
    assert late.context() is None
    made = secure(tmp_path)
    first = made.context()
    assert late.context() is not None
    assert made.context() is first
    path = tmp_path / "gateway" / "replicas.pem"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert made.context() is first  # what cannot be used is passed over
    path.write_bytes(whole)
    assert made.context() not in (None, first)


def info(retransmits: int, probes: int, silent_ms: int) -> bytes:
    """The kernel's account of a connection."""
    return struct.pack("=8B13I", 1, 0, retransmits, probes, 0, 0, 0, 0, *([7] * 12), silent_ms)


def test_a_machine_is_gone_when_repeats_go_unanswered_for_long() -> None:
    assert silent(info(REPEATS_MIN, 0, SILENT_MS))
    assert silent(info(0, REPEATS_MIN, SILENT_MS))
    assert not silent(info(REPEATS_MIN, 0, SILENT_MS - 1))
    assert not silent(info(REPEATS_MIN - 1, REPEATS_MIN - 1, 60_000))
    assert not silent(info(0, 0, 600_000))  # quiet, and nothing was asked of it


def test_a_machine_that_is_there_is_not_gone_and_a_closed_socket_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        peers.prepare(one)
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not vanished(one)
        one.close()
        assert not vanished(one)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[::1]:65535", ("::1", 65_535)),
        ("::1:80", None),
        ("[10.0.0.1]:80", None),
        ("node:80", None),
        ("10.0.0.1:0", None),
        ("10.0.0.1:65536", None),
        ("10.0.0.1:-1", None),
        ("10.0.0.1:٣", None),
        ("10.0.0.1", None),
        ("/run/replica.sock", None),
        ("", None),
    ],
)
def test_an_address_is_an_ip_and_a_port(text: str, place: tuple[str, int] | None) -> None:
    assert peers.split_address(text) == place
    if place:
        assert peers.join_address(*place) == text
