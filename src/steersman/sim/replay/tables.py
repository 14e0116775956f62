"""Tables of recorded history, read strictly: CSV with a head, plain or gzip.

Theory of operation. A reader names the columns it needs and how each is read; other columns are passed over.
A row with too few or too many fields, a value that cannot be read, bytes that are no text, a file that
breaks off: each is an error with file and line, for a replay of half a trace would be believed. Rows that
can be read and make no sense to the problem are for the reader of that problem to refuse or to count as
dropped, by reason.
"""

import contextlib
import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from steersman.model.errors import TraceError

ROWS_MAX = 20_000_000
FIELD_CHARS_MAX = 10_000
GZIP_MAGIC = b"\x1f\x8b"
NUMBER_MAX = 1e18
FORMAT_HINT = "a trace is CSV, plain or gzip"
COLUMNS_HINT = "docs/guides/replay.md tells the columns and units of each trace"

Read = Callable[[str], Any]


class Row(NamedTuple):
    """One row: its line in the file, counted from 1, and its values in the order of the columns asked for."""

    line: int
    values: tuple[Any, ...]


def number(text: str) -> float:
    """A finite number. Raises ValueError."""
    value = float(text)
    if not math.isfinite(value) or abs(value) > NUMBER_MAX:
        raise ValueError("not a finite number")
    return value


def amount(text: str) -> float:
    """A number of at least 0. Raises ValueError."""
    value = number(text)
    if value < 0:
        raise ValueError("below 0")
    return value


def whole(text: str) -> int:
    """A whole number of at least 0; ``3.0`` is one. Raises ValueError."""
    value = amount(text)
    if value != int(value):
        raise ValueError("not a whole number")
    return int(value)


def word(text: str) -> str:
    """Text that is not empty. Raises ValueError."""
    if not text:
        raise ValueError("empty")
    return text


def read_table(path: Path, columns: Mapping[str, Read]) -> Iterator[Row]:
    """The rows of a file, in its order. Raises TraceError."""
    with _reading(path) as lines:
        yield from _rows(path, lines, columns)


def head_of(path: Path) -> tuple[str, ...]:
    """The names of a file's columns. Raises TraceError."""
    with _reading(path) as lines:
        return tuple(_head(path, lines))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """The file's lines; what is wrong with it as bytes becomes a TraceError."""
    lines = None
    csv.field_size_limit(FIELD_CHARS_MAX)
    try:
        with path.open("rb") as stream:
            packed = stream.peek(2).startswith(GZIP_MAGIC)
            with gzip.open(stream) if packed else stream as plain:
                text = io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
                lines = csv.reader(text, strict=True)
                yield lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as broken:
        message = f"{path.name}: the compressed file is cut off or damaged"
        raise TraceError(message, hint="copy it anew") from broken
    except UnicodeDecodeError as broken:
        raise TraceError(f"{path.name}: not text in UTF-8", hint=FORMAT_HINT) from broken
    except csv.Error as error:
        raise TraceError(f"{path.name}:{getattr(lines, 'line_num', 0)}: {error}", hint=FORMAT_HINT) from error
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise TraceError(message, hint="give the path of a trace file") from error


def _head(path: Path, lines: Any) -> list[str]:
    head: list[str] | None = next(lines, None)
    if not head:
        raise TraceError(
            f"{path.name}: the file is empty", hint="a trace begins with the names of its columns"
        )
    return head


def _rows(path: Path, lines: Any, columns: Mapping[str, Read]) -> Iterator[Row]:
    head = _head(path, lines)
    places = _places(path, head, columns)
    for fields in lines:
        if lines.line_num > ROWS_MAX:
            raise TraceError(f"{path.name}: more than {ROWS_MAX:,} rows", hint="replay a part of it")
        if fields:
            yield Row(lines.line_num, _values(path, lines.line_num, fields, head, places))


def _places(path: Path, head: Sequence[str], columns: Mapping[str, Read]) -> list[tuple[int, str, Read]]:
    doubled = sorted({name for name in head if head.count(name) > 1})
    if doubled:
        raise TraceError(f"{path.name}:1: column {doubled[0]!r} is there twice", hint="rename one of them")
    missing = [name for name in columns if name not in head]
    if missing:
        raise TraceError(
            f"{path.name}:1: there is no column {missing[0]!r}; there are {', '.join(head)[:200]}",
            hint=f"this replay reads {', '.join(columns)}",
        )
    return [(head.index(name), name, read) for name, read in columns.items()]


def _values(
    path: Path, line: int, fields: Sequence[str], head: Sequence[str], places: Sequence[tuple[int, str, Read]]
) -> tuple[Any, ...]:
    if len(fields) != len(head):
        raise TraceError(
            f"{path.name}:{line}: {len(fields)} fields where the head has {len(head)}",
            hint="is the file cut off?" if len(fields) < len(head) else "quote fields that hold commas",
        )
    values = []
    for place, name, read in places:
        try:
            values.append(read(fields[place]))
        except ValueError as error:
            message = f"{path.name}:{line}: {name} is {fields[place][:60]!r}: {error}"
            raise TraceError(message, hint=COLUMNS_HINT) from error
    return tuple(values)


def check_order(path: Path, line: int, before: float, now: float, what: str) -> None:
    """Refuse a row whose time lies before that of the row above. Raises TraceError."""
    if now < before:
        raise TraceError(
            f"{path.name}:{line}: {what} goes back from {before:.15g} to {now:.15g}",
            hint=f"sort the file by {what.split()[0]}",
        )


def check_new(path: Path, line: int, name: str, seen: set[str]) -> None:
    """Refuse a name that is there twice, and remember it. Raises TraceError."""
    if name in seen:
        raise TraceError(f"{path.name}:{line}: {name!r} is there twice", hint="names are unique in a trace")
    seen.add(name)
