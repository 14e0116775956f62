"""The bounded queue between everyone who has news and the one cycle that writes it down.

Theory of operation. Whoever has events calls `submit` and waits; the cycle takes everything that waits, up
to `BATCH_EVENTS_MAX`, stores it in one commit, and answers each waiter with the position of its last event.
That is the group commit: under load many submissions share one fsync, and none is answered before it.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from steersman.model.errors import ConflictError, SteersmanError
from steersman.model.events import Event

QUEUE_EVENTS_MAX = 100_000
BATCH_EVENTS_MAX = 4_096


class Submission:
    """Events of one caller and where to answer it."""

    __slots__ = ("answer", "events")

    def __init__(self, events: tuple[Event, ...], answer: asyncio.Future[int]) -> None:
        self.events = events
        self.answer = answer


class Inbox:
    """Submissions in order of arrival."""

    def __init__(self) -> None:
        self._waiting: deque[Submission] = deque()
        self._length = 0
        self._news = asyncio.Event()
        self._closed: SteersmanError | None = None

    def __len__(self) -> int:
        return self._length

    async def submit(self, events: Sequence[Event]) -> int:
        """Hand in events; returns their last position once they are durable.

        Raises ConflictError when the queue is full, JournalWriteError when they could not be stored.
        """
        if self._closed is not None:
            raise self._closed
        if self._length + len(events) > QUEUE_EVENTS_MAX:
            raise ConflictError(
                f"the control plane is behind: {self._length} events wait to be recorded",
                hint="try again in a few seconds",
                code="busy",
            )
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(Submission(tuple(events), answer))
        self._length += len(events)
        self._news.set()
        return await answer

    def close(self, error: SteersmanError) -> None:
        """Nobody will take anything any more: everyone who waits, or comes, is told this."""
        self._closed = error
        refuse_all(self._waiting, error)
        self._waiting.clear()
        self._length = 0

    def nudge(self) -> None:
        """Wake the cycle without an event."""
        self._news.set()

    async def wait(self) -> None:
        """Return when something waits or somebody nudged."""
        await self._news.wait()

    def take(self) -> list[Submission]:
        """Everything that waits, up to the size of a batch; at least one submission if there is any."""
        taken: list[Submission] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0].events) <= BATCH_EVENTS_MAX):
            submission = self._waiting.popleft()
            size += len(submission.events)
            if not submission.answer.cancelled():
                taken.append(submission)
        self._length -= size
        if not self._waiting:
            self._news.clear()
        return taken


def answer_all(submissions: Sequence[Submission], first: int) -> None:
    """Tell every waiter its last position; `first` is the position of the batch's first event."""
    position = first - 1
    for submission in submissions:
        position += len(submission.events)
        if not submission.answer.done():
            submission.answer.set_result(position)


def refuse_all(submissions: Iterable[Submission], error: SteersmanError) -> None:
    """Tell every waiter that nothing was stored."""
    for submission in submissions:
        if not submission.answer.done():
            submission.answer.set_exception(error)
