"""The queue in front of the cycle: bounds, order, batches, answers."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.engine import inbox
from steersman.engine.inbox import Inbox, answer_all, refuse_all
from steersman.model.errors import ConflictError, JournalWriteError
from steersman.model.events import Event, StopRequested
from steersman.model.ids import WorkloadName


def stop(number: int) -> StopRequested:
    return StopRequested(workload=WorkloadName(f"w{number}"))


def batch(size: int, first: int = 0) -> Sequence[Event]:
    return [stop(number) for number in range(first, first + size)]


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20))
def test_order_is_kept_and_every_answer_is_the_own_last_position(sizes: list[int], most: int) -> None:
    """However the submissions fall into batches: nothing is lost, doubled, split or out of order."""

    async def whole() -> None:
        box, stored, answers = Inbox(), [StopRequested(workload=WorkloadName("before"))], []
        for number, size in enumerate(sizes):
            answers.append(asyncio.create_task(box.submit(batch(size, number * 100))))
        await turns()
        assert len(box) == sum(sizes)
        while taken := box.take():
            events = [event for submission in taken for event in submission.events]
            assert len(taken) == 1 or len(events) <= most
            first = len(stored) + 1
            stored += [event for event in events if isinstance(event, StopRequested)]
            answer_all(taken, first)
        assert len(box) == 0
        for number, (size, answer) in enumerate(zip(sizes, answers, strict=True)):
            position = await answer
            assert stored[position - size : position] == batch(size, number * 100)

    honest, inbox.BATCH_EVENTS_MAX = inbox.BATCH_EVENTS_MAX, most
    try:
        asyncio.run(whole())
    finally:
        inbox.BATCH_EVENTS_MAX = honest


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox, "QUEUE_EVENTS_MAX", 3)

    async def whole() -> None:
        box = Inbox()
        waiting = asyncio.create_task(box.submit(batch(3)))
        await turns()
        with pytest.raises(ConflictError) as refused:
            await box.submit(batch(1))
        assert refused.value.code == "busy"
        assert refused.value.hint
        assert len(box) == 3
        answer_all(box.take(), 1)
        assert await waiting == 3
        again = asyncio.create_task(box.submit(batch(2)))
        await turns()
        answer_all(box.take(), 4)
        assert await again == 5

    asyncio.run(whole())


def test_who_has_gone_away_is_not_recorded() -> None:
    async def whole() -> None:
        box = Inbox()
        gone = asyncio.create_task(box.submit(batch(2)))
        stays = asyncio.create_task(box.submit(batch(1, 7)))
        await turns()
        gone.cancel()
        await turns()
        taken = box.take()
        assert [submission.events for submission in taken] == [(stop(7),)]
        assert len(box) == 0
        answer_all(taken, 1)
        assert await stays == 1

    asyncio.run(whole())


def test_an_answer_is_given_once() -> None:
    """Refusing what was answered, and answering what was cancelled, changes nothing."""

    async def whole() -> None:
        box = Inbox()
        first, second, third = (asyncio.create_task(box.submit(batch(1, number))) for number in range(3))
        await turns()
        taken = box.take()
        answer_all(taken[:1], 1)
        second.cancel()
        await turns()
        refuse_all(taken, JournalWriteError("full"))
        answer_all(taken, 9)
        assert await first == 1
        with pytest.raises(JournalWriteError):
            await third

    asyncio.run(whole())


def test_a_nudge_wakes_without_news_and_a_take_ends_it() -> None:
    async def whole() -> None:
        box = Inbox()
        waiting = asyncio.create_task(box.wait())
        await turns()
        assert not waiting.done()
        box.nudge()
        await waiting
        assert box.take() == []
        again = asyncio.create_task(box.wait())
        await turns()
        assert not again.done()
        again.cancel()

    asyncio.run(whole())


def test_after_the_end_everyone_is_told() -> None:
    async def whole() -> None:
        box = Inbox()
        waiting = asyncio.create_task(box.submit(batch(1)))
        await turns()
        box.close(ConflictError("over", code="ended"))
        for late in (waiting, asyncio.create_task(box.submit(batch(1)))):
            with pytest.raises(ConflictError, match="over"):
                await late
        assert len(box) == 0

    asyncio.run(whole())
