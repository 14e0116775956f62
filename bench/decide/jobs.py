"""The order of gangs of unknown duration, beside the orders people use today and two that know the durations.

    python -m bench.decide.jobs              both loads, every policy; some minutes
    python -m bench.decide.jobs --short      Steersman and Tiresias alone
    python -m bench.decide.jobs --json       the figures on stdout, too

The table is on stderr.

Theory: the trace is Philly by virtual cluster (Gavel's conversion), the rounds are those of
`sim.replay.jobs_rounds` for every policy, and the bound is that of `sim.replay.bounds_jobs`. The baselines:

    Tiresias LAS       least attained GPU-service in three queues (below 8 and 80 GPU-hours), first come first
                       served within, preemptive (Gu et al., NSDI'19)
    FIFO + backfill    first come first served, what does not fit is passed over, nothing is preempted
    SRSF oracle        shortest remaining GPU-service first, preemptive; it is told the durations

"Steersman, no model" does not look at the model that a job trains. Its model tells much of a job's
duration in this trace, which may be of the trace's making; without it is the careful figure.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.decide.command import command
from steersman.sim.replay import jobs
from steersman.sim.replay.jobs import MEANS, Asked, Trace
from steersman.sim.replay.jobs_rounds import Active, Policy, Steersman
from steersman.sim.replay.result import silent

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = "p2_jobs/philly_gavel_jobs.csv.gz"
LOADS = (0.8, 1.0)
HOUR_S = 3600
LAS_QUEUES_S = (8 * HOUR_S, 80 * HOUR_S)
"""GPU-seconds up to which a job stays in the first and in the second queue."""
HEADS = "load|policy|JCT / bound|p99 slowdown|restarts a job|JCT h|worst VC|its JCT / bound"

Key = Callable[[Active], tuple[float, ...]]


def tiresias_las(job: Active) -> tuple[float, ...]:
    """Two-dimensional least attained service, discretised."""
    service_s = job.attained_s * job.gang.gpus
    return (sum(service_s >= limit_s for limit_s in LAS_QUEUES_S), job.gang.arrival_s)


def srsf_oracle(job: Active) -> tuple[float, ...]:
    """What is left, in GPU-seconds: nobody can know it."""
    return (job.left_s * job.gang.gpus,)


def fifo_backfill(job: Active) -> tuple[float, ...]:
    """Who runs, runs on; then by arrival."""
    return (not job.running, job.gang.arrival_s)


class Keyed:
    """All that is there by a key, and each that still fits."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def choose(self, active: Mapping[int, Active], capacity: int, now_s: float) -> Sequence[int]:
        del now_s
        free, chosen = capacity, []
        for _, number in sorted((self._key(job), number) for number, job in active.items()):
            gpus = active[number].gang.gpus
            if gpus <= free:
                chosen.append(number)
                free -= gpus
            if not free:
                break
        return chosen

    def came(self, job: Active) -> None:
        """Nothing is remembered."""

    served = paused = ended = came


class Contender(NamedTuple):
    """A policy, the part of its figures' names, and whether it is measured in the short run."""

    words: str
    name: str
    make: Callable[[], Policy]
    short: bool


CONTENDERS = (
    Contender("Steersman", "", Steersman, True),
    Contender("Steersman, no model", "no_model_", lambda: Steersman(use_model=False), False),
    Contender("Tiresias LAS", "tiresias_", lambda: Keyed(tiresias_las), True),
    Contender("FIFO + backfill", "fifo_", lambda: Keyed(fifo_backfill), False),
    Contender("SRSF oracle", "srsf_oracle_", lambda: Keyed(srsf_oracle), False),
)


def traces() -> Path | None:
    """The trace, or None when it is not there."""
    named = os.environ.get("STEERSMAN_TRACES")
    folder = Path(named) if named else ROOT.parent / "shared" / "traces"
    return next((path for path in (folder / "open" / FILE, folder / FILE) if path.is_file()), None)


def measure(short: bool = False) -> dict[str, float]:
    """Figures by name: `jobs_<policy>_<metric>_load_<percent>`; without a name of a policy, Steersman's."""
    path = traces()
    if path is None:
        sys.stderr.write(f"jobs: no {FILE}; STEERSMAN_TRACES names the folder of the traces\n")
        return {}
    trace = jobs.wanted(Asked(jobs=path), jobs.read(path))
    table = _table(trace)
    figures: dict[str, float] = {}
    for load in LOADS:
        for contender in CONTENDERS:
            if contender.short or not short:
                metrics = jobs.measure(trace.vcs, load, contender.make, silent)
                table.add_row(*_row(load, contender.words, metrics), end_section=contender is CONTENDERS[-1])
                suffix = f"load_{load * 100:.0f}"
                figures |= {f"jobs_{contender.name}{name}_{suffix}": metrics[name] for name in MEANS}
    Console(width=None if sys.stderr.isatty() else 130, stderr=True).print(table)
    return figures


def _table(trace: Trace) -> Table:
    count = sum(len(gangs) for gangs in trace.vcs.values())
    table = Table(
        title=f"{count:,} jobs of {len(trace.vcs)} virtual clusters, each on its own; means over them"
    )
    for place, head in enumerate(HEADS.split("|")):
        table.add_column(head, justify="left" if place in (1, 6) else "right")
    return table


def _row(load: float, words: str, metrics: Mapping[str, Any]) -> Sequence[str]:
    vcs = metrics["vcs"]
    worst = max(vcs, key=lambda vc: vcs[vc]["jct_over_bound"])
    numbers = [f"{metrics[name]:.{places}f}" for name, places in zip(MEANS, (3, 1, 2, 2), strict=True)]
    return (f"{load:g}", words, *numbers, worst, f"{vcs[worst]['jct_over_bound']:.3f}")


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
