"""What was learned of how long jobs take, and when jobs last took turns: data of the fold, no choice."""

from typing import NamedTuple

import msgspec

from steersman.model.table import Table

BUCKETS = 48
"""Of attained service, log-spaced; where they begin is told in `state.durations`."""


class Tally(NamedTuple):
    """Of the jobs of a class that ended: how many, and the sum of their log durations in milli-nats."""

    ended: int
    log_milli: int


class Learned(NamedTuple):
    """What was learned of durations: whole numbers, folded from stints."""

    classes: Table[Tally]
    ends: tuple[int, ...]
    """By attained bucket less scale bucket, plus `BUCKETS`."""
    exposed_milli: tuple[int, ...]
    """Thousandths of a bucket that were served there."""
    stints: int


NOTHING_LEARNED = Learned(Table(), (0,) * (2 * BUCKETS), (0,) * (2 * BUCKETS), 0)


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """`learned` is all that is known, `used` the version of it that the order stands on.

    `turned_ms` is when the jobs that share accelerators were last held against one another, and `turned_at`
    the position of the `Observed` event of that cycle.
    """

    learned: Learned = NOTHING_LEARNED
    used: Learned = NOTHING_LEARNED
    turned_ms: int = 0
    turned_at: int = 0
