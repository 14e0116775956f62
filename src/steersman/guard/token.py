"""The token of the control API: whoever can read the home may use it, and nobody else.

256 random bits in a file that only its owner can read, made once. Compared in constant time.
"""

import hmac
import re
import secrets
from pathlib import Path

from steersman.guard.files import create_once, read_private
from steersman.model.errors import AccessError

TOKEN_NAME = "token"  # noqa: S105 - the name of the file, not a token
TOKEN_BYTES = 32
TOKEN_FILE_BYTES_MAX = 128

_TOKEN = re.compile(rb"st_[0-9a-f]{64}\n?")


def load_token(home: Path) -> str | None:
    """The home's token, or None when none was made. Raises AccessError for one that is not safe to use."""
    path = home / TOKEN_NAME
    data = read_private(path, TOKEN_FILE_BYTES_MAX)
    if data is None:
        return None
    if _TOKEN.fullmatch(data) is None:
        raise AccessError(f"{path} does not hold a token", hint="remove it and start the control plane anew")
    return data.decode().rstrip("\n")


def load_or_create_token(home: Path) -> str:
    """The home's token, made now when there is none. Raises AccessError, HomeError."""
    found = load_token(home)
    if found is None:
        create_once(home / TOKEN_NAME, f"st_{secrets.token_bytes(TOKEN_BYTES).hex()}\n".encode())
        found = load_token(home)
    if found is None:
        raise AccessError(f"the token in {home} vanished while it was made")
    return found


def same_token(given: str, token: str) -> bool:
    """Whether they are equal, in a time that does not tell how much of them is."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
