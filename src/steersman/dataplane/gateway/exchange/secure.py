"""What a gateway process shows to replicas on a network, and what it demands of them.

Theory. The control plane writes two files (`ports.gateway`): the gateway's key and certificate, and the
home's authority. They are looked at whenever a connection is about to be made, and read again when they
changed; so a renewed certificate is used from the next connection on, and those that stand are not disturbed.
Files that cannot be used leave the context that was, for as long as it works.

A replica must prove that it is the one of its run: its chain leads to the home's authority, it is made for
servers (OpenSSL sees to both), and its one name is that run's. An address proves nothing.

A machine that is gone says so to nobody. While nothing is to be acknowledged the kernel's keep-alive finds it
(`ports.peers`); data that nobody acknowledges is sent again for a quarter of an hour, so that is looked at
here: REPEATS_MIN unanswered repeats and no word for SILENT_MS. Not the kernel's user timeout, for that also
ends connections whose other side is busy with one batch and lets the next one wait in the pipe.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from steersman.ports import peers
from steersman.ports.gateway import GATEWAY, PEERS_AUTHORITY_FILE, PEERS_FILE

REPEATS_MIN: Final = 3
SILENT_MS: Final = 2_500
_TCP_INFO = struct.Struct("=8B13I")
"""Its first fields: retransmits is the 3rd byte, probes the 4th; last_ack_recv (ms) the 13th word."""

Identity = tuple[tuple[int, int, int], ...]


class Secure:
    """The gateway's side of TLS to replicas; None for a gateway without a home has no certificate."""

    def __init__(self, home: Path | None = None) -> None:
        self._folder = None if home is None else home / GATEWAY
        self._seen: Identity | None = None
        self._home = ""
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext | None:
        """For the next connection; None while there is no usable certificate."""
        if self._folder is None:
            return None
        own, trusted = self._folder / PEERS_FILE, self._folder / PEERS_AUTHORITY_FILE
        seen = _identity(own, trusted)
        if seen != self._seen:
            self._seen = seen
            with contextlib.suppress(OSError, ValueError):  # half written, or no pair
                context = peers.make_context(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(trusted)
                context.load_cert_chain(own, password=_no_password)
                self._home = peers.trusted_home(context)
                self._context = context
        return self._context

    def stranger(self, certificate: Mapping[str, Any] | None, run: str) -> str:
        """Why a peer whose chain was verified is not the replica of this run; empty when it is."""
        found = peers.identity(certificate)
        if found == peers.run_identity(self._home, run):
            return ""
        return f"its certificate is of {found or 'nobody'}, not of the run {run}"


def _no_password() -> str:
    """An encrypted key must not make a gateway ask a terminal."""
    return ""


def _identity(*paths: Path) -> Identity:
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            return ()
        found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def vanished(connection: socket.socket) -> bool:
    """Whether the machine at the other end acknowledges nothing any more, where the system tells."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return False
    try:
        data = connection.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO.size)
    except OSError:  # closed
        return False
    return len(data) == _TCP_INFO.size and silent(data)


def silent(info: bytes) -> bool:
    """The same, from the kernel's own account (struct tcp_info)."""
    fields: tuple[int, ...] = _TCP_INFO.unpack(info)
    return max(fields[2], fields[3]) >= REPEATS_MIN and fields[-1] >= SILENT_MS
