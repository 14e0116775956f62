"""Every key of the gateway, and the rule that beyond loopback nobody is served without a key."""

import pytest

from steersman.model.errors import SpecError
from steersman.model.service import Gateway
from steersman.spec.diff import diff_gateways
from steersman.spec.parse import Parsed, merge, parse

HEAD = "kind: gateway\n"


def read(extra: str = "") -> Parsed:
    return parse(HEAD + extra, "f.yaml")


def gateway(extra: str = "") -> Gateway:
    found = read(extra).gateway
    assert found is not None
    return found


def refused(extra: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read(extra)
    assert caught.value.hint
    return caught.value


def test_the_least_gateway_has_the_defaults_of_the_model() -> None:
    assert gateway() == Gateway()
    assert str(read().gateway_origin) == "f.yaml:1"
    assert read().warnings == ()


def test_a_whole_gateway() -> None:
    text = (
        "name: door\naddress: 10.0.0.7\nport: 8443\nworkers: 4\nkeys: required\n"
        "hosts: [API.example.org, api.example.org, localhost]\n"
        "tls: {certificate: c.pem, private_key: k.pem}\n"
        "connections_max: 100\nconnections_per_address_max: 10\n"
    )
    assert gateway(text) == Gateway(
        name="door", address="10.0.0.7", port=8443, workers=4, keys="required",
        hosts=("api.example.org", "localhost"), certificate="c.pem", private_key="k.pem",
        connections_max=100, connections_per_address_max=10,
    )  # fmt: skip
    assert read(text).warnings == ()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.9", "127.0.0.9"),
        ("'::1'", "::1"),
        ("'[::1]'", "::1"),
        ("'0:0:0:0:0:0:0:1'", "::1"),
    ],
)
def test_loopback(text: str, address: str) -> None:
    for rule, keys in (("", "optional"), ("keys: optional\n", "optional"), ("keys: required\n", "required")):
        found = gateway(f"address: {text}\n{rule}")
        assert (found.address, found.keys) == (address, keys)


@pytest.mark.parametrize("address", ["0.0.0.0", "'::'", "10.0.0.7", "'2001:db8::1'", "'::ffff:127.0.0.1'"])
def test_beyond_loopback_keys_are_required(address: str) -> None:
    assert gateway(f"address: {address}\n").keys == "required"
    error = refused(f"address: {address}\nkeys: optional\n")
    assert (error.path, error.line) == ("keys", 3)
    assert "nobody is served without an API key" in error.message
    assert "keys: required" in error.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("address: 10.0.0.7", ["in clear"]),
        ("address: 0.0.0.0", ["in clear", "`hosts`"]),
        ("address: 0.0.0.0\nhosts: [a.example]\ntls: {certificate: c, private_key: k}", []),
        ("address: 0.0.0.0\ntls: {certificate: c, private_key: k}", ["`hosts`"]),
    ],
)
def test_what_is_said_of_an_open_door(text: str, words: list[str]) -> None:
    warnings = read(text + "\n").warnings
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert warning.startswith("f.yaml:2: address: ")
        assert word in warning


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", (4_096, 1_024)),
        ("connections_max: 10", (10, 10)),
        ("connections_max: 5000", (5_000, 1_024)),
        ("connections_per_address_max: 10", (4_096, 10)),
        ("connections_per_address_max: 5000", (5_000, 5_000)),
    ],
)
def test_what_is_left_out_gives_way(text: str, limits: tuple[int, int]) -> None:
    found = gateway(text + "\n")
    assert (found.connections_max, found.connections_per_address_max) == limits


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("address: example.org", "address", "'example.org' is not an address"),
        ("address: 127.1", "address", "is not an address"),
        ("address: 'fe80::1%eth0'", "address", "is not an address"),
        ("address: 224.0.0.1", "address", "is not an address"),
        ("address: '[::1'", "address", "is not an address"),
        ("address: [a]", "address", "an address is wanted here, and this is a list"),
        ("port: 65536", "port", "out of range"),
        ("port: -1", "port", "out of range"),
        ("workers: 0", "workers", "out of range"),
        ("workers: 65", "workers", "out of range"),
        ("keys: none", "keys", "'none' is not a rule for API keys"),
        ("hosts: ['*.example.org']", "hosts.0", "cannot be the name of a host"),
        ("hosts: ['a:80']", "hosts.0", "cannot be the name of a host"),
        ("hosts: ['http://a']", "hosts.0", "cannot be the name of a host"),
        (f"hosts: [{', '.join(f'a{n}' for n in range(101))}]", "hosts", "at most 100"),
        ("tls: {certificate: c}", "tls.private_key", "`private_key` is missing in `tls`"),
        ("tls: {private_key: k}", "tls.certificate", "`certificate` is missing in `tls`"),
        ("tls:", "tls", "`tls` is a mapping of keys"),
        ("tls: {certfile: c}", "tls.certfile", "is not a key of `tls`"),
        ("connections_max: 100001", "connections_max", "out of range"),
        ("connections_max: 5\nconnections_per_address_max: 6", "connections_per_address_max", "more than"),
        ("run: x", "run", "is not a key of a gateway"),
    ],
)
def test_bad_gateways(text: str, path: str, words: str) -> None:
    error = refused(text + "\n")
    assert (error.path, error.code) == (path, "spec-invalid")
    assert words in error.message


def test_a_home_has_one_gateway() -> None:
    with pytest.raises(SpecError, match=r"two gateways are declared, in f.yaml:1 and in f.yaml:3"):
        parse("kind: gateway\n---\nkind: gateway\nport: 1\n", "f.yaml")
    one = parse("kind: gateway\n", "a.yaml")
    assert merge([one, parse("name: a\nrun: x\n", "b.yaml")]).gateway == Gateway()
    assert merge([one]) == one


def test_what_changes_is_told_key_by_key() -> None:
    before = Gateway()
    after = gateway(
        "name: door\naddress: '::1'\nport: 0\nworkers: 2\nkeys: required\nhosts: [a.example, b.example]\n"
        "tls: {certificate: c.pem, private_key: k.pem}\nconnections_max: 9\nconnections_per_address_max: 8\n"
    )
    found = {each.path: (each.before, each.after) for each in diff_gateways(before, after)}
    assert found == {
        "name": ("gateway", "door"),
        "address": ("127.0.0.1", "::1"),
        "port": ("8000", "any that is free"),
        "workers": ("1", "2"),
        "keys": ("optional", "required"),
        "hosts": (None, "a.example, b.example"),
        "tls.certificate": (None, "c.pem"),
        "tls.private_key": (None, "k.pem"),
        "connections_max": ("4096", "9"),
        "connections_per_address_max": ("1024", "8"),
    }
    assert len(found) == len(Gateway.__struct_fields__)  # a field added to it cannot be forgotten
    assert diff_gateways(after, after) == ()
    back = {each.path: each.after for each in diff_gateways(after, before)}
    assert (back["port"], back["hosts"]) == ("8000", None)


def test_where_each_key_stands() -> None:
    origin = read("port: 1\ntls:\n  certificate: c.pem\n  private_key: k.pem\n").gateway_origin
    assert origin is not None
    assert [origin.line_of(path) for path in ("port", "tls", "tls.private_key")] == [2, 3, 5]
    assert origin.line_of("tls.other.deeper") == 3  # the nearest key above it that was written
    assert origin.line_of("address") == 1
