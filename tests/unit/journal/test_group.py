"""Group commit: many tasks, few transactions, each hears its own position."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.contract.journal_events import sized

from steersman.journal import GroupCommit, MemoryJournal, SqliteJournal
from steersman.model.errors import JournalError, JournalWriteError
from steersman.model.events import Event


class Gated(MemoryJournal):
    """A journal whose disk is as slow as the test wants it to be, and counts transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.batches: list[int] = []
        self.failures: list[Exception] = []
        self.entered = threading.Event()

    def append(self, events: Sequence[Event], at_ms: int) -> int:
        self.entered.set()
        self.gate.acquire()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(len(events))
        return super().append(events, at_ms)


async def _until_entered(journal: Gated) -> None:
    """The worker is inside the journal, so whatever comes now waits for the next transaction."""
    await asyncio.to_thread(journal.entered.wait)
    journal.entered.clear()


def test_appends_that_wait_share_a_transaction_in_order() -> None:
    journal = Gated()

    async def scenario() -> list[int]:
        async with GroupCommit(journal, lambda: 77) as committer:
            first = asyncio.create_task(committer.append([sized(0)]))
            await _until_entered(journal)
            rest = [asyncio.create_task(committer.append([sized(n)] * (n % 3 + 1))) for n in range(1, 9)]
            await asyncio.sleep(0)
            assert committer.waiting == 8
            journal.gate.release(2)
            return [await first, *[await task for task in rest]]

    assert asyncio.run(scenario()) == [1, 3, 6, 7, 9, 12, 13, 15, 18]
    assert journal.batches == [1, 17]
    assert {record.at_ms for record in journal.read()} == {77}


def test_a_full_queue_refuses_and_says_to_try_again() -> None:
    journal = Gated()

    async def scenario() -> None:
        async with GroupCommit(journal, lambda: 1, queue_appends_max=2) as committer:
            tasks = [asyncio.create_task(committer.append([sized(0)]))]
            await _until_entered(journal)
            tasks += [asyncio.create_task(committer.append([sized(n)])) for n in (1, 2)]
            await asyncio.sleep(0)
            with pytest.raises(JournalWriteError, match="2 appends are waiting") as caught:
                await committer.append([sized(3)])
            assert caught.value.code == "journal-busy"
            assert "try again" in caught.value.hint
            journal.gate.release(10)
            assert await asyncio.gather(*tasks) == [1, 2, 3]
            assert await committer.append([sized(3)]) == 4

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [JournalWriteError("disk full"), ZeroDivisionError("a programmer's error")])
def test_a_failed_transaction_fails_all_in_it_and_only_them(error: Exception) -> None:
    journal = Gated()
    journal.failures = [error]

    async def scenario() -> None:
        async with GroupCommit(journal, lambda: 1) as committer:
            failing = [asyncio.create_task(committer.append([sized(n)])) for n in range(3)]
            await _until_entered(journal)
            later = asyncio.create_task(committer.append([sized(9)]))
            await asyncio.sleep(0)
            journal.gate.release(2)
            results = await asyncio.gather(*failing, return_exceptions=True)
            assert results == [error] * 3
            assert await later == 1

    asyncio.run(scenario())
    assert len(list(journal.read())) == 1


def test_transactions_are_bounded_and_a_large_append_goes_alone() -> None:
    journal = Gated()

    async def scenario() -> list[int]:
        async with GroupCommit(journal, lambda: 1, batch_events_max=5) as committer:
            tasks = [asyncio.create_task(committer.append([sized(0)]))]
            await _until_entered(journal)
            sizes = (2, 3, 1, 9, 4, 2)
            tasks += [asyncio.create_task(committer.append([sized(n)] * n)) for n in sizes]
            await asyncio.sleep(0)
            journal.gate.release(10)
            return list(await asyncio.gather(*tasks))

    assert asyncio.run(scenario()) == [1, 3, 6, 7, 16, 20, 22]
    assert journal.batches == [1, 5, 1, 9, 4, 2]


def test_a_cancelled_append_that_still_waits_is_not_stored() -> None:
    journal = Gated()

    async def scenario() -> None:
        async with GroupCommit(journal, lambda: 1) as committer:
            begun = asyncio.create_task(committer.append([sized(0)]))
            await _until_entered(journal)
            waiting = asyncio.create_task(committer.append([sized(1)]))
            last = asyncio.create_task(committer.append([sized(2)]))
            await asyncio.sleep(0)
            waiting.cancel()
            begun.cancel()
            await asyncio.sleep(0)
            journal.gate.release(2)
            assert await last == 2
            assert begun.cancelled()

    asyncio.run(scenario())
    assert [record.body for record in journal.read()] == [
        b'{"type":"action-failed","decision":"0","detail":""}',
        b'{"type":"action-failed","decision":"2","detail":""}',
    ], "what had begun is stored, what waited is not"


def test_closing_stores_what_waits_and_takes_no_more() -> None:
    journal = Gated()

    async def scenario() -> None:
        committer = GroupCommit(journal, lambda: 1)
        with pytest.raises(JournalError, match="takes no more"):
            await committer.append([sized(0)])
        await GroupCommit(journal, lambda: 1).close()
        async with committer:
            tasks = [asyncio.create_task(committer.append([sized(n)])) for n in range(4)]
            await _until_entered(journal)
            closing = asyncio.create_task(committer.close())
            await asyncio.sleep(0)
            with pytest.raises(JournalError, match="takes no more"):
                await committer.append([sized(9)])
            journal.gate.release(10)
            await closing
            assert await asyncio.gather(*tasks) == [1, 2, 3, 4]

    asyncio.run(scenario())


def test_a_cancelled_worker_leaves_nobody_waiting() -> None:
    journal = Gated()

    async def scenario() -> None:
        committer = GroupCommit(journal, lambda: 1)
        await committer.__aenter__()
        begun = asyncio.create_task(committer.append([sized(0)]))
        await _until_entered(journal)
        waiting = asyncio.create_task(committer.append([sized(1)]))
        await asyncio.sleep(0)
        assert committer._worker is not None
        committer._worker.cancel()
        journal.gate.release(1)
        for task in (begun, waiting):
            with pytest.raises(JournalError, match="cancelled"):
                await task
        with pytest.raises(JournalError, match="takes no more"):
            await committer.append([sized(2)])
        await committer.close()

    asyncio.run(scenario())


def test_many_writers_on_the_real_journal(tmp_path: Path) -> None:
    journal = SqliteJournal.open(tmp_path)
    heard: dict[int, list[int]] = {}

    async def write(committer: GroupCommit, writer: int) -> None:
        for turn in range(10):
            position = await committer.append([sized(writer * 1_000 + turn, 50)])
            assert journal.head().position >= position, "acknowledged means durable"
            heard.setdefault(writer, []).append(position)

    async def scenario() -> None:
        async with GroupCommit(journal, lambda: 5) as committer:
            await asyncio.gather(*(write(committer, writer) for writer in range(16)))

    asyncio.run(scenario())
    records = list(journal.read())
    assert len(records) == 160
    for writer, positions in heard.items():
        assert positions == sorted(positions)
        for turn, position in enumerate(positions):
            assert f'"{writer * 1_000 + turn}"'.encode() in records[position - 1].body
    assert journal.verify().problems == ()
    journal.close()
