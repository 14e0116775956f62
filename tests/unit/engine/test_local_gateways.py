"""The gateway's files in a home: replaced whole, read when fresh, and unknown when damaged."""

import json
from pathlib import Path

import msgspec
import pytest

from steersman.drivers.local.gateways import LocalGateways
from steersman.model.errors import AccessError, DriverError
from steersman.model.service import Gateway
from steersman.ports import run_dir
from steersman.ports.gateway import (
    ADDRESS_FILE,
    CONFIG_FILE,
    GATEWAY,
    STATS_PREFIX,
    STATS_STALE_MS,
    GatewayAddress,
    GatewayConfig,
    GatewayStats,
    ReplicaTarget,
)

CONFIG = GatewayConfig(epoch=1, position=7, gateway=Gateway(), services=(), keys=())


def stats(process: int, at_ms: int) -> GatewayStats:
    return GatewayStats(process=process, pid=1, started_ms=0, at_ms=at_ms, cpu_us=0, connections=0)


def put(home: Path, name: str, data: bytes) -> None:
    (home / GATEWAY).mkdir(exist_ok=True)
    (home / GATEWAY / name).write_bytes(data)


def test_a_configuration_is_replaced_whole(tmp_path: Path) -> None:
    gateways = LocalGateways(tmp_path)
    path = tmp_path / GATEWAY / CONFIG_FILE
    gateways.publish(CONFIG)
    first = path.stat().st_ino
    gateways.publish(msgspec.structs.replace(CONFIG, position=8))
    assert msgspec.json.decode(path.read_bytes(), type=GatewayConfig).position == 8
    assert path.stat().st_ino != first, "another file: a reader of the old one keeps it"
    assert [item.name for item in path.parent.iterdir()] == [CONFIG_FILE]


def test_a_configuration_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / GATEWAY).write_text("in the way")
    with pytest.raises(DriverError, match="cannot be written"):
        LocalGateways(tmp_path).publish(CONFIG)


def test_figures_are_read_while_they_are_fresh(tmp_path: Path) -> None:
    gateways = LocalGateways(tmp_path)
    assert gateways.observe(0) == ()
    for process, at_ms in ((0, 10_000), (1, 10_000 - STATS_STALE_MS), (2, 9_999 - STATS_STALE_MS)):
        put(tmp_path, f"{STATS_PREFIX}{process}.json", msgspec.json.encode(stats(process, at_ms)))
    put(tmp_path, f"{STATS_PREFIX}3.json", b'{"process": ')
    assert [item.process for item in gateways.observe(10_000)] == [0, 1]


def test_unknown_fields_of_a_newer_gateway_are_ignored(tmp_path: Path) -> None:
    newer = {**msgspec.to_builtins(stats(0, 5)), "colour": "blue"}
    put(tmp_path, f"{STATS_PREFIX}0.json", json.dumps(newer).encode())
    assert LocalGateways(tmp_path).observe(5) == (stats(0, 5),)


def test_where_it_listens(tmp_path: Path) -> None:
    gateways = LocalGateways(tmp_path)
    assert gateways.address() is None
    address = GatewayAddress(address="127.0.0.1", port=8_001, tls=False, pid=7)
    put(tmp_path, ADDRESS_FILE, msgspec.json.encode(address))
    assert gateways.address() == address
    put(tmp_path, ADDRESS_FILE, b"\x00")
    assert gateways.address() is None


def test_the_socket_of_a_run_is_in_its_folder(tmp_path: Path) -> None:
    expected = tmp_path / run_dir.RUNS / "digits.1.9" / "0" / run_dir.REPLICA_SOCKET
    assert LocalGateways(tmp_path).target("digits.1.9") == ReplicaTarget(
        run="digits.1.9", socket=str(expected)
    )


def _ready(home: Path, run: str, data: bytes) -> None:
    folder = home / run_dir.RUNS / run / "0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / run_dir.READY).write_bytes(data)


def test_a_replica_with_an_address_is_dialled_there_and_the_certificate_is_seen_to(tmp_path: Path) -> None:
    kept: list[int] = []
    gateways = LocalGateways(tmp_path, lambda: kept.append(1))
    socket = ReplicaTarget(run="a.1", socket=str(tmp_path / run_dir.RUNS / "a.1" / "0" / "replica.sock"))
    assert gateways.target("a.1") == socket
    assert not kept
    _ready(tmp_path, "a.1", b'{"at_ms":1,"load_ms":2,"address":"10.1.2.3:4567"}')
    assert gateways.target("a.1") == ReplicaTarget(run="a.1", address="10.1.2.3:4567")
    _ready(tmp_path, "a.1", b'{"at_ms":1,"address":"10.9.9.9:1"}')  # it is written once
    assert gateways.target("a.1").address == "10.1.2.3:4567"
    assert len(kept) == 2


@pytest.mark.parametrize("data", [b"{", b'{"at_ms":1}', b'{"at_ms":1,"address":"host:1"}', b'{"address":7}'])
def test_a_word_without_an_address_means_the_socket(tmp_path: Path, data: bytes) -> None:
    _ready(tmp_path, "a.1", data)
    assert LocalGateways(tmp_path).target("a.1").address == ""


def test_trouble_with_the_certificate_is_told_and_the_configuration_is_written(tmp_path: Path) -> None:
    trouble = [AccessError("the authority is damaged", hint="mend it")]

    def keep() -> None:
        if trouble:
            raise trouble[0]

    _ready(tmp_path, "a.1", b'{"at_ms":1,"address":"10.1.2.3:4567"}')
    gateways = LocalGateways(tmp_path, keep)
    assert gateways.target("a.1").address
    with pytest.raises(DriverError, match="the authority is damaged") as caught:
        gateways.publish(CONFIG)
    assert caught.value.hint == "mend it"
    assert (tmp_path / "gateway" / "config.json").exists()
    trouble.clear()
    gateways.target("a.1")
    gateways.publish(CONFIG)
