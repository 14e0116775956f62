"""`spot-job` on the open zones: Steersman beside Uniform Progress, greedy, on-demand and the optimum.

Theory: every policy goes through the product's own simulator, so that the protocol is the same. Two tables.
All zones with one node and at least 100 h of record, deadlines of 52, 60, 72 and 96 h, 12 starts each; a
ratio is of the means over the starts, the mean is over the rows. And the protocol of the ADRS challenge on
those of its six zones that are there: 52 and 70 h, overheads of 0.02, 0.05 and 0.1 h, 30 starts that all
leave 70 h. Work is 48 h, a launch 0.1 h, spot 0.9731 and on-demand 3.06 USD an hour.

Baselines: `on-demand` from the first tick; `greedy` takes spot when it is there, waits otherwise, and goes
to on-demand at the last safe tick; `uniform-progress` is that of Z. Wu et al., NSDI 2024, with the strict
guarantee. In short: two starts of each.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Column, Table

from bench.decide.picture import Axis, Panel, Picture, Rule, Series
from bench.decide.problem import OURS, Cases, Problem, Report, measured, there
from bench.decide.spot_bound import least_cost
from steersman.decide.hazard import HOUR_MS
from steersman.decide.spot import IDLE, ON_DEMAND, JobView
from steersman.sim.replay.spot_job import (
    Asked,
    Bounds,
    Case,
    Chooser,
    Open,
    Outcome,
    bounds_of,
    case_of,
    metrics,
    simulate,
    starts_of,
    steersman,
    window,
)
from steersman.sim.replay.spot_zones import INDEX, read_zones
from steersman.sim.replay.tables import amount, read_table, word

DEADLINES_H = (52.0, 60.0, 72.0, 96.0)
OVERHEAD_H = 0.1
STARTS = 12
RECORD_H_MIN = 100.0
ADRS_DEADLINES_H = (52.0, 70.0)
ADRS_OVERHEADS_H = (0.02, 0.05, 0.1)
ADRS_SPAN_H = 70.0
ADRS_STARTS = 30
ADRS_COLLECTION = "aws-10-26-2022_1-node_"
ADRS_ZONES = tuple(
    f"{ADRS_COLLECTION}us-west-2{zone}"
    for zone in ("a_k80_8", "b_k80_1", "b_k80_8", "a_v100_1", "a_v100_8", "b_v100_1")
)
SHORT_STARTS = 2
NEAR = 1.3
"""Up to where the second picture looks."""


class Task(NamedTuple):
    """One row: a zone, or several as the pools of one job. `span_h`: what each start leaves of the record."""

    zones: tuple[Path, ...]
    deadline_h: float
    overhead_h: float
    starts: int
    span_h: float
    adrs: bool = False


class Row(NamedTuple):
    """What a task came to."""

    task: Task
    case: Case
    bounds: tuple[Bounds, ...]
    outcomes: Mapping[str, tuple[Outcome, ...]]

    def ratio(self, policy: str, *, exact: bool = False) -> float:
        """Mean cost over mean optimum."""
        best = sum(one.exact if exact else one.script for one in self.bounds)
        return sum(one.cost_usd_micro for one in self.outcomes[policy]) / best

    def late(self, policy: str) -> int:
        """How many jobs missed their deadline."""
        return sum(one.late for one in self.outcomes[policy])


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.csv.gz"


def zones_of(folder: Path) -> list[Path]:
    """Every zone with one node and a record that is long enough, in the order of the index."""
    columns = {"trace": word, "nodes": word, "hours": amount}
    return [
        _file(folder, trace)
        for _, (trace, nodes, hours) in read_table(folder / INDEX, columns)
        if nodes == "1-node" and hours >= RECORD_H_MIN
    ]


def on_demand(_case: Case) -> Chooser:
    """On-demand from the first tick on."""
    return lambda _job, _available: ON_DEMAND


def greedy(_case: Case) -> Chooser:
    """Spot when it is there, nothing otherwise, on-demand from the last safe tick on."""
    return lambda job, available: _guarded(job, available, _spot(job, available) or IDLE)


def uniform_progress(case: Case) -> Chooser:
    """Spot when it is there; on-demand when behind the line, kept until two launches ahead of it."""

    def choose(job: JobView, available: Open) -> str:
        want = _spot(job, available)
        done = case.work_ms - job.work_left_ms
        expected = job.now_ms * case.work_ms / job.deadline_ms
        ahead = (job.now_ms + 2 * job.overhead_ms) * case.work_ms / job.deadline_ms
        if want is None:
            behind = expected > done or (job.held == ON_DEMAND and ahead >= done)
            want = ON_DEMAND if behind else IDLE
        return _guarded(job, available, want)

    return choose


def _spot(job: JobView, available: Open) -> str | None:
    """The pool that is held, else the first that is open."""
    ready = [name for name, is_open in available if is_open]
    if job.held in ready:
        return job.held
    return ready[0] if ready else None


def _guarded(job: JobView, available: Open, want: str) -> str:
    """The strict guarantee: on-demand, or the spot that already works, from the last safe tick on."""
    left = (job.deadline_ms - job.now_ms) // job.period_ms
    need = -(-(job.work_left_ms + job.overhead_ms) // job.period_ms)
    if need < left:
        return want
    works = job.held not in (IDLE, ON_DEMAND) and job.launch_left_ms == 0
    return job.held if works and (job.held, True) in available else ON_DEMAND


POLICIES: Mapping[str, Callable[[Case], Chooser]] = {
    OURS: steersman,
    "uniform-progress": uniform_progress,
    "greedy": greedy,
    "on-demand": on_demand,
}


def run(task: Task) -> Row:
    """Every policy and the optimum from every start."""
    dropped: Counter[str] = Counter()
    zones = read_zones(task.zones, dropped, lambda _: None)
    asked = Asked(zone=task.zones, deadline_h=task.deadline_h, overhead_h=task.overhead_h)
    case = case_of(asked, zones, dropped)
    span = int(task.span_h * HOUR_MS / case.tick_ms)
    bounds: list[Bounds] = []
    outcomes: dict[str, list[Outcome]] = {name: [] for name in POLICIES}
    for start in starts_of(len(zones[0].up), span, task.starts):
        part = window(zones, start, case.ticks)
        bounds.append(bounds_of(part, case, least_cost))
        for name, policy in POLICIES.items():
            outcomes[name].append(simulate(part, case, policy(case)))
    return Row(task, case, tuple(bounds), {name: tuple(found) for name, found in outcomes.items()})


def cases(folder: Path, short: bool) -> Cases[Task]:
    """The rows of the table of all zones, then those of the ADRS protocol."""
    if not (folder / INDEX).is_file():
        return Cases([], [INDEX])
    starts, adrs_starts = (SHORT_STARTS, SHORT_STARTS) if short else (STARTS, ADRS_STARTS)
    zones, missing = there(zones_of(folder))
    adrs_zones, _ = there([_file(folder, name) for name in ADRS_ZONES])
    every = [
        Task((zone,), deadline, OVERHEAD_H, starts, deadline) for zone in zones for deadline in DEADLINES_H
    ]
    adrs = [
        Task((zone,), deadline, overhead, adrs_starts, ADRS_SPAN_H, adrs=True)
        for zone in adrs_zones
        for overhead in ADRS_OVERHEADS_H
        for deadline in ADRS_DEADLINES_H
    ]
    return Cases([*every, *adrs], missing)


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(Column("zone", min_width=41), "deadline h", "launch h", "jobs", title=title)
    for name in POLICIES:
        table.add_column(name, justify="right")
    for head in ("exact", "late"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            "+".join(path.name.removesuffix(".csv.gz") for path in row.task.zones),
            f"{row.task.deadline_h:g}",
            f"{row.task.overhead_h:g}",
            str(len(row.bounds)),
            *(f"{row.ratio(name):.4f}" for name in POLICIES),
            f"{row.ratio(OURS, exact=True):.4f}",
            str(row.late(OURS)),
        )
    table.add_section()
    means = [_mean([row.ratio(name) for row in rows]) for name in POLICIES]
    exact = _mean([row.ratio(OURS, exact=True) for row in rows])
    late = sum(row.late(OURS) for row in rows)
    jobs = sum(len(row.bounds) for row in rows)
    table.add_row("mean", "", "", str(jobs), *(f"{one:.4f}" for one in means), f"{exact:.4f}", str(late))
    return table


def _adrs_table(figures: Mapping[str, float]) -> Table:
    table = Table(
        "policy", "ADRS score", "cost USD", "late", title="ADRS protocol on the zones that are there"
    )
    for name in (*POLICIES, "optimum", "optimum, exact"):
        key = _key(name)
        cells = (figures.get(f"adrs_{part}_{key}") for part in ("score", "cost_usd", "late_jobs"))
        table.add_row(name, *("–" if cell is None else f"{cell:,.2f}" for cell in cells))
    return table


def _key(name: str) -> str:
    return name.lower().replace(", ", "_").replace("-", "_")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _adrs(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    """Scores over all jobs together, as the challenge does."""
    case = rows[0].case
    bounds = [one for row in rows for one in row.bounds]
    for name in POLICIES:
        found = metrics(case, [one for row in rows for one in row.outcomes[name]], bounds)
        yield f"adrs_score_{_key(name)}", found["adrs_score"]
        yield f"adrs_cost_usd_{_key(name)}", found["cost_usd"]
        yield f"adrs_late_jobs_{_key(name)}", found["late_jobs"]
    costs = {"optimum": [one.script for one in bounds], "optimum, exact": [one.exact for one in bounds]}
    for name, values in costs.items():
        perfect = [Outcome(0, 0, 0, late=False, cost_usd_micro=round(value)) for value in values]
        found = metrics(case, perfect, bounds)
        yield f"adrs_score_{_key(name)}", found["adrs_score"]
        yield f"adrs_cost_usd_{_key(name)}", found["cost_usd"]


def figures_of(every: Sequence[Row], adrs: Sequence[Row]) -> dict[str, float]:
    """Named figures; those without the name of a policy are Steersman's."""
    found: dict[str, float] = {
        "cost_over_optimum": _mean([row.ratio(OURS) for row in every]),
        "cost_over_optimum_exact": _mean([row.ratio(OURS, exact=True) for row in every]),
        "cost_over_optimum_worst": max(row.ratio(OURS) for row in every),
        "late_jobs": float(sum(row.late(OURS) for row in (*every, *adrs))),
    }
    for name in POLICIES:
        if name != OURS:
            found[f"cost_over_optimum_{_key(name)}"] = _mean([row.ratio(name) for row in every])
    if adrs:
        found |= dict(_adrs(adrs))
        found["adrs_score"] = found[f"adrs_score_{_key(OURS)}"]
    return {name: round(value, 6) for name, value in found.items()}


