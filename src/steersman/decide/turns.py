"""Whose head is next: the heads of all shapes, by queue. A part of `schedule`.

Theory of operation. Within a queue the heads of its shapes stand in order of priority and age; between queues
`quota.Turn` decides, then priority and age again. A queue's turn depends on what it holds itself, so only the
queue that was served is placed anew. With no declared queue there is one group: priority and age alone.
"""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from steersman.decide.quota import Book, Turn, demand
from steersman.model.queue import Amounts
from steersman.model.snapshot import Shape
from steersman.model.table import Entry


class Head(NamedTuple):
    """The first workload of a shape that was not served yet, what it holds if it starts, and who follows."""

    entry: Entry
    shape: Shape
    asked: Amounts
    rest: Iterator[Entry]


class Turns:
    """The heads of a cycle. `asked` is worked out only where a queue is declared."""

    def __init__(self, book: Book, queues: Iterable[tuple[Shape, Iterable[Entry]]]) -> None:
        self._book = book
        self._groups: dict[str, list[Head]] = {}
        for shape, queue in queues:
            rest = iter(queue)
            asked = demand(shape) if book.queues else ()
            self._groups.setdefault(book.group(shape.queue), []).append(Head(next(rest), shape, asked, rest))
        self._turns: list[tuple[Turn, Entry, str]] = []
        for group, heads in self._groups.items():
            heapify(heads)
            self._line_up(group)

    def __bool__(self) -> bool:
        return bool(self._turns)

    def _line_up(self, group: str) -> None:
        heads = self._groups[group]
        if heads:
            head = heads[0]
            heappush(self._turns, (self._book.turn(head.shape.queue, head.asked), head.entry, group))

    def take(self) -> Head:
        """The head whose turn it is; until `done` with it, it is nowhere else."""
        return heappop(self._groups[heappop(self._turns)[2]])

    def done(self, head: Head, *, next_of_shape: bool) -> None:
        """Go on after a head: with the next of its shape, or without any other of its shape."""
        group = self._book.group(head.shape.queue)
        following = next(head.rest, None) if next_of_shape else None
        if following is not None:
            heappush(self._groups[group], head._replace(entry=following))
        self._line_up(group)
