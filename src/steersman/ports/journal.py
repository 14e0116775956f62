"""The append-only log that is the truth."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from steersman.model.events import Event


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the journal. Position 0 and 32 zero bytes when it is empty."""

    position: int
    digest: bytes


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One stored event. `digest` = SHA-256 over the previous digest, position, time, type, version, body."""

    position: int
    at_ms: int
    type: str
    version: int
    body: bytes
    digest: bytes


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Result of reading every row. `problems` is empty when all of it is as acknowledged."""

    rows: int
    head: Head
    problems: tuple[str, ...]


class Journal(Protocol):
    """Append-only, hash-chained, one writer.

    Contract (tests/contract/test_journal.py runs it against every implementation):

    * `append` returns only when all events of the call are durable; they get consecutive positions in
      order. It is atomic: after an error or a power cut either all of the call's events are there or none.
    * Positions begin at 1 and have no gap. What was acknowledged is never changed or lost.
    * `read` yields records after a position, in order; it never yields an unacknowledged event.
    * A head anchor is kept outside the database and is never behind an acknowledged append by more than
      one append; `verify` finds any altered byte of any row and any tail lost against the anchor.
    * State images are disposable: any of them may vanish at any time, and a damaged one is not returned.
    * After JournalWriteError nothing of the call is there and later appends may be tried.
    * Opening raises JournalLocked within one second when another process writes to the same home,
      JournalNewer for a newer format or an unknown event, JournalCorrupt when the chain's end is wrong.
    """

    def append(self, events: Sequence[Event], at_ms: int) -> int:
        """Store events durably; returns the position of the last. Raises JournalWriteError."""
        ...

    def head(self) -> Head:
        """The position and digest of the last acknowledged event."""
        ...

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[Record]: ...

    def verify(self) -> Verification: ...

    def save_image(self, position: int, build: str, image: bytes) -> None:
        """Keep a state image taken at a position by a build; older images may be dropped."""
        ...

    def load_image(self, build: str) -> tuple[int, bytes] | None:
        """The newest intact image of this build at or before the head, or None."""
        ...

    def close(self) -> None:
        """Give up the home. What was acknowledged is durable already."""
        ...
