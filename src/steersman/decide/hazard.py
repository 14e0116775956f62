"""How soon an up or a down run of a spot pool may end, after what was seen. Arithmetic of `spot`.

Theory of operation. A pool is a two-state process (obtainable, not obtainable) whose durations are heavy
tailed: the longer it was up (down), the longer it stays so. It is described by two hazards, up -> down and
down -> up, one per bucket of age; buckets double in width. Evidence is a count of endings and an exposure
per bucket, so the posterior is closed form (Gamma prior, Poisson counts). The prior is scale free: after a
run has lasted a, it lasts another a with probability 1/2 (J. R. Gott, Nature 363, 1993), which is a hazard
of 1 / (a + a0). One pseudo event sets the level common to all buckets, one more per bucket the shape.

The histories are folded by `state.pools`.

The checkpoint interval follows from the hazard of the age that a run has now (J. W. Young, CACM 17(9),
1974; J. T. Daly, FGCS 22(3), 2006).
"""

import itertools
from math import exp, inf, isqrt

from steersman.model.pools import AGE_EDGES_MS, AGES, PoolHistory, SpotHistory
from steersman.state.pools import age_bucket

HOUR_MS = 3_600_000
AGE_OFFSET_HOURS = 1 / 6
"""a0 of the prior: the youngest bucket, below which nothing is told apart; × 0.5 to × 1.5 is flat."""
SHAPE_EVENTS = 1.0
"""Pseudo events per bucket on the prior's shape: the weakest whole number; 0.5 to 2 is flat."""
LEVEL_EVENTS = 1.0
"""Pseudo events on the level that all buckets have in common; 0.5 to 2 is flat."""
COVER_EVENTS = 0.5
"""Pseudo events for and against "another pool was up" (Jeffreys' prior of a share)."""


def exposure_ms(pool: PoolHistory) -> int:
    """How long a pool was looked at."""
    return sum(pool.up_ms) + sum(pool.down_ms)


def run_bucket(pool: PoolHistory) -> int:
    """The bucket of the age that the pool's present run had when it was last looked at."""
    return age_bucket(pool.seen_ms - pool.since_ms)


def prior_hazards() -> tuple[float, ...]:
    """Endings per hour by bucket before anything was seen: 1 / (age + a0) at the middle of the bucket."""
    edges = [low / HOUR_MS for low in AGE_EDGES_MS]
    middle = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    return tuple(1 / (age + AGE_OFFSET_HOURS) for age in (*middle, edges[-1] * 1.5))


def hazards(endings: tuple[int, ...], exposed_ms: tuple[int, ...]) -> tuple[float, ...]:
    """Posterior mean of endings per hour by bucket: the level of all buckets first, then each one's shape."""
    prior = prior_hazards()
    expected = sum(ms / HOUR_MS * rate for ms, rate in zip(exposed_ms, prior, strict=True))
    level = (LEVEL_EVENTS + sum(endings)) / (LEVEL_EVENTS + expected)
    return tuple(
        (SHAPE_EVENTS + count) / (SHAPE_EVENTS / (level * rate) + ms / HOUR_MS)
        for count, ms, rate in zip(endings, exposed_ms, prior, strict=True)
    )


def up_hazards(history: SpotHistory) -> tuple[float, ...]:
    """Of a run on whichever pool was taken: the evidence of all pools together."""
    pools = [pool for _, pool in history.pools] or [PoolHistory()]
    endings = tuple(sum(column) for column in zip(*(pool.up_endings for pool in pools), strict=True))
    exposed = tuple(sum(column) for column in zip(*(pool.up_ms for pool in pools), strict=True))
    return hazards(endings, exposed)


def down_hazards(history: SpotHistory) -> tuple[float, ...]:
    """Of a time in which no pool is up."""
    return hazards(history.anyone.down_endings, history.anyone.down_ms)


def cover(history: SpotHistory) -> float:
    """The chance that a run that is lost finds another pool up; 0 with fewer than two pools."""
    if len(history.pools) < 2:
        return 0.0
    return (history.covered + COVER_EVENTS) / (history.losses + 2 * COVER_EVENTS)


def useful_hour_price(pool: PoolHistory, price: int, launch_ms: int, work_left_ms: int) -> float:
    """Price of an expected useful hour of a run taken now, as `price`: price × life / (life - launch).

    The life of the run is its expected length at the pool's hazards, cut off where the work would be done;
    infinite when it is not expected to outlive its launch.
    """
    rates, life, alive = hazards(pool.up_endings, pool.up_ms), 0.0, 1.0
    age, left_ms = max(0, pool.seen_ms - pool.since_ms), max(1, work_left_ms) + launch_ms
    for bucket in range(age_bucket(age), AGES):
        high = AGE_EDGES_MS[bucket + 1] if bucket + 1 < AGES else max(age, AGE_EDGES_MS[-1]) + left_ms
        width = min(high - max(age, AGE_EDGES_MS[bucket]), left_ms) / HOUR_MS
        survives = exp(-rates[bucket] * width)
        life += alive * (1 - survives) / rates[bucket]
        alive, left_ms = alive * survives, left_ms - int(width * HOUR_MS)
    useful = life - launch_ms / HOUR_MS
    return price * life / useful if useful > 0 else inf


def checkpoint_interval_ms(save_ms: int, hazard_per_hour: float, least_ms: int, most_ms: int) -> int:
    """How often a run should save, within bounds: sqrt(2 × save × M) - save while save < 2 M, else M.

    M is the mean time to interruption at the hazard of the age that the run has now. Young's interval with
    Daly's first correction.
    """
    assert save_ms >= 0, f"a save takes {save_ms} ms"
    assert 0 < least_ms <= most_ms, f"want 0 < {least_ms} <= {most_ms} (ms)"
    if hazard_per_hour <= 0:
        return most_ms
    mean_ms = int(HOUR_MS / hazard_per_hour)
    interval = isqrt(2 * save_ms * mean_ms) - save_ms if save_ms < 2 * mean_ms else mean_ms
    return min(most_ms, max(least_ms, interval))
