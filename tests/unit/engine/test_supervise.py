"""The one supervisor: pauses that double, operating errors for ever, bugs only so many times."""

import asyncio
from collections.abc import Sequence

import pytest

from steersman.engine.supervise import BUGS_MAX, PAUSE_MS_BASE, PAUSE_MS_MAX, QUIET_MS, supervise
from steersman.model.errors import DriverError, SteersmanError


class Clock:
    """Time passes only by sleeping, and by what a task says it took."""

    def __init__(self) -> None:
        self.now = 0
        self.naps: list[int] = []

    def now_ms(self) -> int:
        return self.now

    async def sleep_ms(self, duration_ms: int) -> None:
        self.naps.append(duration_ms)
        self.now += duration_ms


Step = tuple[int, Exception | None]


def lived(steps: Sequence[Step]) -> tuple[list[int], list[str], Exception | None]:
    """A task goes through these (time taken, error): its naps, the reports, the error it ended with."""
    clock, reports, left = Clock(), [], list(steps)

    async def task() -> None:
        took, error = left.pop(0)
        clock.now += took
        if error is not None:
            raise error

    def report(name: str, error: BaseException) -> None:
        reports.append(f"{name}: {error}")

    try:
        asyncio.run(supervise("it", task, clock, report))
    except (SteersmanError, ValueError) as error:
        return clock.naps, reports, error
    assert not left
    return clock.naps, reports, None


def test_a_task_that_returns_is_over() -> None:
    assert lived([(5, None)]) == ([], [], None)


def test_an_operating_error_is_tried_again_without_end_and_ever_slower() -> None:
    naps, reports, ended = lived([(0, DriverError("blind"))] * 40 + [(0, None)])
    assert ended is None
    assert len(reports) == 40
    assert naps[:3] == [PAUSE_MS_BASE * 2, PAUSE_MS_BASE * 4, PAUSE_MS_BASE * 8]
    assert naps == sorted(naps)
    assert naps[-1] == PAUSE_MS_MAX


def test_a_bug_without_a_quiet_spell_ends_it() -> None:
    naps, reports, ended = lived([(0, ValueError("bug"))] * BUGS_MAX)
    assert isinstance(ended, ValueError)
    assert len(reports) == BUGS_MAX
    assert len(naps) == BUGS_MAX - 1


@pytest.mark.parametrize("error", [ValueError("bug"), DriverError("blind")])
def test_after_a_quiet_spell_it_counts_anew(error: Exception) -> None:
    naps, _, ended = lived([(QUIET_MS + 1, error)] * (3 * BUGS_MAX) + [(0, None)])
    assert ended is None
    assert set(naps) == {PAUSE_MS_BASE * 2}


def test_operating_errors_do_not_count_as_bugs() -> None:
    both: list[Step] = [(0, ValueError("bug")), (0, DriverError("blind"))]
    assert lived([*both * (BUGS_MAX - 1), (0, None)])[2] is None
    assert isinstance(lived(both * BUGS_MAX)[2], ValueError)


def test_a_cancellation_is_no_error() -> None:
    async def whole() -> list[str]:
        reports: list[str] = []

        async def task() -> None:
            await asyncio.Event().wait()

        watched = asyncio.create_task(supervise("it", task, Clock(), lambda name, _: reports.append(name)))
        await asyncio.sleep(0)
        watched.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watched
        return reports

    assert asyncio.run(whole()) == []
