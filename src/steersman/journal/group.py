"""Group commit: many tasks append, one transaction stores what they brought, each hears its own position.

A durable write costs a disk's sync whether it holds one event or a hundred. While one transaction is being
synced (in a thread of its own, so the event loop runs on), the appends that arrive wait in a bounded queue;
the next transaction takes all of them. Events of one append stay together and in order.

A full queue refuses at once with a retryable error: the disk is slower than what wants to be recorded, and
waiting without bound would only hide it. When a transaction fails every append in it gets the error.

An append whose task is cancelled while it waits is dropped; once its transaction has begun it is stored
all the same, and only nobody hears of it.
"""

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from steersman.model.errors import JournalError, JournalWriteError
from steersman.model.events import Event
from steersman.ports.journal import Journal

QUEUE_APPENDS_MAX = 4_096
"""Appends that may wait."""

BATCH_EVENTS_MAX = 8_192
"""Events of one transaction; a single append may be larger and then goes alone."""


class _Waiting(msgspec.Struct, frozen=True, kw_only=True):
    events: tuple[Event, ...]
    done: "asyncio.Future[int]"


class GroupCommit:
    """Appends from any number of tasks of one event loop. Use as ``async with``; it does not own the journal.

    `now_ms` gives the time that a transaction's events are recorded with (epoch milliseconds).
    """

    def __init__(
        self,
        journal: Journal,
        now_ms: Callable[[], int],
        *,
        queue_appends_max: int = QUEUE_APPENDS_MAX,
        batch_events_max: int = BATCH_EVENTS_MAX,
    ) -> None:
        self._journal = journal
        self._now_ms = now_ms
        self._queue_appends_max = queue_appends_max
        self._batch_events_max = batch_events_max
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "GroupCommit":
        self._worker = asyncio.create_task(self._run(), name="journal-group-commit")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @property
    def waiting(self) -> int:
        """Appends in the queue: the journal's lag, for the metrics."""
        return len(self._queue)

    async def append(self, events: Sequence[Event]) -> int:
        """Store events durably; returns the position of the last.

        Raises JournalWriteError: with code ``journal-busy`` when the queue is full and nothing was tried;
        otherwise as the journal did. Raises JournalError when closed.
        """
        if self._closing or self._worker is None:
            raise JournalError("the journal takes no more events: it is closed", code="journal-closed")
        if len(self._queue) >= self._queue_appends_max:
            raise JournalWriteError(
                f"the journal is behind: {len(self._queue)} appends are waiting for the disk",
                hint="nothing of this call was stored; try again shortly",
                code="journal-busy",
            )
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(events=tuple(events), done=done))
        self._arrived.set()
        return await done

    async def close(self) -> None:
        """Take no more, store what waits, and end."""
        self._closing = True
        self._arrived.set()
        if self._worker is not None:
            await asyncio.wait([self._worker])

    async def _run(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="journal") as thread:
            try:
                while not (self._closing and not self._queue):
                    await self._arrived.wait()
                    self._arrived.clear()
                    while batch := self._take():
                        await self._store(batch, thread)
            finally:
                self._closing = True
                self._abandon()

    def _take(self) -> list[_Waiting]:
        """As many waiting appends as one transaction may hold, in order; at least one if any waits."""
        batch: list[_Waiting] = []
        count = 0
        while self._queue:
            first = self._queue[0]
            if batch and count + len(first.events) > self._batch_events_max:
                break
            self._queue.popleft()
            if not first.done.done():
                batch.append(first)
                count += len(first.events)
        return batch

    async def _store(self, batch: Sequence[_Waiting], thread: concurrent.futures.Executor) -> None:
        events = [event for waiting in batch for event in waiting.events]
        loop = asyncio.get_running_loop()
        stored = loop.run_in_executor(thread, self._append, events)
        try:
            # Not awaited directly: whatever it raised belongs to those who wait, not to this task.
            await asyncio.wait([stored])
        except asyncio.CancelledError:
            _fail(batch, _cut_off())
            raise
        error = stored.exception()
        if error is not None:
            _fail(batch, error)
            return
        position = stored.result() - len(events)
        for waiting in batch:
            position += len(waiting.events)
            if not waiting.done.done():
                waiting.done.set_result(position)

    def _append(self, events: Sequence[Event]) -> int:
        return self._journal.append(events, self._now_ms())

    def _abandon(self) -> None:
        """The worker was cancelled: nobody will store what still waits."""
        waiting = list(self._queue)
        self._queue.clear()
        _fail(waiting, _cut_off())


def _fail(batch: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)


def _cut_off() -> JournalError:
    return JournalError(
        "the journal's writer was cancelled; whether these events were stored is told by the journal only",
        code="journal-closed",
    )
