"""Which Host a request may name, and whether its Origin is this very host.

A browser tricked by DNS rebinding sends the attacker's name as Host, so names are allowed one by one: the
address that listens, ``localhost`` when that is loopback, and the names of the configuration. The port is not
compared: it may be another one in front of a port forward, and says nothing about who asks.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

REMEMBERED_MAX: Final = 256
"""Raw Host values found good."""
_HOST: Final = re.compile(rb"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?")
_ORIGIN: Final = re.compile(rb"https?://([^/?#@]+)")


class Hosts:
    """The names of one local address."""

    def __init__(self, address: str, names: Iterable[str]) -> None:
        allowed = {name.lower() for name in names}
        ip = ipaddress.ip_address(address)
        allowed.add(f"[{ip}]" if ip.version == 6 else str(ip))
        if ip.is_loopback:
            allowed.add("localhost")
        self._allowed = frozenset(name.encode() for name in allowed)
        self._good: set[bytes] = set()

    def allows(self, raw: bytes) -> bool:
        """Whether this Host value names us."""
        if raw in self._good:
            return True
        match = _HOST.fullmatch(raw.lower())
        if match is None or match.group(1) not in self._allowed:
            return False
        if len(self._good) < REMEMBERED_MAX:
            self._good.add(raw)
        return True


def well_formed(raw: bytes) -> bool:
    """Whether a Host value is a name or an address, with or without a port."""
    return _HOST.fullmatch(raw.lower()) is not None


def same_origin(origin: bytes, host: bytes) -> bool:
    """Whether a page of this Origin came from the Host that is asked."""
    match = _ORIGIN.fullmatch(origin.lower())
    return match is not None and match.group(1) == host.lower()


def address_key(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one IPv6 customer has."""
    if ":" not in address:
        return address
    ip = ipaddress.IPv6Address(address.partition("%")[0])
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))


def unmapped(address: str) -> str:
    """An address without zone, and an IPv4 one as such."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
