"""The keys of the gateway: the home's front door."""

from typing import Literal

from steersman.spec.keys_common import KIND, NAME_KEY
from steersman.spec.sections import Fields, Key, Nested, Section
from steersman.spec.service_values import HOST_NAME, Address, LocalPath
from steersman.spec.shapes import Choice, Integer, ListOf

WORKERS_MAX = 64
"""The most processes of the gateway."""
CONNECTIONS_MAX = 100_000
"""The most connections that may be open at once."""
HOSTS_MAX = 100
"""The most names of hosts."""

KeyRule = Literal["required", "optional"]

ADDRESS: Key[str] = Key(
    name="address",
    shape=Address(),
    note="the address it listens on: IPv4, IPv6 or `localhost`; 127.0.0.1 when not given",
    origin="steersman",
)
PORT: Key[int] = Key(
    name="port",
    shape=Integer(what="a port", least=0, most=65_535),
    note="the port it listens on; 8000 when not given, 0 is any that is free",
    origin="steersman",
)
WORKERS: Key[int] = Key(
    name="workers",
    shape=Integer(what="a number of processes", least=1, most=WORKERS_MAX),
    note="how many processes share the port; 1 when not given",
    origin="steersman",
)
KEYS: Key[KeyRule] = Key(
    name="keys",
    shape=Choice(what="a rule for API keys", options=(("required", "required"), ("optional", "optional"))),
    note="whether callers need an API key: `required`, or `optional`, which only loopback may have",
    origin="steersman",
)
HOSTS: Key[tuple[str, ...]] = Key(
    name="hosts",
    shape=ListOf(what="names of hosts", item=HOST_NAME, items_max=HOSTS_MAX),
    note="names by which callers may reach it, besides its address",
    origin="steersman",
)
CERTIFICATE: Key[str] = Key(
    name="certificate",
    shape=LocalPath(what="the path of a certificate"),
    note="the chain of certificates, PEM: a path from the folder of this file",
    origin="steersman",
    required=True,
)
PRIVATE_KEY: Key[str] = Key(
    name="private_key",
    shape=LocalPath(what="the path of a private key"),
    note="its private key, PEM: a path from the folder of this file",
    origin="steersman",
    required=True,
)
TLS_SECTION = Section(
    name="tls",
    title="`tls`",
    keys=(CERTIFICATE, PRIVATE_KEY),
    elsewhere=(
        ("certfile", "did you mean `certificate`?"),
        ("cert", "did you mean `certificate`?"),
        ("keyfile", "did you mean `private_key`?"),
        ("key", "did you mean `private_key`?"),
    ),
)
TLS: Key[Fields] = Key(name="tls", shape=Nested(section=TLS_SECTION), note="speak HTTPS", origin="steersman")
CONNECTIONS: Key[int] = Key(
    name="connections_max",
    shape=Integer(what="a number of connections", least=1, most=CONNECTIONS_MAX),
    note="how many connections may be open at once; 4096 when not given",
    origin="steersman",
)
PER_ADDRESS: Key[int] = Key(
    name="connections_per_address_max",
    shape=Integer(what="a number of connections", least=1, most=CONNECTIONS_MAX),
    note="how many of them from one address; 1024 when not given",
    origin="steersman",
)
GATEWAY_SECTION = Section(
    name="gateway",
    title="a gateway",
    keys=(
        KIND,
        NAME_KEY,
        ADDRESS,
        PORT,
        WORKERS,
        KEYS,
        HOSTS,
        TLS,
        CONNECTIONS,
        PER_ADDRESS,
    ),
    elsewhere=(
        ("host", "did you mean `hosts`, or `address`?"),
        ("bind", "did you mean `address`?"),
        ("ports", "did you mean `port`?"),
        ("certificate", "`certificate` belongs under `tls`"),
        ("private_key", "`private_key` belongs under `tls`"),
        ("api_keys", "did you mean `keys`? (`required` or `optional`; keys are made by `steer`)"),
    ),
)
