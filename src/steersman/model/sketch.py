"""Quantiles that can be added and subtracted: DDSketch (Masson, Rim, Lee, VLDB 12(12), 2019).

A value lands in the bucket ceil(log_gamma(value)); a bucket's middle is within `ERROR` of every value in it.
Two sketches are merged by adding counts, and what came since an earlier look is the difference of counts.
Buckets are a plain dict, so that a sketch is JSON and the hot path is one dict update.
"""

from collections.abc import Mapping
from math import ceil, log

ERROR = 0.01
"""Relative error of every quantile."""
GAMMA = (1 + ERROR) / (1 - ERROR)
LOG_GAMMA = log(GAMMA)

Sketch = Mapping[int, int]


def bucket(value: float) -> int:
    """The bucket of a positive value; anything below 1 counts as 1."""
    return ceil(log(value) / LOG_GAMMA) if value > 1 else 0


def merge(*sketches: Sketch) -> dict[int, int]:
    """All values of all of them."""
    counts: dict[int, int] = {}
    for sketch in sketches:
        for index, count in sketch.items():
            counts[index] = counts.get(index, 0) + count
    return counts


def since(later: Sketch, earlier: Sketch) -> dict[int, int]:
    """The values of `later` that `earlier`, an older state of the same sketch, did not have yet."""
    counts = ((index, count - earlier.get(index, 0)) for index, count in later.items())
    return {index: count for index, count in counts if count > 0}


def quantile(sketch: Sketch, per_mille: int) -> float | None:
    """The value below which that share of all values lies; None without values."""
    total = sum(sketch.values())
    if total <= 0:
        return None
    rank = max(-(-total * per_mille // 1000), 1)
    seen = 0
    for index in sorted(sketch):
        seen += sketch[index]
        if seen >= rank:
            break
    return float(2 * GAMMA**index / (GAMMA + 1)) if index > 0 else 1.0
