"""TLS of the gateway: a context for each pair of certificate and key, made anew when the files change.

Connections keep the context they began with; only new ones get the new. A pair that cannot be used (half
written, not a pair, expired is the peers' to judge) leaves the old context in use and is counted.
"""

import ssl
from pathlib import Path
from typing import Final

from steersman.model.service import Gateway

Identity = tuple[tuple[int, int, int], ...]
ALPN: Final = ["http/1.1"]


def make_context(certificate: str, private_key: str) -> ssl.SSLContext:
    """A server's context, TLS 1.2 and above. Raises OSError or ValueError for a pair it cannot use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)
    context.load_cert_chain(certificate, private_key, password=_no_password)
    return context


def _no_password() -> str:
    """An encrypted key must not make a server ask its terminal."""
    return ""


class Tls:
    """The context for new connections. `refused` counts pairs that could not be used."""

    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None
        self.wanted = False
        self.refused = 0
        self._seen: tuple[str, str, Identity] | None = None

    def look(self, gateway: Gateway) -> None:
        """Follow the configuration and the files it names. Without a usable first pair nobody is served."""
        certificate, private_key = gateway.certificate, gateway.private_key
        self.wanted = certificate is not None or private_key is not None
        if certificate is None or private_key is None:
            self.context = None
            self._seen = None
            return
        seen = (certificate, private_key, _identity(certificate) + _identity(private_key))
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.context = make_context(certificate, private_key)
        except (OSError, ValueError):
            self.refused += 1


def _identity(path: str) -> Identity:
    try:
        status = Path(path).stat()
    except OSError:
        return ()
    return ((status.st_ino, status.st_mtime_ns, status.st_size),)
