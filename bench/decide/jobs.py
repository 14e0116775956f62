"""The order of gangs of unknown duration, beside the orders people use today and two that know the durations.

Theory: the trace is Philly by virtual cluster (Gavel's conversion), the rounds are those of
`sim.replay.jobs_rounds` for every policy, and the bound is that of `sim.replay.bounds_jobs`. The baselines:

    Tiresias LAS       least attained GPU-service in three queues (below 8 and 80 GPU-hours), first come first
                       served within, preemptive (Gu et al., NSDI'19)
    FIFO + backfill    first come first served, what does not fit is passed over, nothing is preempted
    SRSF oracle        shortest remaining GPU-service first, preemptive; it is told the durations

"Steersman, no model" does not look at the model that a job trains. Its model tells much of a job's
duration in this trace, which may be of the trace's making; without it is the careful figure. In short:
Steersman and Tiresias alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from bench.decide.picture import Axis, Panel, Picture, Rule, Series
from bench.decide.problem import Cases, Problem, Report, measured, there
from steersman.sim.replay import jobs
from steersman.sim.replay.jobs import MEANS, Asked
from steersman.sim.replay.jobs_rounds import Active, Policy, Steersman
from steersman.sim.replay.result import silent

FILE = "philly_gavel_jobs.csv.gz"
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


class Case(NamedTuple):
    """A policy under a load. `at`: its place among the contenders, which no process can be sent."""

    path: Path
    load: float
    at: int


class Row(NamedTuple):
    """What a policy came to."""

    case: Case
    metrics: Mapping[str, Any]

    @property
    def contender(self) -> Contender:
        """Whose row it is."""
        return CONTENDERS[self.case.at]


def cases(folder: Path, short: bool) -> Cases[Case]:
    """Every contender under every load."""
    found, missing = there([folder / FILE])
    contenders = [at for at, one in enumerate(CONTENDERS) if one.short or not short]
    return Cases([Case(path, load, at) for path in found for load in LOADS for at in contenders], missing)


def run(case: Case) -> Row:
    """One policy over the whole trace."""
    trace = jobs.wanted(Asked(jobs=case.path), jobs.read(case.path))
    return Row(case, jobs.measure(trace.vcs, case.load, CONTENDERS[case.at].make, silent))


def report(rows: Sequence[Row]) -> Report:
    """Figures are `jobs_<policy>_<metric>_load_<percent>`; without a name of a policy, Steersman's."""
    figures = {
        f"jobs_{row.contender.name}{name}_load_{row.case.load * 100:.0f}": row.metrics[name]
        for row in rows
        for name in MEANS
    }
    return Report(figures, [_table(rows)], list(_rows(rows)), {"jobs": _picture(rows).svg()})


def _rows(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        means = {name: row.metrics[name] for name in MEANS}
        yield {"load": row.case.load, "policy": row.contender.words, **means}


def _table(rows: Sequence[Row]) -> Table:
    vcs = rows[0].metrics["vcs"]
    count = sum(vc["jobs"] for vc in vcs.values())
    table = Table(
        title=f"{count:,} jobs of {len(vcs)} virtual clusters, each on its own; means over them; bound: 1"
    )
    for place, head in enumerate(HEADS.split("|")):
        table.add_column(head, justify="left" if place in (1, 6) else "right")
    for row, later in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(*_cells(row), end_section=later is None or later.case.load != row.case.load)
    return table


def _cells(row: Row) -> Sequence[str]:
    vcs = row.metrics["vcs"]
    worst = max(vcs, key=lambda vc: vcs[vc]["jct_over_bound"])
    numbers = [f"{row.metrics[name]:.{places}f}" for name, places in zip(MEANS, (3, 1, 2, 2), strict=True)]
    return (
        f"{row.case.load:g}",
        row.contender.words,
        *numbers,
        worst,
        f"{vcs[worst]['jct_over_bound']:.3f}",
    )


def _picture(rows: Sequence[Row]) -> Picture:
    names = list(dict.fromkeys(row.contender.words for row in rows))
    loads = Axis("load", 0.7, 1.1, [(load, f"{load:g}") for load in LOADS])
    ratios = Axis("JCT / bound", 1.0, 3.0, [(at / 4, f"{at / 4:g}") for at in range(4, 13)])
    slow = Axis("p99 slowdown", 1.0, 3000.0, [(10.0**at, f"{10**at:,}") for at in range(4)], log=True)
    return Picture(
        "Jobs of unknown duration: completion time and slowdown",
        "means over the virtual clusters; low is good; SRSF is told the durations",
        names,
        [
            Panel("job completion time over the bound", loads, ratios, list(_series(rows, "jct_over_bound"))),
            Panel(
                "99th percentile of slowdown",
                loads,
                slow,
                list(_series(rows, "p99_slowdown")),
                [Rule(20.0, "goal")],
            ),
        ],
        2,
    )


def _series(rows: Sequence[Row], metric: str) -> Iterator[Series]:
    for name in dict.fromkeys(row.contender.words for row in reversed(rows)):
        points = [(row.case.load, row.metrics[metric]) for row in rows if row.contender.words == name]
        yield Series(name, points, line=True)
        yield Series(name, points)


PROBLEM = Problem("jobs", "p2_jobs", cases, run, report)


def measure(short: bool = False) -> dict[str, float]:
    """The figures by name; none without the trace."""
    return measured(PROBLEM, short=short)
