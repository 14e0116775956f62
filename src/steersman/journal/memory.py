"""The journal in memory: for replay, simulation, `steer plan` and tests. Durable for as long as the process.

It keeps the contract of the port to the letter, chain included, so that whatever passes on it passes on
the real one. Its anchor is the head itself.
"""

import threading
from collections.abc import Iterator, Sequence

from steersman.journal.chain import EMPTY_HEAD, Problems, make_records, verify_rows
from steersman.journal.images import IMAGES_KEPT
from steersman.model.errors import JournalError
from steersman.model.events import Event
from steersman.ports.journal import Head, Record, Verification


class MemoryJournal:
    """A journal that ends with the process. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[Record] = []
        self._head = EMPTY_HEAD
        self._images: list[tuple[int, str, bytes]] = []
        self._closed = False

    def append(self, events: Sequence[Event], at_ms: int) -> int:
        with self._lock:
            self._require_open()
            records = make_records(self._head, events, at_ms)
            self._records.extend(records)
            if records:
                self._head = Head(position=records[-1].position, digest=records[-1].digest)
            return self._head.position

    def head(self) -> Head:
        self._require_open()
        return self._head

    def read(self, after: int = 0, limit: int | None = None) -> Iterator[Record]:
        self._require_open()
        end = self._head.position
        stop = end if limit is None else min(end, after + limit)
        return (self._records[index] for index in range(after, stop))

    def verify(self) -> Verification:
        self._require_open()
        rows = (
            (record.position, record.at_ms, record.type, record.version, record.body, record.digest)
            for record in self.read()
        )
        return verify_rows(rows, self._head, Problems())

    def save_image(self, position: int, build: str, image: bytes) -> None:
        self._require_open()
        assert 0 <= position <= self._head.position, "an image is of a state that the journal has reached"
        with self._lock:
            older = [kept for kept in self._images if kept[:2] != (position, build)]
            self._images = [*older, (position, build, image)][-IMAGES_KEPT:]

    def load_image(self, build: str) -> tuple[int, bytes] | None:
        self._require_open()
        found = [(position, image) for position, made_by, image in self._images if made_by == build]
        return max(found, key=lambda kept: kept[0], default=None)

    def close(self) -> None:
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise JournalError("the journal is closed")
