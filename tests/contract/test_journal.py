"""The contract of the Journal port, held against every implementation."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.journal_events import one_of_each, sized, types_of

from steersman.journal import MemoryJournal, SqliteJournal, chain
from steersman.model.codec import EVENT_VERSIONS, decode_event, encode_event
from steersman.model.errors import JournalError, JournalWriteError
from steersman.model.events import Event
from steersman.ports.journal import Head, Journal

Make = Callable[[], contextlib.AbstractContextManager[Journal]]
SHARED_FIXTURE = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Each call makes a new, empty journal of one implementation."""
    numbers = iter(range(1_000_000))

    def new() -> contextlib.AbstractContextManager[Journal]:
        if request.param == "memory":
            return contextlib.closing(MemoryJournal())
        return contextlib.closing(SqliteJournal.open(tmp_path / str(next(numbers))))

    return new


@pytest.fixture
def journal(make: Make) -> Iterator[Journal]:
    with make() as journal:
        yield journal


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _digest(previous: bytes, position: int, at_ms: int, event: Event) -> bytes:
    """The chain as the port describes it, written a second time."""
    name, version, body = encode_event(event)
    numbers = [number.to_bytes(8, "big", signed=True) for number in (position, at_ms, version)]
    fields = (numbers[0], numbers[1], name.encode(), numbers[2], body)
    return hashlib.sha256(previous + b"".join(_field(field) for field in fields)).digest()


def test_an_empty_journal(journal: Journal) -> None:
    assert journal.head() == Head(position=0, digest=bytes(32))
    assert list(journal.read()) == []
    assert journal.verify().problems == ()
    assert journal.verify().rows == 0
    assert journal.load_image("build") is None


def test_every_event_type_comes_back_as_it_was(journal: Journal) -> None:
    events = one_of_each()
    assert types_of(events) == set(EVENT_VERSIONS), "a new event type needs an example"
    assert journal.append(events, at_ms=5) == len(events)
    records = list(journal.read())
    assert tuple(decode_event(r.type, r.version, r.body) for r in records) == events
    assert {record.at_ms for record in records} == {5}


batches = st.lists(st.tuples(st.lists(st.integers(0, 5_000), max_size=4), st.integers(0, 2**62)), max_size=6)


@SHARED_FIXTURE
@given(batches=batches, after=st.integers(0, 30), limit=st.none() | st.integers(0, 30))
def test_appends_are_consecutive_chained_and_readable_from_anywhere(
    make: Make, batches: list[tuple[list[int], int]], after: int, limit: int | None
) -> None:
    expected: list[tuple[int, int, bytes, bytes]] = []
    previous = bytes(32)
    with make() as journal:
        for sizes, at_ms in batches:
            events = [sized(number, size) for number, size in enumerate(sizes)]
            last = journal.append(events, at_ms)
            for event in events:
                position = len(expected) + 1
                previous = _digest(previous, position, at_ms, event)
                expected.append((position, at_ms, encode_event(event)[2], previous))
            assert last == len(expected)
            assert journal.head() == Head(position=last, digest=previous)
        found = [(r.position, r.at_ms, r.body, r.digest) for r in journal.read()]
        assert found == expected
        part = [r.position for r in journal.read(after=after, limit=limit)]
        stop = None if limit is None else after + limit
        assert part == [row[0] for row in expected[after:stop]]
        verification = journal.verify()
        assert verification.problems == ()
        assert (verification.rows, verification.head) == (len(expected), journal.head())


def test_reading_crosses_chunks(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.journal.rows.CHUNK_ROWS", 3)
    monkeypatch.setattr("steersman.journal.rows.CHUNK_BYTES", 5_000)
    journal.append([sized(n, 4_000 if n % 5 == 0 else 1) for n in range(20)], at_ms=1)
    assert [record.position for record in journal.read()] == list(range(1, 21))
    assert [record.position for record in journal.read(after=7, limit=8)] == list(range(8, 16))


def test_reading_goes_on_while_events_are_added(journal: Journal) -> None:
    journal.append([sized(1), sized(2)], at_ms=1)
    reading = journal.read()
    assert next(reading).position == 1
    journal.append([sized(3)], at_ms=2)
    assert [record.position for record in reading] == [2]
    assert [record.position for record in journal.read(after=2)] == [3]


def test_an_append_that_cannot_be_stored_leaves_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append([sized(1)], at_ms=1)
    before = journal.head()
    monkeypatch.setattr(chain.make_records, "__kwdefaults__", {"bytes_max": 1_000})
    with pytest.raises(JournalWriteError, match="larger than the journal takes") as caught:
        journal.append([sized(2), sized(3, 1_000), sized(4)], at_ms=2)
    assert caught.value.code == "event-too-large"
    assert journal.head() == before
    assert journal.append([sized(5)], at_ms=3) == 2
    assert [record.at_ms for record in journal.read()] == [1, 3]


def test_threads_append_without_gaps_and_calls_stay_together(journal: Journal) -> None:
    last: dict[int, list[int]] = {number: [] for number in range(4)}

    def work(number: int) -> None:
        for turn in range(15):
            last[number].append(journal.append([sized(number * 100 + turn)] * 3, at_ms=number))

    threads = [threading.Thread(target=work, args=(number,)) for number in last]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = list(journal.read())
    assert len(records) == 4 * 15 * 3
    for number, positions in last.items():
        for position in positions:
            assert {record.at_ms for record in records[position - 3 : position]} == {number}
    assert journal.verify().problems == ()


def test_images_come_back_newest_first_and_only_to_their_build(journal: Journal) -> None:
    journal.append([sized(n) for n in range(10)], at_ms=1)
    journal.save_image(4, "one", b"four")
    assert journal.load_image("one") == (4, b"four")
    assert journal.load_image("two") is None
    journal.save_image(8, "one", b"eight" * 1_000)
    journal.save_image(8, "one", b"eight, again")
    assert journal.load_image("one") == (8, b"eight, again")
    journal.save_image(9, "two", b"")
    journal.save_image(10, "two", b"ten")
    assert journal.load_image("two") == (10, b"ten")
    assert journal.load_image("one") is None, "two images are kept"


def test_an_image_of_what_was_not_acknowledged_is_a_programmers_error(journal: Journal) -> None:
    journal.append([sized(1)], at_ms=1)
    for position in (-1, 2):
        with pytest.raises(AssertionError):
            journal.save_image(position, "build", b"")
    journal.save_image(0, "build", b"nothing yet")
    assert journal.load_image("build") == (0, b"nothing yet")


def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.append([sized(1)], at_ms=1)
    journal.close()
    journal.close()
    calls: list[Callable[[], object]] = [
        lambda: journal.append([sized(2)], at_ms=2),
        journal.head,
        lambda: list(journal.read()),
        journal.verify,
        lambda: journal.save_image(1, "build", b""),
        lambda: journal.load_image("build"),
    ]
    for call in calls:
        with pytest.raises(JournalError, match="closed"):
            call()


def test_implementations_agree_to_the_byte(tmp_path: Path) -> None:
    memory = MemoryJournal()
    with contextlib.closing(SqliteJournal.open(tmp_path)) as stored:
        for event in one_of_each():
            memory.append([event], at_ms=9)
            stored.append([event], at_ms=9)
        assert list(stored.read()) == list(memory.read())
        assert stored.verify() == memory.verify()
