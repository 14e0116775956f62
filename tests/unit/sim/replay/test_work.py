"""How far a job is, how it saves and when it is done: laws, and cases that can be counted by hand."""

from hypothesis import given
from hypothesis import strategies as st

from steersman.sim.replay.books import BUCKETS_MAX, Curve
from steersman.sim.replay.work import (
    Progress,
    Saving,
    advance,
    along,
    first_save_at_ms,
    reaches_at_ms,
    saving_of,
)

SAVINGS = st.one_of(
    st.none(),
    st.builds(
        Saving,
        interval_ms=st.integers(min_value=1, max_value=50),
        save_ms=st.integers(min_value=0, max_value=20),
    ),
)
TIMES = st.integers(min_value=0, max_value=2_000)


def test_it_stands_still_while_it_saves() -> None:
    saving = Saving(interval_ms=10, save_ms=3)
    done = [advance(Progress(), at, saving).done_ms for at in (9, 10, 12, 13, 14, 25, 26)]
    assert done == [9, 10, 10, 10, 11, 20, 20]
    saved = [advance(Progress(), at, saving).saved_ms for at in (9, 10, 12, 13, 14, 25, 26)]
    assert saved == [0, 0, 0, 10, 10, 10, 20]
    assert advance(Progress(), 40, saving).saved_at_ms == 39
    assert first_save_at_ms(Progress(), saving) == 13
    assert [reaches_at_ms(Progress(), goal, saving) for goal in (0, 10, 11, 20, 21)] == [0, 10, 14, 23, 27]


def test_it_is_told_another_interval_on_the_way() -> None:
    found = along(100, [(0, 10), (20, 50)], 5)
    assert (found.done_ms, found.saved_ms, found.saved_at_ms) == (90, 60, 70)
    assert along(15, [(0, 10), (20, 50)], 5) == along(15, [(0, 10)], 5)
    assert (
        along(7, [], 5).done_ms == along(7, [(0, None)], 5).done_ms == along(7, [(0, 2)], None).done_ms == 7
    )
    assert saving_of(0, 5) == Saving(interval_ms=1, save_ms=5)


@given(SAVINGS, TIMES, TIMES)
def test_it_never_goes_back_and_never_works_faster_than_time(
    saving: Saving | None, one: int, more: int
) -> None:
    early = advance(Progress(), one, saving)
    late = advance(Progress(), one + more, saving)
    assert 0 <= early.saved_ms <= early.done_ms <= one
    assert early.done_ms <= late.done_ms <= early.done_ms + more
    assert early.saved_ms <= late.saved_ms
    assert advance(late, one, saving) == late, "time does not go back"


@given(SAVINGS, st.integers(min_value=1, max_value=2_000))
def test_it_is_done_at_the_first_instant_at_which_it_has_come_so_far(
    saving: Saving | None, goal: int
) -> None:
    at_ms = reaches_at_ms(Progress(), goal, saving)
    assert advance(Progress(), at_ms, saving).done_ms == goal
    assert advance(Progress(), at_ms - 1, saving).done_ms == goal - 1


@given(
    st.lists(st.tuples(TIMES, TIMES, st.integers(min_value=0, max_value=100)), max_size=20),
    st.integers(min_value=1, max_value=10**7),
)
def test_a_curve_keeps_its_sum_however_long_it_gets(pieces: list[tuple[int, int, int]], stretch: int) -> None:
    curve, now, whole = Curve(0), 0, 0
    for gap, length, rate in pieces:
        begin = now + gap * stretch
        now = begin + length * stretch
        curve.add(begin, now, rate)
        whole += length * stretch * rate
    assert sum(curve.sums) == whole
    assert len(curve.sums) <= BUCKETS_MAX
    assert len(curve.points()) == len(curve.sums)
