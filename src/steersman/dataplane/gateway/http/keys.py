"""API keys: who calls, what they may use, how fast and how many at once.

Theory of operation. A key is known by the SHA-256 of the text the caller sends, looked up in a dict: its 256
random bits leave nothing to guess and no comparison to time. The raw header value of a key that was found is
remembered, so that a busy client costs one dict look-up. Unknown and expired keys take the same way (a hash
and a look-up each time) and get the same answer. Expiry is looked at on every request.

Limits are of the whole gateway, and each of its processes enforces its share: the rate is divided by the
number of processes exactly, burst and concurrency are divided and rounded up, so that a burst may exceed
its limit by one request less than there are processes. What was used is kept over a change of
configuration.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from steersman.dataplane.gateway.http.gcra import Gcra
from steersman.model.service import ApiKey

REMEMBERED_MAX: Final = 4_096
"""Raw header values remembered, of at most REMEMBERED_BYTES_MAX each."""
REMEMBERED_BYTES_MAX: Final = 512
_BEARER: Final = b"bearer "


class Key:
    """One API key in use. `acquired` = `released` + `live` at all times."""

    __slots__ = (
        "acquired",
        "concurrency",
        "expires_ms",
        "gcra",
        "live",
        "name",
        "priority_max",
        "released",
        "services",
        "weight",
    )

    def __init__(self, key: ApiKey, processes: int) -> None:
        self.gcra: Gcra | None = None
        self.live = self.acquired = self.released = 0
        self.set(key, processes)

    def set(self, key: ApiKey, processes: int) -> None:
        """Take over what the configuration says now, and keep what was used."""
        self.name = key.name
        self.services = frozenset(str(name) for name in key.services)
        self.expires_ms = key.expires_ms
        self.weight = key.weight
        self.priority_max = key.priority_max
        self.concurrency = None if key.concurrency is None else -(-key.concurrency // processes)
        if key.rate_milli is None:
            self.gcra = None
            return
        interval_s = 1_000 * processes / max(key.rate_milli, 1)
        burst = -(-key.burst // processes)
        if self.gcra is None:
            self.gcra = Gcra(interval_s, burst)
        else:
            self.gcra.set(interval_s, burst)

    def valid(self, wall_ms: int) -> bool:
        """Whether it has not expired."""
        return self.expires_ms is None or wall_ms < self.expires_ms

    def may_use(self, service: str) -> bool:
        """Whether the service is in its scope."""
        return not self.services or service in self.services

    def acquire(self) -> bool:
        """Take one of its places; False when all are taken."""
        if self.concurrency is not None and self.live >= self.concurrency:
            return False
        self.live += 1
        self.acquired += 1
        return True

    def release(self) -> None:
        """Give a place back."""
        self.live -= 1
        self.released += 1
        assert self.live >= 0


class KeyRing:
    """All keys of the configuration."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._remembered: dict[tuple[bytes, bool], Key] = {}  # a value means nothing in the other header

    def configure(self, keys: Iterable[ApiKey], processes: int) -> None:
        """Replace the keys; one that stays (by digest) keeps its state."""
        before, self._keys = self._keys, {}
        for declared in keys:
            digest = declared.digest.lower()
            key = before.get(digest)
            if key is None:
                key = Key(declared, processes)
            else:
                key.set(declared, processes)
            self._keys[digest] = key
        self._remembered.clear()

    def find(self, raw: bytes, wall_ms: int, *, bearer: bool) -> Key | None:
        """The valid key of an Authorization (`bearer`) or X-API-Key value; None when there is none."""
        found = self._remembered.get((raw, bearer))
        if found is None:
            text = self._text(raw) if bearer else raw
            found = self._keys.get(hashlib.sha256(text).hexdigest()) if text else None
            if found is not None and found.valid(wall_ms) and len(raw) <= REMEMBERED_BYTES_MAX:
                if len(self._remembered) >= REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[raw, bearer] = found
        if found is not None and not found.valid(wall_ms):
            self._remembered.pop((raw, bearer), None)  # from now on it takes as long as an unknown one
            return None
        return found

    @staticmethod
    def _text(raw: bytes) -> bytes:
        """The key in ``Bearer KEY``; anything else hashes to what no key has."""
        return raw[len(_BEARER) :].strip() if raw[: len(_BEARER)].lower() == _BEARER else b""
