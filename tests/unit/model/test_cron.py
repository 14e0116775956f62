"""Cron expressions against a plain reference that asks Python's calendar minute by minute."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.model.cron import MINUTE_MS, last_ms, next_ms, parse_cron
from steersman.model.errors import SpecError

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def plain_field(field: str, least: int, most: int) -> set[int]:
    """The numbers of a field, by trying each."""
    found = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        begin = least if span == "*" else int(low)
        end = most if span == "*" or (step and not high) else int(high or low)
        found |= {number for number in range(begin, end + 1) if (number - begin) % int(step or 1) == 0}
    return found


def names(text: str, at: datetime) -> bool:
    """Whether the expression names this minute."""
    minute, hour, day, month, weekday = text.split()
    of_day = at.day in plain_field(day, 1, 31)
    of_week = at.isoweekday() % 7 in {number % 7 for number in plain_field(weekday, 0, 7)}
    both = day.startswith("*") or weekday.startswith("*")
    return (
        at.minute in plain_field(minute, 0, 59)
        and at.hour in plain_field(hour, 0, 23)
        and at.month in plain_field(month, 1, 12)
        and (of_day and of_week if both else of_day or of_week)
    )


def _field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), number.map(str), span), st.integers(1, 20)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    part = st.one_of(number.map(str), span, stepped)
    return st.one_of(st.just("*"), part, st.lists(part, min_size=2, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(_field(0, 59), _field(0, 23), _field(1, 28), _field(1, 12), _field(0, 7)).map(
    " ".join
)


@given(text=EXPRESSIONS, minute=st.integers(0, 2_000_000), offset=st.sampled_from((0, 120, -210, 345)))
@settings(max_examples=150, deadline=None)
def test_last_and_next_are_named_and_nothing_between_them_is(text: str, minute: int, offset: int) -> None:
    """Both ends are named, no minute between is, looked at one by one as far as a week from now."""
    now = BEGIN + timedelta(minutes=minute, seconds=17)
    now_ms = int(now.timestamp() * 1_000)
    cron = parse_cron(text)
    last, following = last_ms(cron, now_ms, offset), next_ms(cron, now_ms, offset)
    assert last <= now_ms < following
    for found in (last, following):
        assert found % MINUTE_MS == 0
        assert names(text, _local(found, offset))
    assert last_ms(cron, last, offset) == last
    assert last_ms(cron, following, offset) == following
    begin = max(last + MINUTE_MS, now_ms // MINUTE_MS * MINUTE_MS - 2_000 * MINUTE_MS)
    end = min(following, now_ms + 2_000 * MINUTE_MS)
    assert not any(names(text, _local(at, offset)) for at in range(begin, end, MINUTE_MS))


def _local(at_ms: int, offset_minutes: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1_000, UTC) + timedelta(minutes=offset_minutes)


@pytest.mark.parametrize(
    ("text", "now", "last"),
    [
        ("0 0 29 2 *", (2023, 3, 1), (2020, 2, 29)),
        ("0 0 29 2 *", (2103, 3, 1), (2096, 2, 29)),
        ("0 0 29 2 */7", (2020, 1, 1), (2004, 2, 29)),
        ("30 4 1 jan MON", (2024, 1, 9), (2024, 1, 8, 4, 30)),
        ("0 0 1 1 *", (1969, 6, 1), (1969, 1, 1)),
        ("59 23 31 12 *", (2025, 1, 1), (2024, 12, 31, 23, 59)),
    ],
)
def test_the_calendar(text: str, now: tuple[int, int, int], last: tuple[int, ...]) -> None:
    now_ms = int(datetime(*now, tzinfo=UTC).timestamp() * 1_000)
    found = last_ms(parse_cron(text), now_ms, 0)
    assert datetime.fromtimestamp(found / 1_000, UTC) == datetime(*last, tzinfo=UTC)  # type: ignore[misc,arg-type]  # up to five numbers


def test_names_of_days_and_months() -> None:
    assert parse_cron("0 0 * jan-MAR mon,wed").weekdays == {1, 3}
    assert parse_cron("0 0 * jan-MAR mon,wed").months == {1, 2, 3}
    assert {parse_cron(f"0 0 * * {name}").weekdays for name in ("sun", "0", "7")} == {frozenset({0})}


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "1,, * * * *", "-1 * * * *", "1-2-3 * * * *",
        "1/ * * * *", "1- * * * *", "²² * * * *", "001 * * * *", "* * 30 2 *", "* * 31 4,6 *", "@daily",
        f"{'0,' * 200}0 * * * *",
    ],
)  # fmt: skip
def test_what_is_no_cron_expression(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_cron(text)
    assert caught.value.hint
