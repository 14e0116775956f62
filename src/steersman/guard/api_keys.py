"""API keys: what callers of services show to the gateway.

A key is 256 random bits as text that is known by its beginning. It is made here, handed to whoever asked
for it, and kept nowhere; what is kept is the SHA-256 of the text. With so many random bits a plain hash is
enough: there is nothing to guess.
"""

import base64
import hashlib
import secrets
from typing import NamedTuple

PREFIX = "sk-st-"
"""What every key begins with, so that one that leaked is recognised."""
KEY_BYTES = 32


class NewKey(NamedTuple):
    """The key itself, and what may be kept of it."""

    text: str
    digest: str


def new_key() -> NewKey:
    """A key that nobody has."""
    bits = secrets.token_bytes(KEY_BYTES)
    text = PREFIX + base64.urlsafe_b64encode(bits).rstrip(b"=").decode()
    return NewKey(text, digest_of(text))


def digest_of(text: str) -> str:
    """The SHA-256 of a key as it is sent, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
