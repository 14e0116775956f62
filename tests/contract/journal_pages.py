"""Where the bytes of the event rows lie in an SQLite file: enough of the file format to flip each one."""

from collections.abc import Iterator

LEAF, INTERIOR = 0x0A, 0x02


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for size in range(1, 10):
        byte = data[at + size - 1]
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            break
    return value, at + size


def row_bytes(data: bytes, root: int) -> Iterator[int]:
    """Offsets of every byte of every row of a WITHOUT ROWID table: length, header, values, overflow."""
    page_size = int.from_bytes(data[16:18], "big")
    usable = page_size - data[20]
    yield from _page(data, root, page_size, usable)


def _page(data: bytes, number: int, page_size: int, usable: int) -> Iterator[int]:
    base = (number - 1) * page_size
    kind, count = data[base], int.from_bytes(data[base + 3 : base + 5], "big")
    assert kind in {LEAF, INTERIOR}
    first = base + (12 if kind == INTERIOR else 8)
    for index in range(count):
        cell = base + int.from_bytes(data[first + 2 * index : first + 2 * index + 2], "big")
        if kind == INTERIOR:
            yield from _page(data, int.from_bytes(data[cell : cell + 4], "big"), page_size, usable)
            cell += 4
        yield from _cell(data, cell, page_size, usable)
    if kind == INTERIOR:
        yield from _page(data, int.from_bytes(data[base + 8 : base + 12], "big"), page_size, usable)


def _cell(data: bytes, cell: int, page_size: int, usable: int) -> Iterator[int]:
    size, start = _varint(data, cell)
    largest, smallest = (usable - 12) * 64 // 255 - 23, (usable - 12) * 32 // 255 - 23
    local = size
    if size > largest:
        local = smallest + (size - smallest) % (usable - 4)
        local = local if local <= largest else smallest
    yield from range(cell, start + local)
    left, link = size - local, start + local
    while left:
        yield from range(link, link + 4)
        link = (int.from_bytes(data[link : link + 4], "big") - 1) * page_size
        part = min(left, usable - 4)
        yield from range(link + 4, link + 4 + part)
        left -= part
