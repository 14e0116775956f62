"""Persistent tables: maps and sorted sequences whose old versions stay valid while a new one is made.

Theory of operation. State is folded in batches; each batch makes a new snapshot and must not disturb the
old one, nor copy all of it (copying a dict of 100,000 keys costs milliseconds, every cycle). So:

* `Table` is a fixed array of small dicts. An editor copies the array of pointers once and then only the
  buckets it touches. Which bucket holds a key follows from CRC-32 of the key, never from `hash`, so that
  layout does not depend on the interpreter's hash seed.
* `SortedSeq` is a sorted sequence cut into chunks of at most `CHUNK_MAX`. An editor copies only the
  chunks it touches.

Rules of this file: a value handed to a table is never changed in place. Iteration order of a `Table` is not
part of its meaning: whoever lets it reach an output sorts first. One editor, one owner, one `freeze`.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar
from zlib import crc32

V = TypeVar("V")

BUCKETS = 8192
CHUNK_MAX = 256

_EMPTY: dict[str, Any] = {}


class Table(Generic[V]):
    """An immutable map from str to V. `edit()` gives an editor; its `freeze()` gives the next table."""

    __slots__ = ("_buckets", "_count")

    def __init__(self, buckets: list[dict[str, V]] | None = None, count: int = 0) -> None:
        self._buckets = [_EMPTY] * BUCKETS if buckets is None else buckets
        self._count = count

    @classmethod
    def of(cls, items: Iterable[tuple[str, V]]) -> "Table[V]":
        """A table of these items; a later one wins."""
        editor = cls().edit()
        for key, value in items:
            editor[key] = value
        return editor.freeze()

    def get(self, key: str) -> V | None:
        return self._buckets[crc32(key.encode()) % BUCKETS].get(key)

    def __getitem__(self, key: str) -> V:
        return self._buckets[crc32(key.encode()) % BUCKETS][key]

    def __contains__(self, key: str) -> bool:
        return key in self._buckets[crc32(key.encode()) % BUCKETS]

    def __len__(self) -> int:
        return self._count

    def items(self) -> Iterator[tuple[str, V]]:
        """All items, in no order that means anything."""
        for bucket in filter(None, self._buckets):  # most buckets of a small home are empty
            yield from bucket.items()

    def sorted_items(self) -> list[tuple[str, V]]:
        """All items by key: O(n log n), for people and for images, not for deciders; of none at once."""
        return sorted(self.items(), key=lambda item: item[0]) if self._count else []

    def keys_unlike(self, other: "Table[V]") -> Iterator[str]:
        """Keys whose values may differ from another version's: those of the buckets that are not shared."""
        others = other._buckets  # noqa: SLF001 - of the same class
        for mine, theirs in zip(self._buckets, others, strict=True):
            if mine is not theirs:
                yield from sorted({*mine, *theirs})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]  # compared by content, so never a key

    def edit(self) -> "TableEditor[V]":
        return TableEditor(self._buckets, self._count)


class TableEditor(Generic[V]):
    """The next version of a table in the making."""

    __slots__ = ("_buckets", "_count", "_owned")

    def __init__(self, buckets: list[dict[str, V]], count: int) -> None:
        self._buckets = list(buckets)
        self._count = count
        self._owned: set[int] = set()

    def get(self, key: str) -> V | None:
        return self._buckets[crc32(key.encode()) % BUCKETS].get(key)

    def __getitem__(self, key: str) -> V:
        return self._buckets[crc32(key.encode()) % BUCKETS][key]

    def __contains__(self, key: str) -> bool:
        return key in self._buckets[crc32(key.encode()) % BUCKETS]

    def __setitem__(self, key: str, value: V) -> None:
        bucket = self._own(key)
        if key not in bucket:
            self._count += 1
        bucket[key] = value

    def __delitem__(self, key: str) -> None:
        bucket = self._own(key)
        del bucket[key]
        self._count -= 1

    def sorted_items(self) -> list[tuple[str, V]]:
        """All items by key, as they stand."""
        filled = filter(None, self._buckets)
        return sorted((item for bucket in filled for item in bucket.items()), key=lambda item: item[0])

    def _own(self, key: str) -> dict[str, V]:
        index = crc32(key.encode()) % BUCKETS
        if index not in self._owned:
            self._buckets[index] = dict(self._buckets[index])
            self._owned.add(index)
        return self._buckets[index]

    def freeze(self) -> Table[V]:
        """The finished table; the editor must not be used again."""
        self._owned.clear()
        return Table(self._buckets, self._count)


