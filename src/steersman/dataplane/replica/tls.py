"""A replica on a network: its certificate, who may connect, and a socket that speaks TLS.

The certificate and its key come in the environment. They are taken out of it before anything of the user's
runs: out of `os.environ`, and out of the memory that the process began with, which ``/proc/<pid>/environ``
shows. `ssl` reads keys from files only, so the key is put into one without a name, in memory where the system
has that. What stays is OpenSSL's copy in this process.

Who connects must show a certificate of the home's authority that is made for clients (OpenSSL sees to both)
and is the gateway's: another replica has none of that kind, and could not use its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from steersman.dataplane.replica.errors import LoadError
from steersman.ports import peers, run_dir

HANDSHAKE_SECONDS = 5.0
"""Whoever has not shown a certificate so long after connecting is hung up on."""
SHAKING_MAX = 64
"""Connections whose handshake is under way; one more, and the oldest is hung up on."""
USER_TIMEOUT_MS = 30_000
"""A gateway's machine that does not take what was sent for so long is gone."""
WRITE_BYTES = 256 * 1024
"""Handed to OpenSSL at once, at most."""
READ_BYTES = 1024 * 1024
"""Read of one link before others have their turn, at most."""
VARIABLES = run_dir.REPLICA_SECRETS
_HINT = "these variables are written by Steersman; start the service with `steer up`"


class Gate(NamedTuple):
    """How to speak to those who connect, and whom to expect."""

    context: ssl.SSLContext
    gateway: str

    def refuses(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether this verified certificate is not the gateway's."""
        return peers.identity(certificate) != self.gateway


def take(environ: MutableMapping[str, str]) -> tuple[str, ...]:
    """The PEM texts in VARIABLES' order, empty for those not there; the environment has them no longer."""
    found = []
    for name in VARIABLES:
        _blank(name)
        found.append(environ.pop(name, ""))
    return tuple(found)


def _blank(name: str) -> None:
    """Overwrite a variable in the memory that the process began with."""
    with contextlib.suppress(OSError, AttributeError):  # no C library to ask: then it stays there
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_void_p
        place = getenv(name.encode())
        if place:
            ctypes.memset(place, 0, len(ctypes.string_at(place)))


def make_gate(texts: Sequence[str]) -> Gate:
    """From what `take` gave. Raises LoadError."""
    for name, text in zip(VARIABLES, texts):  # noqa: B905 - Python 3.9 has no `strict`
        if not text:
            raise LoadError(f"{name} is not set, and the replica is to listen on a network", hint=_HINT)
    certificate, private_key, authority = texts
    context = peers.make_context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # a gateway connects anew too seldom to resume
    try:
        context.load_verify_locations(cadata=authority)
        with _nameless((private_key + certificate).encode()) as path:
            context.load_cert_chain(path, password=_no_password)
        return Gate(context, peers.gateway_identity(peers.trusted_home(context)))
    except (ssl.SSLError, ValueError) as error:
        raise LoadError(f"{' and '.join(VARIABLES)} cannot be used: {error}", hint=_HINT) from error
    except OSError as error:
        raise LoadError(f"the certificate cannot be loaded: {error}", hint=_HINT, lasting=False) from error


def _no_password() -> str:
    """An encrypted key must not make a replica ask a terminal."""
    return ""


@contextlib.contextmanager
def _nameless(data: bytes) -> Iterator[str]:
    """A path to these bytes for as long as the block lasts. Raises OSError."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):  # noqa: PTH112 - a text
        handle = os.memfd_create("replica", os.MFD_CLOEXEC)
        try:
            os.write(handle, data)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    handle, path = tempfile.mkstemp()  # readable by the owner only
    try:
        os.write(handle, data)
        yield path
    finally:
        os.unlink(path)  # noqa: PTH108 - a text
        os.close(handle)


def prepare(connection: socket.socket) -> None:
    """Set up a connection that was accepted. Raises OSError."""
    connection.setblocking(False)
    peers.prepare(connection)
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # not everywhere
    if option is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, USER_TIMEOUT_MS)


class TlsSocket:
    """What `server.Link` needs of a socket, over TLS: BlockingIOError when nothing moves now."""

    __slots__ = ("_kept", "_socket")

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._socket = connection
        self._kept = b""  # handed to OpenSSL and not taken: it must see the same bytes again

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def pending(self) -> bool:
        """Whether bytes were read and decrypted that a poll of the descriptor does not show."""
        return self._socket.pending() > 0

    def recv_into(self, room: memoryview) -> int:
        """Read what is there; 0 at the end of all. Raises OSError."""
        count, most = 0, min(len(room), READ_BYTES)
        try:
            while count < most:
                more = self._socket.recv_into(room[count:most])
                if not more:
                    break  # the next read says so again
                count += more
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not count:
                raise BlockingIOError from None
        return count

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Write the beginning of the pieces; how many bytes. After BlockingIOError the same must come again.

        Raises OSError.
        """
        kept = self._kept or _beginning(pieces)
        try:
            count = self._socket.send(kept)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._kept = kept
            raise BlockingIOError from None
        self._kept = b""
        return count


def _beginning(pieces: Sequence[bytes | memoryview]) -> bytes:
    """The first WRITE_BYTES of the pieces."""
    taken: list[bytes | memoryview] = []
    left = WRITE_BYTES
    for piece in pieces:
        taken.append(piece[:left])
        left -= len(taken[-1])
        if not left:
            break
    return b"".join(taken)
