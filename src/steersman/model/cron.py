"""Cron expressions, by arithmetic alone: which minutes one names, and the last of them before a time.

Theory of operation. Five fields (minute, hour, day of month, month, day of week), each ``*`` or a list of
numbers, ranges and steps; months and days of the week also by the first three letters of their English
names, Sunday being 0 and 7. When both days are restricted a day that fits either is named, as in every cron
since Vixie's. The calendar is Gregorian and the time UTC, shifted by a fixed number of minutes: there is no
summer time here. Days are counted from 1970-01-01, a Thursday.
"""

from typing import NamedTuple

from steersman.model.errors import SpecError

MINUTE_MS = 60_000
HOUR_MINUTES, DAY_MINUTES = 60, 1_440
DAYS_LOOKED = 366 * 41
"""Between two 29ths of February that are the same day of the week are at most forty years."""
CHARS_MAX = 256
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_THURSDAY = 4
_HINT = "write five fields, as `0 8 * * 1-5`: minute, hour, day of the month, month, day of the week"


class Cron(NamedTuple):
    """The numbers that each field names. `either`: both kinds of days are restricted, and one is enough."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool


def parse_cron(text: str) -> Cron:
    """What an expression names. Raises SpecError, also when it names no minute at all."""
    fields = text.split()
    if len(fields) != 5 or len(text) > CHARS_MAX:
        raise SpecError(f"a cron expression has five fields, and {text[:40]!r} has {len(fields)}", hint=_HINT)
    minutes, hours = _numbers(fields[0], 0, 59, ()), _numbers(fields[1], 0, 23, ())
    days, months = _numbers(fields[2], 1, 31, ()), _numbers(fields[3], 1, 12, _MONTHS)
    weekdays = {number % 7 for number in _numbers(fields[4], 0, 7, _DAYS)}
    free_day, free_weekday = fields[2].startswith("*"), fields[4].startswith("*")
    if free_weekday and not any(min(days) <= _LONGEST[month - 1] for month in months):
        raise SpecError(
            f"no year has a day that {text!r} names", hint="see the day of the month, and the month"
        )
    return Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(weekdays),
        either=not (free_day or free_weekday),
    )


def last_ms(cron: Cron, now_ms: int, offset_minutes: int) -> int:
    """When the newest minute that is named, and that is not in the future, began."""
    return _found(cron, now_ms // MINUTE_MS + offset_minutes, offset_minutes, -1)


def next_ms(cron: Cron, now_ms: int, offset_minutes: int) -> int:
    """When the next minute that is named begins, after this one."""
    return _found(cron, now_ms // MINUTE_MS + offset_minutes + 1, offset_minutes, 1)


def _found(cron: Cron, minute: int, offset_minutes: int, way: int) -> int:
    """The first named minute from this one on, back (-1) or ahead (1); minutes are local, since 1970."""
    today = minute // DAY_MINUTES
    named = (
        day * DAY_MINUTES + hour * HOUR_MINUTES + at
        for day in range(today, today + way * DAYS_LOOKED, way)
        if _names_day(cron, day)
        for hour in cron.hours[::way]
        for at in cron.minutes[::way]
    )
    return (next(found for found in named if (found - minute) * way >= 0) - offset_minutes) * MINUTE_MS


def _names_day(cron: Cron, day: int) -> bool:
    month, of_month = _date(day)
    if month not in cron.months:
        return False
    weekday, dated = (day + _THURSDAY) % 7 in cron.weekdays, of_month in cron.days
    return weekday or dated if cron.either else weekday and dated


def _date(day: int) -> tuple[int, int]:
    """Month and day of the month (H. Hinnant, chrono-compatible low-level date algorithms, 2014)."""
    of_era = (day + 719_468) % 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return (month + 3 if month < 10 else month - 9), of_year - (153 * month + 2) // 5 + 1


def _numbers(field: str, least: int, most: int, names: tuple[str, ...]) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        low, high = (least, most) if span == "*" else (_number(first, least, names), None)
        if high is None:
            high = _number(last, least, names) if dash else most if slash else low
        every = _number(step, 1, ()) if slash else 1
        if low is None or high is None or not every or not least <= low <= high <= most:
            raise SpecError(f"{part!r} is no part of a cron expression here ({least} to {most})", hint=_HINT)
        found.update(range(low, high + 1, every))
    return found


def _number(text: str, least: int, names: tuple[str, ...]) -> int | None:
    if text.lower() in names:
        return names.index(text.lower()) + least
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 2 else None
