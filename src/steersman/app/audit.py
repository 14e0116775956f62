"""The journal, read by people: entries with what each is about, filtered by type and subject.

There is no second audit log: every entry is a stored event, vouched for by the chain as it is read.
"""

from collections import deque
from collections.abc import Collection, Iterator
from typing import Any, Protocol

import msgspec

from steersman.app.wire import EVENTS_MAX, EventsView, EventView
from steersman.journal.query import Readable
from steersman.model.codec import EVENT_VERSIONS, decode_event
from steersman.model.errors import ConflictError
from steersman.model.events import Event, NodeHealth
from steersman.ports.journal import Head, Record

SCAN_ROWS_MAX = 100_000
"""The most rows one answer of the API looks through."""

_decoder = msgspec.json.Decoder(dict[str, Any])


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries: of one of the `types` (all when empty), about the `subject` (any when empty)."""

    types: tuple[str, ...] = ()
    subject: str = ""


def check_types(types: Collection[str]) -> None:
    """Refuse a type that no event has. Raises ConflictError."""
    for name in types:
        if name not in EVENT_VERSIONS:
            raise ConflictError(
                f"no event is of the type {name[:40]!r}",
                hint=f"the types are: {', '.join(sorted(EVENT_VERSIONS))}",
                code="unknown-type",
            )


def entries(
    journal: Readable, wanted: Filter, after: int = 0, rows: int | None = None
) -> Iterator[EventView]:
    """The entries after a position that a filter lets through, of at most so many rows."""
    needle = wanted.subject.encode()
    for record in journal.read(after, rows):
        if wanted.types and record.type not in wanted.types:
            continue
        if needle not in record.body:
            continue
        view = entry(record)
        if not wanted.subject or wanted.subject in view.subjects:
            yield view


class Headed(Readable, Protocol):
    """A journal, or a reader of one, that knows where it ends."""

    def head(self) -> Head: ...


def newest(journal: Headed, wanted: Filter, limit: int) -> list[EventView]:
    """The last entries that a filter lets through, so many at most, the oldest of them first."""
    everything = not wanted.types and not wanted.subject
    after = max(journal.head().position - limit, 0) if everything else 0
    return list(deque(entries(journal, wanted, after), limit))


def about(journal: Readable, name: str, after: int) -> Iterator[tuple[int, int, Event]]:
    """The events after a position that mention a workload, and what became of nodes: it may have been there.

    As (position, time, event).
    """
    needle = name.encode()
    for record in journal.read(after):
        if needle in record.body or record.type == NodeHealth.__struct_config__.tag:
            yield record.position, record.at_ms, decode_event(record.type, record.version, record.body)


def page(journal: Readable, wanted: Filter, after: int, limit: int) -> EventsView:
    """One answer's worth of entries. Raises ConflictError for an unknown type."""
    check_types(wanted.types)
    found: list[EventView] = []
    head = after
    for view in entries(journal, wanted, after, SCAN_ROWS_MAX):
        found.append(view)
        head = view.position
        if len(found) == min(limit, EVENTS_MAX):
            return EventsView(events=tuple(found), next_after=head)
    more = next(iter(journal.read(after + SCAN_ROWS_MAX, 1)), None)
    return EventsView(events=tuple(found), next_after=None if more is None else after + SCAN_ROWS_MAX)


def entry(record: Record) -> EventView:
    """A stored event for people."""
    body = _decoder.decode(record.body)
    return EventView(
        position=record.position,
        at_ms=record.at_ms,
        type=record.type,
        version=record.version,
        subjects=tuple(sorted(subjects(record.type, body))),
        body=body,
    )


def subjects(kind: str, body: dict[str, Any]) -> set[str]:
    """The names of jobs, services, runs, nodes and keys that an event is about.

    What is about a replica is about its service too.
    """
    return {name for each in _named(kind, body) for name in (each, *_owners(each))}


def _named(kind: str, body: dict[str, Any]) -> Iterator[str]:
    match kind:
        case "workload-declared" | "service-declared" | "gateway-declared" | "api-key-created":
            declared = next(body[key] for key in _DECLARED if isinstance(body.get(key), dict))
            yield declared["name"]
            yield from declared.get("services", ())
        case "api-key-revoked":
            yield body["name"]
        case "fleet-declared":
            yield body["fleet"]["name"]
            yield from (node["id"] for node in body["fleet"]["nodes"])
        case "observed":
            yield from (signal["subject"] for signal in body.get("signals", ()))
        case "decided":
            for decision in body["decisions"]:
                yield from _of_fields(decision)
        case _:
            yield from _of_fields(body)


_DECLARED = ("workload", "service", "gateway", "key")


def _of_fields(body: dict[str, Any]) -> Iterator[str]:
    for key in ("workload", "replica", "run", "node"):
        name = body.get(key)
        if isinstance(name, str):
            yield name
    job = body.get("job")
    if isinstance(job, dict):
        yield job["name"]
    for placement in body.get("placements", ()):
        yield placement["node"]


def _owners(name: str) -> Iterator[str]:
    """Whose run or replica it is: of ``digits.3.42`` ``digits.3`` and ``digits``."""
    owner, _, number = name.rpartition(".")
    while owner and number.isdecimal():
        yield owner
        owner, _, number = owner.rpartition(".")
