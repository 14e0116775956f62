"""Events to bytes and back, and old versions brought up to date.

The journal stores the bytes written here and chains hashes over them; they are never rewritten. An old
body is raised step by step by `UPCASTS` (pure functions on the decoded JSON object) before it is read as
today's type. A type or version that this build does not know was written by a newer one and is refused.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from steersman.model.errors import JournalCorrupt, JournalNewer
from steersman.model.events import Event

FORMAT_VERSION = 1
"""Version of the journal's own layout: rows, hashing, codec. A higher one is refused."""

EVENT_VERSIONS: Mapping[str, int] = {
    "home-created": 1,
    "control-plane-started": 1,
    "policy-set": 1,
    "fleet-declared": 1,
    "cluster-observed": 1,
    "node-health": 1,
    "interruption-notice": 1,
    "price-observed": 1,
    "workload-declared": 1,
    "service-declared": 1,
    "gateway-declared": 1,
    "queue-declared": 1,
    "queue-removed": 1,
    "api-key-created": 1,
    "api-key-revoked": 1,
    "stop-requested": 1,
    "remove-requested": 1,
    "observed": 1,
    "decided": 1,
    "rank-started": 1,
    "rank-ready": 1,
    "rank-exited": 1,
    "rank-unknown": 1,
    "checkpoint-saved": 1,
    "artifact-published": 1,
    "action-failed": 1,
}

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
UPCASTS: Mapping[tuple[str, int], Upcast] = {}
"""(type, version) → function to the next version's body."""

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_raw_decoder = msgspec.json.Decoder(dict[str, Any])


def event_type(event: Event) -> str:
    """The stable name of an event's type, as stored."""
    return str(type(event).__struct_config__.tag)


def encode_event(event: Event) -> tuple[str, int, bytes]:
    """An event as (type, version, body); equal events give equal bytes."""
    name = event_type(event)
    return name, EVENT_VERSIONS[name], _encoder.encode(event)


def decode_event(name: str, version: int, body: bytes) -> Event:
    """The event stored under a type and version.

    Raises JournalNewer when this build does not know the type or version, JournalCorrupt when the body
    is not such an event.
    """
    current = EVENT_VERSIONS.get(name)
    if current is None or version > current:
        raise JournalNewer(
            f"the journal holds an event {name!r} of version {version}, which this build does not know",
            hint="start the Steersman version that wrote it, or a later one",
        )
    try:
        if version == current:
            return _decoder.decode(body)
        raw = _raw_decoder.decode(body)
        for step in range(version, current):
            raw = UPCASTS[name, step](raw)
        return _decoder.decode(_encoder.encode(raw))
    except (msgspec.DecodeError, KeyError) as error:
        raise JournalCorrupt(f"an event {name!r} of version {version} cannot be read: {error}") from error