Entry = tuple[Any, ...]


def _since(chunks: Sequence[Sequence[Entry]], firsts: list[Entry], entry: Entry) -> Iterator[Entry]:
    at = max(bisect_left(firsts, entry) - 1, 0)
    for chunk in chunks[at : at + 1]:
        yield from chunk[bisect_left(chunk, entry) :]
    for chunk in chunks[at + 1 :]:
        yield from chunk


class SortedSeq:
    """An immutable sorted sequence of tuples without duplicates."""

    __slots__ = ("chunks", "firsts")

    def __init__(self, chunks: tuple[Sequence[Entry], ...] = ()) -> None:
        self.chunks = chunks
        self.firsts: list[Entry] = [chunk[0] for chunk in chunks]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "SortedSeq":
        ordered = sorted(entries)
        half = CHUNK_MAX // 2
        return cls(tuple(ordered[at : at + half] for at in range(0, len(ordered), half)))

    def __iter__(self) -> Iterator[Entry]:
        for chunk in self.chunks:
            yield from chunk

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def __bool__(self) -> bool:
        return bool(self.chunks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SortedSeq) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by content, so never a key

    def first(self) -> Entry | None:
        return self.chunks[0][0] if self.chunks else None

    def since(self, entry: Entry) -> Iterator[Entry]:
        """Entries at or after `entry`, in order."""
        return _since(self.chunks, self.firsts, entry)

    def edit(self) -> "SortedSeqEditor":
        return SortedSeqEditor(self)


class SortedSeqEditor:
    """The next version of a sorted sequence in the making."""

    __slots__ = ("_chunks", "_firsts", "_owned")

    def __init__(self, base: SortedSeq) -> None:
        self._chunks: list[Sequence[Entry]] = list(base.chunks)
        self._firsts = list(base.firsts)
        self._owned: set[int] = set()  # by identity of the chunk list we made

    def add(self, entry: Entry) -> None:
        """Insert; an entry that is there already is a programmer's error."""
        if not self._chunks:
            self._chunks.append([entry])
            self._firsts.append(entry)
            return
        at = max(bisect_left(self._firsts, entry) - 1, 0)
        chunk = self._own(at)
        insort(chunk, entry)
        self._firsts[at] = chunk[0]
        if len(chunk) > CHUNK_MAX:
            half = len(chunk) // 2
            self._chunks[at : at + 1] = [chunk[:half], chunk[half:]]
            self._firsts[at : at + 1] = [chunk[0], chunk[half]]
            self._owned.clear()

    def remove(self, entry: Entry) -> None:
        """Take out; an entry that is not there is a programmer's error."""
        at = bisect_left(self._firsts, entry)
        if at == len(self._firsts) or self._firsts[at] != entry:
            at -= 1
        assert at >= 0, entry
        chunk = self._own(at)
        index = bisect_left(chunk, entry)
        assert index < len(chunk), entry
        assert chunk[index] == entry, entry
        del chunk[index]
        if chunk:
            self._firsts[at] = chunk[0]
        else:
            del self._chunks[at]
            del self._firsts[at]
            self._owned.clear()

    def first(self) -> Entry | None:
        return self._firsts[0] if self._firsts else None

    def since(self, entry: Entry) -> Iterator[Entry]:
        """Entries at or after `entry`, in order. The sequence must not be edited meanwhile."""
        return _since(self._chunks, self._firsts, entry)

    def _own(self, at: int) -> list[Entry]:
        if at not in self._owned:
            self._chunks[at] = list(self._chunks[at])
            self._owned.add(at)
        chunk = self._chunks[at]
        assert isinstance(chunk, list)
        return chunk

    def freeze(self) -> SortedSeq:
        """The finished sequence; the editor must not be used again."""
        return SortedSeq(tuple(self._chunks))
