"""Where the gateway listens, against where it is declared to.

Theory of operation. The gateway says its address in a file, each time it has taken over a configuration; a
port that is taken it replaces by a free one. So when the two differ, either it has not followed yet or it
could not. It has followed once its word is newer than the configuration that holds the declaration; what was
seen once stays true until something else is declared.

Whether a port is free can be foreseen by binding it without listening, which disturbs nobody: two sockets may
be bound to one port with SO_REUSEADDR as long as neither listens.
"""

import errno
import socket
from pathlib import Path

import msgspec

from steersman.model.service import Gateway
from steersman.ports.gateway import ADDRESS_FILE, CONFIG_FILE, GATEWAY, GatewayAddress

PORT_UNPRIVILEGED_MIN = 1_024
"""Ports below it may be denied to who is not root."""
_REPLACED = frozenset({errno.EADDRINUSE, errno.EACCES})


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of `GatewayConfig`."""

    gateway: Gateway


_decoder = msgspec.json.Decoder(_Config)


class Follower:
    """Whether the gateway of a home has taken over what is declared of it."""

    def __init__(self, home: Path) -> None:
        self._folder = home / GATEWAY
        self._seen: Gateway | None = None

    def follows(self, declared: Gateway, address: GatewayAddress | None) -> bool:
        """With `address` as its last word. Nobody follows who says nothing."""
        if self._seen != declared:
            self._seen = None
        if address is None:
            return False
        if self._seen is None and (not moved(declared, address) or self._told_since(declared)):
            self._seen = declared
        return self._seen is not None

    def _told_since(self, declared: Gateway) -> bool:
        config = self._folder / CONFIG_FILE
        try:
            written_ns, data = config.stat().st_mtime_ns, config.read_bytes()
            told_ns = (self._folder / ADDRESS_FILE).stat().st_mtime_ns
            return told_ns >= written_ns and _decoder.decode(data).gateway == declared
        except (OSError, msgspec.DecodeError):
            return False


def moved(declared: Gateway, address: GatewayAddress) -> str:
    """What to say when the gateway listens elsewhere than it is declared to; empty when it does not."""
    if address.address != declared.address:
        here = f"{address.address} port {address.port}"
        return f"the gateway cannot listen on {declared.address} port {declared.port}; it listens on {here}"
    if declared.port in {0, address.port}:
        return ""
    return f"{_taken(declared.port)}; the gateway listens on {address.port} instead"


def foreseen(declared: Gateway, own: GatewayAddress | None) -> str:
    """What to say of a port that is taken, before the gateway is told to listen there; `own`: where it is."""
    if declared.port == 0 or (own is not None and not moved(declared, own)):
        return ""
    family = socket.AF_INET6 if ":" in declared.address else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((declared.address, declared.port))
        except OSError as error:
            if error.errno in _REPLACED:
                return f"{_taken(declared.port)}; the gateway will listen on a free port instead"
    return ""


def _taken(port: int) -> str:
    return f"port {port} is taken" + ("" if port >= PORT_UNPRIVILEGED_MIN else ", or not allowed")
