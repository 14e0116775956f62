"""API keys of the home: what a request for one must be, the events, and what is shown of them. Pure but for
the making of the key itself, which is in `guard`."""

import re
from typing import NamedTuple

from steersman.app.declare import nearest
from steersman.app.wire import KeyRequest, KeyView
from steersman.guard.api_keys import NewKey, new_key
from steersman.model.errors import ConflictError
from steersman.model.events import ApiKeyCreated, ApiKeyRevoked
from steersman.model.ids import WorkloadName
from steersman.model.service import ApiKey
from steersman.model.snapshot import Snapshot
from steersman.model.units import DURATION_MS_MAX

KEYS_MAX = 10_000
"""The most API keys of a home."""
COUNT_MAX = 1_000_000
"""The largest burst, concurrency and weight."""
RATE_MILLI_MAX = 1_000_000_000
"""The highest rate: a million requests a second."""
DIGEST_CHARS_SHOWN = 12

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Made(NamedTuple):
    """A key, the event that records it, and the key's own text."""

    event: ApiKeyCreated
    new: NewKey


def create(snapshot: Snapshot, asked: KeyRequest, now_ms: int) -> Made:
    """A key as asked for. Raises ConflictError."""
    if _NAME.fullmatch(asked.name) is None:
        raise ConflictError(
            f"{asked.name[:64]!r} is not a name for a key",
            hint="names are lower-case letters, digits and `-`, as in mobile-app",
            code="bad-name",
        )
    if any(key.name == asked.name for key in snapshot.keys):
        raise ConflictError(
            f"there is a key called {asked.name!r}",
            hint=f"steer key revoke {asked.name}, or choose another name",
            code="key-exists",
        )
    if len(snapshot.keys) >= KEYS_MAX:
        raise ConflictError(f"there are {KEYS_MAX} keys already", hint="revoke some: steer key list")
    _check_amounts(asked)
    _check_services(snapshot, asked.services)
    new = new_key()
    key = ApiKey(
        name=asked.name,
        digest=new.digest,
        services=tuple(sorted(WorkloadName(name) for name in set(asked.services))),
        expires_ms=None if asked.expires_in_ms is None else now_ms + asked.expires_in_ms,
        rate_milli=asked.rate_milli,
        burst=asked.burst,
        concurrency=asked.concurrency,
        weight=asked.weight,
        priority_max=asked.priority_max,
    )
    return Made(ApiKeyCreated(key=key), new)


def _check_amounts(asked: KeyRequest) -> None:
    limits = (
        ("expires", asked.expires_in_ms, DURATION_MS_MAX, "ten years"),
        ("rate", asked.rate_milli, RATE_MILLI_MAX, f"{RATE_MILLI_MAX // 1000:,} requests a second"),
        ("burst", asked.burst, COUNT_MAX, f"{COUNT_MAX:,}"),
        ("concurrency", asked.concurrency, COUNT_MAX, f"{COUNT_MAX:,}"),
        ("weight", asked.weight, COUNT_MAX, f"{COUNT_MAX:,}"),
    )
    for what, value, most, words in limits:
        if value is not None and value > most:
            raise ConflictError(
                f"the {what} of the key is too large", hint=f"the most is {words}", code="bad-request"
            )


def _check_services(snapshot: Snapshot, names: tuple[str, ...]) -> None:
    known = [name for name, _ in snapshot.services.sorted_items()]
    for name in names:
        if snapshot.services.get(name) is None:
            hint = nearest(name, known) if known else "declare the service first: steer up FILE"
            raise ConflictError(
                f"there is no service called {name[:64]!r}", hint=hint, code="unknown-service"
            )


def revoke(snapshot: Snapshot, name: str) -> ApiKeyRevoked:
    """The end of a key. Raises ConflictError for one that is not there."""
    known = [key.name for key in snapshot.keys]
    if name not in known:
        hint = nearest(name, known) if known else "there are no keys: steer key create NAME"
        raise ConflictError(f"there is no key called {name[:64]!r}", hint=hint, code="unknown-key")
    return ApiKeyRevoked(name=name)


def view(key: ApiKey, now_ms: int) -> KeyView:
    """What is shown of a key: never the key, for it is not known."""
    return KeyView(
        name=key.name,
        digest_start=key.digest[:DIGEST_CHARS_SHOWN],
        services=tuple(key.services),
        expires_ms=key.expires_ms,
        expired=key.expires_ms is not None and key.expires_ms <= now_ms,
        rate_milli=key.rate_milli,
        burst=key.burst,
        concurrency=key.concurrency,
        weight=key.weight,
        priority_max=key.priority_max,
    )
