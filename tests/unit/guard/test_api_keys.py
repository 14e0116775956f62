"""API keys: 256 random bits as text, of which only a digest is kept."""

import base64
import hashlib
import re

from steersman.guard.api_keys import KEY_BYTES, PREFIX, digest_of, new_key


def test_what_a_key_looks_like() -> None:
    made = new_key()
    assert re.fullmatch(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", made.text)
    assert len(base64.urlsafe_b64decode(made.text.removeprefix(PREFIX) + "=")) == KEY_BYTES
    assert made.digest == hashlib.sha256(made.text.encode()).hexdigest() == digest_of(made.text)
    assert made.text.removeprefix(PREFIX) not in made.digest


def test_no_two_are_alike() -> None:
    assert len({new_key().text for _ in range(1_000)}) == 1_000
