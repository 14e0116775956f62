"""The rate limit: never more than it says, and no less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.dataplane.gateway.http.gcra import STRIKES_ADDRESSES_MAX, Gcra, Strikes


@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.integers(0, 5_000), max_size=200))
def test_no_window_ever_has_more_than_the_burst_and_the_rate(
    per_s: int, burst: int, gaps_ms: list[int]
) -> None:
    limit = Gcra(1 / per_s, burst)
    now, admitted = 1_000.0, []
    for gap in gaps_ms:
        now += gap / 1000
        if not limit.take(now):
            admitted.append(now)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            span = admitted[last] - admitted[first]
            assert last - first + 1 <= burst + span * per_s + 1e-6


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 100))
def test_who_waits_as_told_is_let_in(per_s: int, burst: int, tries: int) -> None:
    limit, now = Gcra(1 / per_s, burst), 5.0
    for _ in range(tries):
        wait = limit.take(now)
        if wait:
            now += wait
            assert not limit.take(now)


def test_a_full_burst_passes_at_once_and_no_more() -> None:
    limit = Gcra(0.1, 7)
    assert [bool(limit.take(50.0)) for _ in range(9)] == [False] * 7 + [True] * 2
    assert limit.take(50.0) == pytest.approx(0.1)


def test_a_new_rate_gives_nothing_back() -> None:
    limit = Gcra(1.0, 3)
    for _ in range(3):
        limit.take(10.0)
    limit.set(1.0, 3)
    assert limit.take(10.0) > 0


def test_strikes_are_per_address_and_bounded() -> None:
    strikes = Strikes(10)
    assert [bool(strikes.take("a", 1.0)) for _ in range(12)] == [False] * 10 + [True] * 2
    assert not strikes.take("b", 1.0)
    assert not strikes.take("a", 62.0)
    for n in range(STRIKES_ADDRESSES_MAX + 10):
        strikes.take(f"x{n}", 62.0)
    assert not strikes.take("a", 62.0)  # forgotten, as the one not seen for longest