def report(rows: Sequence[Row]) -> Report:
    """Three tables, and how the cost goes with the deadline."""
    every, adrs = ([row for row in rows if row.task.adrs is kind] for kind in (False, True))
    figures = figures_of(every, adrs)
    tables = [_table("cost over optimum, all zones", every)]
    if adrs:
        tables += [_table("cost over optimum, ADRS protocol", adrs), _adrs_table(figures)]
    return Report(figures, tables, [_plain(row) for row in rows], {"spot-job": _picture(every).svg()})


def _plain(row: Row) -> dict[str, Any]:
    return {
        "zone": "+".join(path.name.removesuffix(".csv.gz") for path in row.task.zones),
        "adrs": row.task.adrs,
        "deadline_h": row.task.deadline_h,
        "overhead_h": row.task.overhead_h,
        "jobs": len(row.bounds),
        "cost_over_optimum": {name: row.ratio(name) for name in POLICIES},
        "cost_over_optimum_exact": {name: row.ratio(name, exact=True) for name in POLICIES},
        "late_jobs": {name: row.late(name) for name in POLICIES},
    }


def _picture(rows: Sequence[Row]) -> Picture:
    zones, starts = len({row.task.zones for row in rows}), rows[0].task.starts
    deadlines = [(hours, f"{hours:g}") for hours in sorted({row.task.deadline_h for row in rows})]
    hours = Axis("deadline of 48 h of work, hours", 48, 100, deadlines)
    lines = list(_lines(rows))
    near = [one._replace(points=[at for at in one.points if one.line or at[1] <= NEAR]) for one in lines]
    return Picture(
        "A job with a deadline: cost over the optimum",
        f"mean over {zones} zones, {starts} starts each; the optimum knows the whole record; low is good",
        tuple(POLICIES),
        [
            Panel("every policy", hours, _ratios(2.6, 0.2), lines),
            Panel(
                "those near the optimum", hours, _ratios(NEAR, 0.05), near, [Rule(1.08, "goal for the mean")]
            ),
        ],
        2,
    )


def _ratios(high: float, step: float) -> Axis:
    count = round((high - 1) / step)
    return Axis(
        "cost / optimum", 1.0, high, [(1 + at * step, f"{1 + at * step:g}") for at in range(count + 1)]
    )


def _lines(rows: Sequence[Row]) -> Iterator[Series]:
    for name in reversed(tuple(POLICIES)):
        points = [
            (hours, _mean([row.ratio(name) for row in rows if row.task.deadline_h == hours]))
            for hours in sorted({row.task.deadline_h for row in rows})
        ]
        yield Series(name, points, line=True)
        yield Series(name, points)


PROBLEM = Problem("spot-job", "p4_spot", cases, run, report)


def measure(short: bool = False) -> dict[str, float]:
    """Figures by name, with the tables on stderr; none without traces."""
    return measured(PROBLEM, short=short)
