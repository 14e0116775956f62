"""Where the gateway listens against where it should: said once it is known, and not while it moves."""

import os
import socket
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from tests.unit.app.test_serving import ADDRESS, up
from tests.unit.app.worlds import HERE, submission
from tests.unit.explain.served import Served

from steersman.app import serving
from steersman.app.declare import declare
from steersman.app.gateway_place import Follower, foreseen, moved
from steersman.app.planning import gateway_warnings
from steersman.model.events import GatewayDeclared
from steersman.model.service import Gateway
from steersman.model.snapshot import Snapshot
from steersman.ports.gateway import ADDRESS_FILE, CONFIG_FILE, GATEWAY, GatewayConfig
from steersman.sensors.figures import Figures

DECLARED = Gateway(port=8080)
ELSEWHERE = replace(ADDRESS, port=41234)


def live(port: int, *, follows: bool = True) -> serving.Live:
    return serving.Live(Figures(), replace(ADDRESS, port=port), follows)


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (Gateway(port=41234), ""),
        (Gateway(port=0), ""),
        (DECLARED, "port 8080 is taken; the gateway listens on 41234 instead"),
        (Gateway(port=80), "port 80 is taken, or not allowed; the gateway listens on 41234 instead"),
        (
            Gateway(address="10.0.0.7", port=8080),
            "the gateway cannot listen on 10.0.0.7 port 8080; it listens on 127.0.0.1 port 41234",
        ),
    ],
)
def test_what_is_said_of_another_place(declared: Gateway, words: str) -> None:
    assert moved(declared, ELSEWHERE) == words


# Whether it has followed.


def tell(home: Path, declared: Gateway, *, config_ns: int, address_ns: int) -> None:
    """The files of a gateway that was told something and said where it listens, at these times."""
    folder = home / GATEWAY
    folder.mkdir(exist_ok=True)
    config = GatewayConfig(epoch=1, position=1, gateway=declared, services=(), keys=())
    (folder / CONFIG_FILE).write_bytes(msgspec.json.encode(config))
    (folder / ADDRESS_FILE).write_bytes(msgspec.json.encode(ELSEWHERE))
    os.utime(folder / CONFIG_FILE, ns=(config_ns, config_ns))
    os.utime(folder / ADDRESS_FILE, ns=(address_ns, address_ns))


def test_it_has_followed_once_its_word_is_the_newer_one(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert not follower.follows(DECLARED, None)
    assert not follower.follows(DECLARED, ELSEWHERE)  # nothing is written yet
    tell(tmp_path, Gateway(), config_ns=5, address_ns=6)
    assert not follower.follows(DECLARED, ELSEWHERE)  # it was not told yet
    tell(tmp_path, DECLARED, config_ns=7, address_ns=6)
    assert not follower.follows(DECLARED, ELSEWHERE)
    tell(tmp_path, DECLARED, config_ns=7, address_ns=8)
    assert follower.follows(DECLARED, ELSEWHERE)
    tell(tmp_path, DECLARED, config_ns=9, address_ns=8)
    assert follower.follows(DECLARED, ELSEWHERE)  # other news does not take it back
    other = Gateway(port=9090)
    assert not follower.follows(other, ELSEWHERE)
    assert not follower.follows(DECLARED, ELSEWHERE)  # back again is a new declaration
    assert follower.follows(DECLARED, replace(ADDRESS, port=8080))


def test_damaged_files_tell_nothing(tmp_path: Path) -> None:
    tell(tmp_path, DECLARED, config_ns=7, address_ns=8)
    (tmp_path / GATEWAY / CONFIG_FILE).write_bytes(b"{")
    assert not Follower(tmp_path).follows(DECLARED, ELSEWHERE)


# What people see.


def told(home: Served, seen: serving.Live) -> tuple[str, bool, str]:
    found = serving.gateway(home.snapshot, seen)
    assert found is not None
    return found.listens_on, found.settled, found.warning


def test_the_status_warns_once_the_gateway_has_followed() -> None:
    assert serving.gateway(Snapshot(), live(1)) is None
    home = up()
    warning = "port 8000 is taken; the gateway listens on 41234 instead"
    assert told(home, live(41234)) == ("127.0.0.1:41234", True, warning)
    assert told(home, live(8000)) == ("127.0.0.1:8000", True, "")
    assert told(home, live(41234, follows=False)) == ("127.0.0.1:41234", False, "")
    assert told(home, serving.nothing_live()) == ("", True, "")
    assert not serving.row(home.snapshot, home.service(), live(41234, follows=False)).settled
    assert serving.row(home.snapshot, home.service(), live(41234)).settled


def test_a_plan_tells_where_it_listens_and_foresees_a_taken_port(tmp_path: Path) -> None:
    home = up()
    nothing = declare(submission("name: a\nrun: x\n"), home.snapshot, HERE)
    assert gateway_warnings(nothing, home.snapshot, live(8000)) == ()
    (warning,) = gateway_warnings(nothing, home.snapshot, live(41234))
    assert warning == "port 8000 is taken; the gateway listens on 41234 instead"
    assert gateway_warnings(nothing, Snapshot(), serving.nothing_live()) == ()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        asked = submission(f"kind: gateway\nport: {port}\n")
        found = declare(asked, home.snapshot, HERE)
        assert gateway_warnings(found, home.snapshot, live(8000)) == ()  # bound, but nobody listens
        other.listen()
        (warning,) = gateway_warnings(found, home.snapshot, live(8000))
        assert warning == f"port {port} is taken; the gateway will listen on a free port instead"
        (tmp_path / "m.py").write_text("f = print\n")
        first = "name: s\nmodel: {callable: 'm:f'}\n"
        snapshot = replace(Snapshot(), gateway=Gateway(port=port))
        begun = declare(submission(first, folder=str(tmp_path)), snapshot, HERE)
        assert gateway_warnings(begun, snapshot, serving.nothing_live()) == (warning,)
        assert foreseen(Gateway(port=port), replace(ADDRESS, port=port)) == ""  # it is the gateway's own
    assert foreseen(Gateway(port=0), None) == ""


def test_a_gateway_that_is_declared_is_told_with_what_changes() -> None:
    text = "kind: gateway\nport: 8443\n"
    found = declare(submission(text), Snapshot(), HERE)
    assert [(each.path, each.before, each.after) for each in found.gateway_changes] == [
        ("port", "8000", "8443")
    ]
    home = Served()
    home.fold(GatewayDeclared(gateway=Gateway(port=8443, workers=2)))
    found = declare(submission(text), home.snapshot, HERE)
    assert [(each.path, each.before, each.after) for each in found.gateway_changes] == [("workers", "2", "1")]
    assert declare(submission(text + "workers: 2\n"), home.snapshot, HERE).gateway_changes == ()
