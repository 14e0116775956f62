"""Sealed secrets: values that jobs get in their environment and that stand nowhere in the clear.

    <home>/secrets/.key     32 random bytes, made once, readable by the owner only
    <home>/secrets/<name>   format byte, 12 byte nonce, AES-256-GCM of the value

The name is bound into the seal as associated data, so that one secret's file cannot be put in another's
place; a file that was altered, or sealed with another key, does not open. The seal keeps a copied or
backed-up file useless without the key; it does not keep a secret from whoever can read the whole home.
"""

import re
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steersman.guard.files import FOLDER_MODE, create_once, read_private, write_whole
from steersman.model.errors import AccessError, ConflictError, HomeError

SECRETS = "secrets"
KEY_NAME = ".key"
KEY_BYTES = 32
NONCE_BYTES = 12
VALUE_BYTES_MAX = 64 * 1024
SECRETS_MAX = 1_000
FORMAT = b"\x01"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
"""The same form as in declarations; a test holds the two together."""
_SEALED_BYTES_MAX = VALUE_BYTES_MAX + 64


class Secrets:
    """The sealed secrets of one home. Blocking, for they are small; every call reads the disk anew."""

    def __init__(self, home: Path) -> None:
        self._folder = home / SECRETS

    def set(self, name: str, value: str) -> None:
        """Seal a value under a name, in place of any earlier one. Raises ConflictError, HomeError."""
        _require_name(name)
        data = value.encode()
        if not data:
            raise ConflictError(f"the secret {name!r} would be empty", hint="give its value on stdin")
        if len(data) > VALUE_BYTES_MAX:
            raise ConflictError(f"the secret {name!r} is larger than {VALUE_BYTES_MAX} bytes")
        if b"\0" in data:
            raise ConflictError(f"the secret {name!r} holds a NUL, which no environment variable can")
        names = self.list()
        if name not in names and len(names) >= SECRETS_MAX:
            raise ConflictError(f"there are {SECRETS_MAX} secrets already", hint="remove some of them")
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self._key()).encrypt(nonce, data, _bound(name))
        write_whole(self._folder / name, FORMAT + nonce + sealed)

    def get(self, name: str) -> str:
        """A secret's value. Raises ConflictError when there is none, AccessError when it does not open."""
        _require_name(name)
        data = read_private(self._folder / name, _SEALED_BYTES_MAX)
        if data is None:
            raise _unknown(name)
        if data[:1] != FORMAT:
            raise AccessError(f"the secret {name!r} is in a format that this build does not know")
        nonce, sealed = data[1 : 1 + NONCE_BYTES], data[1 + NONCE_BYTES :]
        try:
            return AESGCM(self._key()).decrypt(nonce, sealed, _bound(name)).decode()
        except (InvalidTag, ValueError) as error:
            raise AccessError(
                f"the secret {name!r} does not open: its file was altered or sealed with another key",
                hint=f"set it again: steer secret set {name}",
            ) from error

    def list(self) -> tuple[str, ...]:
        """The names, sorted."""
        if not self._folder.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._folder.iterdir() if NAME.fullmatch(path.name)))

    def delete(self, name: str) -> None:
        """Forget a secret. Raises ConflictError when there is none."""
        _require_name(name)
        try:
            (self._folder / name).unlink()
        except FileNotFoundError:
            raise _unknown(name) from None
        except OSError as error:
            raise HomeError(f"cannot remove the secret {name!r}: {error.strerror}") from error

    def _key(self) -> bytes:
        path = self._folder / KEY_NAME
        key = read_private(path, KEY_BYTES)
        if key is None:
            if self.list():
                raise AccessError(
                    f"the key {path} is missing, so no secret can be opened",
                    hint="put it back from a backup, or remove all secrets and set them again",
                )
            self._make_folder()
            create_once(path, secrets.token_bytes(KEY_BYTES))
            key = read_private(path, KEY_BYTES)
        if key is None or len(key) != KEY_BYTES:
            raise AccessError(f"the key {path} is damaged", hint="put it back from a backup")
        return key

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        except OSError as error:
            raise HomeError(f"cannot make {self._folder}: {error.strerror}") from error


def _bound(name: str) -> bytes:
    return b"steersman secret " + FORMAT + name.encode()


def _require_name(name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise ConflictError(
            "this is not a name for a secret (it is not repeated here: it may be a secret's value)",
            hint="use letters, digits, `_` and `-`, at most 63, as in HF_TOKEN",
            code="bad-name",
        )


def _unknown(name: str) -> ConflictError:
    return ConflictError(
        f"there is no secret called {name!r}",
        hint=f"steer secret set {name}",
        code="unknown-secret",
    )
