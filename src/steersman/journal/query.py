"""Filtered reading for the audit, over anything that reads like a journal.

Filters run on records that the chain has already vouched for, in a single pass and constant memory: an
audit that skipped rows inside the database would also skip noticing that they were altered.
"""

from collections.abc import Iterator
from typing import Protocol

import msgspec

from steersman.ports.journal import Record


class Readable(Protocol):
    """What `matching` needs of a journal or a reader of one."""

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[Record]: ...


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which records: all conditions must hold; an empty one always does.

    Positions after `after`; times from `since_ms` on and before `before_ms` (epoch milliseconds); `types`
    are event types; `contains` is text in the body's JSON; at most `limit` records.
    """

    types: tuple[str, ...] = ()
    after: int = 0
    since_ms: int | None = None
    before_ms: int | None = None
    contains: str = ""
    limit: int | None = None


def matching(journal: Readable, query: Query) -> Iterator[Record]:
    """The records that a query asks for, in order."""
    needle = query.contains.encode()
    left = query.limit
    for record in journal.read(after=query.after):
        if left == 0:
            return
        if _matches(record, query, needle):
            yield record
            left = None if left is None else left - 1


def _matches(record: Record, query: Query, needle: bytes) -> bool:
    return (
        (not query.types or record.type in query.types)
        and (query.since_ms is None or record.at_ms >= query.since_ms)
        and (query.before_ms is None or record.at_ms < query.before_ms)
        and needle in record.body
    )
