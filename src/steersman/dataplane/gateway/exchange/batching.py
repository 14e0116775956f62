"""How long a batch takes, learnt while serving, and how many rows it is best given.

Theory. A batch of n rows takes t(n) = a·n + b: rows cost alike, and a batch has a price of its own. (a, b) is
the solution of recursive least squares with forgetting FORGET, kept in information form: five decayed sums,
solved as two equations. While sizes hardly differ the sums do not tell a from b; then the last known line is
scaled to the mean that is seen, so that forgetting never turns noise into a slope. Beside the line stands the
99th percentile of what the last RESIDUALS batches took longer than predicted: t(n) + q is the promise.

n* is the largest n that pays and may be: at most `rows_max`; the promise within half of the latency
objective, for the other half goes to waiting for the batch under way; and at most the knee, the n from which
t(n)/n is within KNEE of its limit a, because beyond it a larger batch only adds latency. What a batch costs
beside the model counts as a part of b there. Sizes begin at 1 and double, and until SLOPE_ROWS rows were seen
in one batch the slope is not believed. Every
PROBE_EVERY batches a quarter more, or half of n*, is taken, so that drift of the line is seen.
"""

from bisect import bisect_left, insort
from collections import deque
from math import ceil, inf

FORGET = 0.98
"""Weight of a batch against the next: about the last fifty count."""
RESIDUALS = 128
QUANTILE = 0.99
KNEE = 0.05
PROBE_EVERY = 32
SLOPE_ROWS = 4
EXCITATION_MIN = 0.003
"""Sizes tell a from b when their variance is at least this share of their mean's square."""
BATCH_OVERHEAD_S = 100e-6
"""What a batch costs beside its model: two frames and two wake-ups."""
OBJECTIVE_SHARE = 0.5
OBJECTIVE_SHARE_MAX = 0.75
"""Of the latency objective for the batch itself; the larger when one row needs more than the smaller."""


class LatencyModel:
    """The model of one shape bucket of one pool. `star` is n*; 1 until something was measured."""

    __slots__ = (
        "_late",
        "_late_sorted",
        "_probe_up",
        "_sums",
        "a",
        "b",
        "batches",
        "largest",
        "measured_at",
        "objective_s",
        "q",
        "rows_max",
        "star",
    )

    def __init__(self, rows_max: int, objective_s: float | None) -> None:
        self.a = self.b = self.q = 0.0
        self.batches = self.largest = 0
        self.measured_at = 0.0
        self.star = 1
        self._probe_up = False
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # of 1, n, n², t, n·t
        self._late: deque[float] = deque()
        self._late_sorted: list[float] = []
        self.configure(rows_max, objective_s)

    def configure(self, rows_max: int, objective_s: float | None) -> None:
        """Take the service's limits; what was learnt stays."""
        self.rows_max, self.objective_s = rows_max, objective_s
        if self.batches:
            self._choose()

    def predict(self, rows: int) -> float:
        """Expected seconds of a batch; 0 while nothing was measured."""
        return self.a * rows + self.b

    def promise(self, rows: int) -> float:
        """Seconds that 99 of 100 batches keep to."""
        return self.a * rows + self.b + self.q

    def cost(self) -> float:
        """Seconds of a replica that one row takes in a batch of n*."""
        return self.a + self.b / self.star

    def rows_within(self, slack_s: float) -> int:
        """The most rows whose promise is within that time; 0 when not even one row's is."""
        room = slack_s - self.b - self.q
        if room < self.a or room <= 0:
            return 0
        return self.rows_max if self.a <= 0 else min(int(room / self.a), self.rows_max)

    def size(self, waiting: int, idle: int) -> int:
        """Rows for the next batch while `waiting` wait in the bucket and `idle` links have nothing to do."""
        limit = self.star
        if waiting > limit and self.batches % PROBE_EVERY == PROBE_EVERY - 1:
            self._probe_up = not self._probe_up
            more = min(limit + limit // 4 + 1, self.rows_max, self._within_objective())
            limit = more if self._probe_up else -(-limit // 2)
        if idle > 1 and self.batches:
            share = -(-waiting // idle)
            if share < limit and self.b < self.a * share:  # rows outweigh the batch: go side by side
                return max(share, 1)
        return limit

    def observe(self, rows: int, seconds: float, now: float) -> None:
        """One batch came back."""
        if self.batches:
            self._note_late(seconds - self.predict(rows))
        s0, s1, s2, t0, t1 = self._sums
        self._sums = (
            s0 * FORGET + 1.0,
            s1 * FORGET + rows,
            s2 * FORGET + rows * rows,
            t0 * FORGET + seconds,
            t1 * FORGET + rows * seconds,
        )
        self.batches += 1
        self.largest = max(self.largest, rows)
        self.measured_at = now
        self._solve()
        self._choose()

    def _note_late(self, late: float) -> None:
        ring, ordered = self._late, self._late_sorted
        if len(ring) == RESIDUALS:
            del ordered[bisect_left(ordered, ring.popleft())]
        ring.append(late)
        insort(ordered, late)
        self.q = max(ordered[ceil(QUANTILE * len(ordered)) - 1], 0.0)

    def _solve(self) -> None:
        s0, s1, s2, t0, t1 = self._sums
        mean, spread = s1 / s0, s2 * s0 - s1 * s1
        if spread < EXCITATION_MIN * s1 * s1:
            line = self.a * mean + self.b
            if line > 0:
                scale = t0 / s0 / line
                self.a, self.b = self.a * scale, self.b * scale
            else:  # the first sizes seen: take rows as all there is, which promises the least
                self.a, self.b = t0 / s1, 0.0
            return
        a = (t1 * s0 - s1 * t0) / spread
        b = (t0 - a * s1) / s0
        if a < 0:
            a, b = 0.0, t0 / s0
        elif b < 0:
            a, b = t1 / s2, 0.0
        self.a, self.b = a, b

    def _within_objective(self) -> int:
        objective_s = self.objective_s
        if objective_s is None:
            return self.rows_max
        rows = self.rows_within(objective_s * OBJECTIVE_SHARE)
        return rows or max(self.rows_within(objective_s * OBJECTIVE_SHARE_MAX), 1)

    def _choose(self) -> None:
        star: float = min(self.rows_max, 2 * self.largest)
        if self.largest >= min(SLOPE_ROWS, self.rows_max):
            fixed = self.b + BATCH_OVERHEAD_S
            knee = inf if self.a <= 0 else ceil(fixed / (KNEE * self.a))
            star = min(star, max(knee, 1), self._within_objective())
        self.star = max(int(star), 1)
