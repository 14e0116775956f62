"""The hash chain: what is hashed, how events become rows, and how rows are checked.

A row's digest is SHA-256 over the digest of the row before it and the canonical encoding of the row's own
columns: each preceded by its length, integers as eight bytes big-endian, so that no two different rows
have one encoding. The first row follows 32 zero bytes. Whoever knows the last digest therefore knows
every byte of every row: that is why the anchor needs no more than a position and a digest.

The chain is not keyed. It finds damage, loss and careless edits; someone who may write both the database
and the anchor can forge both, and is caught only by a digest noted elsewhere (`steer audit` prints it).
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import cast

from steersman.model.codec import encode_event
from steersman.model.errors import JournalWriteError
from steersman.model.events import Event
from steersman.ports.journal import Head, Record, Verification

ZERO_DIGEST = bytes(32)
EMPTY_HEAD = Head(position=0, digest=ZERO_DIGEST)

EVENT_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of one event's body. A plan that starts 100,000 workloads takes about 40 MB."""

PROBLEMS_MAX = 100
"""Problems that `verify` lists one by one; the rest are counted."""

RawRow = tuple[object, ...]
"""A row as the store gave it, of any type: position, at_ms, type, version, body, digest."""

StoredRow = tuple[int, int, str, int, bytes, bytes]
_COLUMN_TYPES = (int, int, str, int, bytes, bytes)

_POSITION_TIME_TYPE = struct.Struct(">IqIqI")
_VERSION_BODY = struct.Struct(">IqI")


def row_digest(previous: bytes, row: tuple[int, int, str, int, bytes]) -> bytes:
    """The digest of (position, at_ms, type, version, body) after a row with the digest `previous`."""
    position, at_ms, name, version, body = row
    kind = name.encode()
    hashed = hashlib.sha256(previous)
    hashed.update(_POSITION_TIME_TYPE.pack(8, position, 8, at_ms, len(kind)))
    hashed.update(kind)
    hashed.update(_VERSION_BODY.pack(8, version, len(body)))
    hashed.update(body)
    return hashed.digest()


def make_records(
    head: Head, events: Sequence[Event], at_ms: int, *, bytes_max: int = EVENT_BYTES_MAX
) -> list[Record]:
    """The rows that store events after a head. Raises JournalWriteError for an event that is too large."""
    records: list[Record] = []
    position, digest = head.position, head.digest
    for event in events:
        name, version, body = encode_event(event)
        if len(body) > bytes_max:
            raise JournalWriteError(
                f"an event {name!r} of {len(body)} bytes is larger than the journal takes ({bytes_max})",
                hint="nothing of the call was stored; split what it records",
                code="event-too-large",
            )
        position += 1
        digest = row_digest(digest, (position, at_ms, name, version, body))
        records.append(
            Record(position=position, at_ms=at_ms, type=name, version=version, body=body, digest=digest)
        )
    return records


class ChainChecker:
    """Checks rows fed in stored order, from the first or from a row with a known digest.

    After a bad row it goes on from what is stored there, so that one altered row is reported as one.
    """

    def __init__(self, head: Head = EMPTY_HEAD) -> None:
        self.head = head

    def feed(self, raw: RawRow) -> tuple[Record | None, str | None]:
        """The row as a record when it can be one, and what is wrong with it when something is."""
        expected = self.head.position + 1
        if tuple(map(type, raw)) != _COLUMN_TYPES:
            kinds = ", ".join(type(value).__name__ for value in raw)
            self.head = Head(position=expected, digest=self.head.digest)
            return None, f"row {expected}: its columns have types that were never stored ({kinds})"
        # Just compared; class patterns of `match` would say the same at ten times the cost per row.
        position, at_ms, name, version, body, digest = cast("StoredRow", raw)
        problem = None
        if position != expected:
            problem = _out_of_place(position, expected)
        elif row_digest(self.head.digest, (position, at_ms, name, version, body)) != digest:
            problem = f"row {position}: its bytes are not those that were acknowledged"
        self.head = Head(position=position, digest=digest)
        return Record(
            position=position, at_ms=at_ms, type=name, version=version, body=body, digest=digest
        ), problem


def _out_of_place(position: int, expected: int) -> str:
    if position > expected:
        return f"rows {expected} to {position - 1}: missing before row {position}"
    return f"row {position}: stands where row {expected} belongs"


class Problems:
    """A list of problems that does not grow without bound.

    `cut_off`: the rows could not be read to their end, so what lies beyond is unread, not missing.
    """

    def __init__(self) -> None:
        self._listed: list[str] = []
        self._more = 0
        self.cut_off = False

    def add(self, problem: str) -> None:
        if len(self._listed) < PROBLEMS_MAX:
            self._listed.append(problem)
        else:
            self._more += 1

    def listed(self) -> tuple[str, ...]:
        more = (f"and {self._more} more",) if self._more else ()
        return (*self._listed, *more)


def verify_rows(rows: Iterable[RawRow], anchor: Head | None, problems: Problems) -> Verification:
    """Check every row, and the end of them against the anchor (None: there is none to check against)."""
    checker, count, at_anchor = ChainChecker(), 0, ZERO_DIGEST
    for raw in rows:
        _, problem = checker.feed(raw)
        count += 1
        if problem is not None:
            problems.add(problem)
        if anchor is not None and checker.head.position == anchor.position:
            at_anchor = checker.head.digest
    if anchor is not None:
        _check_anchor(checker.head, at_anchor, anchor, problems)
    return Verification(rows=count, head=checker.head, problems=problems.listed())


def _check_anchor(head: Head, at_anchor: bytes, anchor: Head, problems: Problems) -> None:
    if head.position < anchor.position and problems.cut_off:
        first, count = head.position + 1, anchor.position - head.position
        problems.add(f"the last {count} acknowledged events ({first} to {anchor.position}) are unreadable")
    elif head.position < anchor.position:
        problems.add(lost_tail(head.position, anchor.position))
    elif at_anchor != anchor.digest:
        problems.add(f"row {anchor.position}: its digest is not the one in the head anchor")


def lost_tail(end: int, anchored: int) -> str:
    """The words for acknowledged events that the database no longer has."""
    count = anchored - end
    return f"the last {count} acknowledged events ({end + 1} to {anchored}) are missing from the end"
