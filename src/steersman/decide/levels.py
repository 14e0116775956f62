"""Replicas by level: how long each one stays once it is idle. A part of `capacity`.

Theory of operation. The k-th replica is needed while the work of the last minute needs k. When it no longer
is, to keep it costs its time, and to let it go costs the requests that wait for the next one to start: a ski
rental (R. Karp, IFIP 1992) for each level. A higher level is needed again less soon than a lower one, so that
one hold for all either pays for every burst or lets the first replica go too early. Here the k-th stays for
hold / k ** taper; which hold and taper, and whether a spare stands by, is learned like all else (`backtest`).
With few replicas, and above all when there may be none, this is what tells a lull from the end of the day.
"""

from math import ceil
from typing import NamedTuple

from steersman.decide.forecast import Past

LEVELS_MOST = 64
"""Levels that are told apart; with more replicas than that their number follows the minute alone."""
NEED = 1e-6
"""Replicas: so much less than a whole one is no need for one more."""


class Level(NamedTuple):
    """A candidate by level: the first replica's hold, its taper, and how many stand by if there are any."""

    hold_s: int
    taper: int
    spare: int


HOLDS_S, TAPERS, SPARES = (1_800, 3_600, 7_200, 14_400), (1, 2), (0, 1)
LEVELS = tuple(Level(hold, taper, spare) for hold in HOLDS_S for taper in TAPERS for spare in SPARES)
"""From half an hour to four hours, for the first."""
_STAYS = tuple(
    tuple(hold / level**taper for level in range(1, LEVELS_MOST + 1)) for hold in HOLDS_S for taper in TAPERS
)
"""Seconds that each level stays, by hold and taper in the order of LEVELS."""


def needed_again(needed: tuple[int, ...], past: Past, capacity_milli: int) -> tuple[int, ...]:
    """By level, the tick in which so many replicas were last needed."""
    need = min(needed_now(past, capacity_milli), LEVELS_MOST)
    return (past.ticks,) * need + needed[need:]


def needed_now(past: Past, capacity_milli: int) -> int:
    """Replicas that the work of the last minute needs."""
    return ceil(past.minute / capacity_milli - NEED)


def held_levels(needed: tuple[int, ...], past: Past, tick_s: int, now: int) -> tuple[int, ...]:
    """Replicas by candidate, in the order of LEVELS, when `now` are needed."""
    ages_s = [(past.ticks - last) * tick_s for last in needed]
    found: list[int] = []
    for stays in _STAYS:
        level = len(ages_s)
        while level > now and ages_s[level - 1] > stays[level - 1]:
            level -= 1
        held = max(level, now)
        found += [held + spare if held else 0 for spare in SPARES]
    return tuple(found)
