"""The laws of the forecast and of schedules over anything that may come."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import forecast_laws as laws

from steersman.decide.foresight import SETTLED_MS
from steersman.model.service import Window

AFTER_MS = st.sampled_from((0, 400, 1_000, 4_999, 5_000, 12_345, 100_000, 9_000_000))
NEWS = st.lists(
    st.tuples(AFTER_MS, st.one_of(st.none(), st.integers(0, 50_000)), st.booleans()), min_size=1, max_size=30
)
RATES = st.lists(
    st.tuples(
        st.sampled_from((1_000, 5_000, 7_000, 60_000, 300_000)),
        st.one_of(st.none(), st.integers(0, 90_000)).map(lambda rate: 4_000 if rate is None else rate),
    ),
    min_size=1,
    max_size=20,
)
WINDOWS = st.lists(
    st.builds(
        Window,
        cron=st.sampled_from(
            ("0 8 * * 1-5", "*/30 * * * *", "15 23 * * *", "0 0 1,15 * 0", "50 7-9 * * *", "0 22 * * 2,4")
        ),
        duration_ms=st.sampled_from((60_000, 600_000, 90 * 60_000, 180 * 60_000)),
        min_replicas=st.integers(1, 5),
        offset_minutes=st.sampled_from((0, 120, -210)),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
GAPS_MS = st.lists(st.one_of(st.integers(1, 120_000), st.integers(1, 40_000_000)), min_size=1, max_size=12)


@given(news=NEWS)
@settings(max_examples=60, deadline=None)
def test_ticks_hold_what_came(news: laws.News) -> None:
    laws.ticks_hold_what_came(news)


@given(rates=RATES)
@settings(max_examples=12, deadline=None)
def test_a_memo_changes_nothing(rates: list[tuple[int, int]]) -> None:
    laws.a_memo_changes_nothing(rates)


@given(rates=RATES)
@settings(max_examples=12, deadline=None)
def test_the_forecast_only_adds(rates: list[tuple[int, int]]) -> None:
    laws.the_forecast_only_adds(rates)


@given(moved_ms=st.integers(0, 10_000), still_ms=st.integers(0, 2 * SETTLED_MS))
def test_looks_are_as_said(moved_ms: int, still_ms: int) -> None:
    laws.looks_are_as_said(moved_ms, still_ms)


@given(windows=WINDOWS, gaps_ms=GAPS_MS)
@settings(max_examples=25, deadline=None)
def test_schedules_are_kept(windows: tuple[Window, ...], gaps_ms: list[int]) -> None:
    laws.schedules_are_kept(windows, gaps_ms)
