"""Who is who between gateways and replicas on a network. Standard library only, for replicas read it too.

    spiffe://<home id>                the home's own authority (a URI in its certificate)
    spiffe://<home id>/gateway        the home's gateway: a client, never a server
    spiffe://<home id>/run/<run>      the replica of one run: a server, never a client

A certificate has one such URI and nothing else that names it; addresses and host names mean nothing. Both
ends trust one authority only, and take the home from its certificate: a chain that holds is of this home.
"""

from __future__ import annotations  # a replica may run on Python 3.9

import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

KEEPALIVE_IDLE_S: Final = 2
KEEPALIVE_PROBE_S: Final = 1
KEEPALIVE_PROBES: Final = 3
"""A quiet connection whose other machine is gone ends after 2 + 3 × 1 seconds."""

_URI = "spiffe://"


def home_identity(home_id: str) -> str:
    """The URI of a home's authority."""
    return _URI + home_id


def gateway_identity(home: str) -> str:
    """The URI of the gateway of a home, of which `home` is the URI."""
    return f"{home}/gateway"


def run_identity(home: str, run: str) -> str:
    """The URI of the replica of a run of a home, of which `home` is the URI."""
    return f"{home}/run/{run}"


def identity(certificate: Mapping[str, Any] | None) -> str:
    """The URI of a certificate that was verified, as `ssl` shows it; empty unless that is its only name."""
    names = tuple((certificate or {}).get("subjectAltName", ()))
    if len(names) != 1 or names[0][0] != "URI" or not str(names[0][1]).startswith(_URI):
        return ""
    return str(names[0][1])


def trusted_home(context: ssl.SSLContext) -> str:
    """The URI of the one authority that a context trusts. Raises ValueError when it is none of a home."""
    authorities = context.get_ca_certs()
    found = identity(authorities[0]) if len(authorities) == 1 else ""
    if not found:
        raise ValueError("the authority's certificate does not name a home")
    return found


def make_context(protocol: int) -> ssl.SSLContext:
    """A context for one side that demands a certificate of the other; nothing is trusted yet."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if ssl.HAS_TLSv1_3 else ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # the URI is checked instead, whole
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def prepare(connection: socket.socket) -> None:
    """Send small frames at once, and notice when the other machine is gone. Raises OSError."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_PROBE_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ):
        option = getattr(socket, name, None)  # not everywhere
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def split_address(text: str) -> tuple[str, int] | None:
    """Host and port of ``1.2.3.4:5`` or ``[::1]:5``; None for what is neither."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        family, host = socket.AF_INET6, host[1:-1]
    else:
        family = socket.AF_INET
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536):
        return None
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return None
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The text that `split_address` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
