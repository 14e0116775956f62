"""The numbers the deciders obey. Journaled whole when they change, so that replay can change them."""

from typing import Literal

import msgspec


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy for a home. Times in milliseconds, shares in per-mille.

    Back-off doubles from `backoff_ms_base` to `backoff_ms_max` with the run of failures. A job that fails
    `crash_loop_failures` times in a row, each within `crash_loop_run_ms` of its start, is in a crash loop.
    A run is not preempted before `preempt_run_ms_min`, so that two jobs cannot swap for ever.
    `interruption_mtbf_ms_prior` is the mean time between interruptions assumed before any was seen; it
    weighs as much as one observed interruption. `fair_half_life_ms`: what a queue used that long ago counts
    half as much as what it uses now.

    What comes behind a workload that waits for room may not delay it (see `decide.backfill`); where nobody
    knows when that room comes free, once it has waited `backfill_patience_ms`. None, or by index: it may.

    A job that chooses between spot and on-demand is judged every `spot_period_ms`. A launch is taken to last
    `launch_ms_prior`, or longer when it was seen to, and `launch_ms_spare` is kept beside it for what happens
    between a decision and its effect.

    `order` says who goes first within a queue among jobs of the same priority that hold accelerators: the
    oldest, or the one with the best Gittins index, by durations that are learned. By the index they also take
    turns, at most once every `order_period_ms`; `restart_ms_prior` is what a restart is taken to cost.
    """

    backoff_ms_base: int = 1_000
    backoff_ms_max: int = 300_000
    crash_loop_failures: int = 5
    crash_loop_run_ms: int = 10_000
    preempt_run_ms_min: int = 2_000
    preempt_attempts_per_cycle: int = 16
    preempt_victims_max: int = 64
    preempt_nodes_max: int = 32
    starts_per_cycle: int = 2_048
    backfill_patience_ms: int | None = 600_000
    interruption_mtbf_ms_prior: int = 6 * 3_600_000
    spot_period_ms: int = 600_000
    launch_ms_prior: int = 300_000
    launch_ms_spare: int = 10_000
    fair_half_life_ms: int = 7 * 24 * 3_600_000
    order: Literal["age", "gittins"] = "age"
    order_period_ms: int = 300_000
    restart_ms_prior: int = 60_000
