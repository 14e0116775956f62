"""Packing on the openb lists of Alibaba, beside best fit and FGD, and the bound of the cutting-stock program.

Theory: the baselines are as published (Weng et al., USENIX ATC 2023, and its artifact): scores are whole
numbers 0 to 100, ties go to the smallest node name, share pods take the best-fitting GPU, and FGD knows the
typical pods of the whole list beforehand. They are written apart from Steersman's packer (packers.py); only
the reading of the trace, the order of arrivals and the counting are shared. The bound is the linear program
over patterns of shares on single GPUs, for what has arrived; CPU, memory, models and the borders of nodes are
left out, so that no policy can reach it. Needs scipy.

10 seeds of the default list, 3 of the others; in short 2 of the default list, 1 of two others. Speed is pods
tried for each second of CPU time of one core, all learning inside, on all nodes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.table import Table

from bench.decide.packers import BestFit, Fgd
from bench.decide.packing_bound import bound_pct
from bench.decide.picture import Axis, Panel, Picture, Series
from bench.decide.problem import OURS, Cases, Problem, Report, measured, there
from steersman.decide.pack import Packer, State
from steersman.model.packing import Ask
from steersman.sim.replay.packing import Cluster, Tally, arrivals, read_nodes, read_pods

NODES = "openb_nodes.csv.gz"
DEFAULT = "default"
LISTS = (
    DEFAULT,
    *("cpu050", "cpu200", "gpushare40", "gpushare100"),
    *("gpuspec10", "gpuspec33", "multigpu20", "multigpu50"),
)
SHORT_LISTS = (DEFAULT, "gpushare40", "gpuspec33")
FIRST_SEED, SEEDS, SEEDS_OTHERS = 42, 10, 3
LOAD = 1.3
METRICS = ("alloc_pct_100", "alloc_pct_130", "first_fail_pct")
FGD, BEST_FIT, BOUND = "FGD", "best fit", "bound"
MARKS_PCT = range(70, 131)
"""Where the curve of a picture is taken: % of the GPU capacity that has arrived."""
BOUND_MARKS_PCT = (70, *range(80, 100), 100, 105, 110, 120, 130)
"""Close to each other where the bound bends."""
PICTURED = (DEFAULT, "gpushare100", "gpuspec33", "multigpu50")


class Case(NamedTuple):
    """One order of arrivals of one list. `bounds`: where the bound is computed."""

    name: str
    seed: int
    folder: Path
    bounds: tuple[int, ...]


class Outcome(NamedTuple):
    """The metrics of one policy, CPU seconds, and % allocated at the marks."""

    metrics: Mapping[str, Any]
    seconds: float
    curve: tuple[float, ...]


class Row(NamedTuple):
    """What every policy came to in one case, and the bound at some marks."""

    case: Case
    outcomes: Mapping[str, Outcome]
    bounds: Mapping[int, float]


def cases(folder: Path, short: bool) -> Cases[Case]:
    """The bound is that of the first seed: that of others differs in the second digit."""
    names = SHORT_LISTS if short else LISTS
    _, missing = there([folder / NODES, *(_path(folder, name) for name in names)])
    found = [
        Case(name, FIRST_SEED + at, folder, () if at else BOUND_MARKS_PCT if name in PICTURED else (100,))
        for name in names
        if (folder / NODES).is_file() and _path(folder, name).is_file()
        for at in range(_seeds(name, short=short))
    ]
    return Cases(found, missing)


def _path(folder: Path, name: str) -> Path:
    return folder / f"openb_pods_{name}.csv.gz"


def _seeds(name: str, *, short: bool) -> int:
    if short:
        return 2 if name == DEFAULT else 1
    return SEEDS if name == DEFAULT else SEEDS_OTHERS


def run(case: Case) -> Row:
    """Every policy on one order."""
    cluster = read_nodes(case.folder / NODES)
    pods, _ = read_pods(_path(case.folder, case.name), {node.model for node in cluster.nodes})
    order = arrivals(pods, cluster.capacity, case.seed, LOAD)
    places: Mapping[str, Callable[[Ask], object]] = {
        OURS: Packer(State(nodes=cluster.nodes)).place,
        FGD: Fgd(cluster.nodes, pods).place,
        BEST_FIT: BestFit(cluster.nodes).place,
    }
    return Row(
        case,
        {policy: outcome(place, cluster, order) for policy, place in places.items()},
        {mark: bound_pct(order, cluster.capacity, mark) for mark in case.bounds},
    )


def outcome(place: Callable[[Ask], object], cluster: Cluster, order: Sequence[Ask]) -> Outcome:
    """`place` gives None or False when there is no room."""
    began = time.process_time()
    placed = [place(shape) not in (None, False) for shape in order]
    seconds = time.process_time() - began
    tally = Tally(cluster.capacity)
    for shape, held in zip(order, placed, strict=True):
        tally.count(shape, held)
    return Outcome(tally.metrics(), seconds, _curve(cluster.capacity, order, placed))


def _curve(capacity: int, order: Sequence[Ask], placed: Sequence[bool]) -> tuple[float, ...]:
    curve, arrived, held = list[float](), 0, 0
    for shape, has_place in zip(order, placed, strict=True):
        size = shape.gpus * shape.gpu_milli
        arrived, held = arrived + size, held + size * has_place
        while len(curve) < len(MARKS_PCT) and arrived * 100 >= MARKS_PCT[len(curve)] * capacity:
            curve.append(100 * held / capacity)
    return (*curve, *(100 * held / capacity for _ in range(len(MARKS_PCT) - len(curve))))


class Compared(NamedTuple):
    """One list: every seed's row."""

    name: str
    rows: Sequence[Row]

    def mean(self, policy: str, metric: str) -> float:
        """Over the seeds."""
        return fmean(row.outcomes[policy].metrics[metric] for row in self.rows)

    def per_second(self) -> float:
        """Pods that Steersman's packer tried for each second of CPU time."""
        ours = [row.outcomes[OURS] for row in self.rows]
        tried = sum(one.metrics["placements"] + one.metrics["failed"] for one in ours)
        return float(tried / sum(one.seconds for one in ours))

    def worst_gap(self) -> float:
        """How far it is below the better of the baselines, in points; below 0: above it."""
        return max(
            self.mean(policy, metric) - self.mean(OURS, metric)
            for policy in (FGD, BEST_FIT)
            for metric in METRICS[:2]
        )

    @property
    def bounds(self) -> Mapping[int, float]:
        """Of the first seed, by mark."""
        return self.rows[0].bounds

    def series(self) -> Iterator[Series]:
        """The curves, Steersman's last."""
        yield Series(BOUND, list(self.bounds.items()), line=True)
        for policy in (BEST_FIT, FGD, OURS):
            curves = zip(*(row.outcomes[policy].curve for row in self.rows), strict=True)
            yield Series(
                policy, [(mark, fmean(held)) for mark, held in zip(MARKS_PCT, curves, strict=True)], line=True
            )


def report(rows: Sequence[Row]) -> Report:
    """The figures are Steersman's, means over the seeds of each list."""
    names = list(dict.fromkeys(row.case.name for row in rows))
    compared = [Compared(name, [row for row in rows if row.case.name == name]) for name in names]
    figures = {
        f"packing_{each.name}_{metric}": each.mean(OURS, metric) for each in compared for metric in METRICS
    }
    figures["packing_below_best_points_max"] = max(each.worst_gap() for each in compared)
    figures["packing_pods_per_cpu_s_min"] = min(each.per_second() for each in compared)
    pictures = {"packing": _picture([each for each in compared if each.name in PICTURED]).svg()}
    return Report(figures, [_table(compared)], list(_rows(compared)), pictures)


def _rows(compared: Sequence[Compared]) -> Iterator[dict[str, Any]]:
    for each in compared:
        for policy in (OURS, FGD, BEST_FIT):
            means = {metric: each.mean(policy, metric) for metric in METRICS}
            yield {"list": each.name, "seeds": len(each.rows), "policy": policy, **means}
        yield {"list": each.name, "seeds": 1, "policy": BOUND, METRICS[0]: each.bounds[100]}


def _table(compared: Sequence[Compared]) -> Table:
    shown = Table(title="% of GPUs allocated, mean over seeds; the protocol of FGD (ATC 2023)")
    for place, head in enumerate(
        ["list", "seeds", "policy", "at 100 %", "at 130 %", "first failure", "bound at 100 %", "pods/CPU-s"]
    ):
        shown.add_column(head, justify="left" if place in (0, 2) else "right")
    for each in compared:
        for policy in (OURS, FGD, BEST_FIT):
            ours = policy == OURS
            shown.add_row(
                each.name if ours else "",
                str(len(each.rows)) if ours else "",
                policy,
                *(f"{each.mean(policy, metric):.2f}" for metric in METRICS),
                f"{each.bounds[100]:.2f}" if ours else "",
                f"{each.per_second():,.0f}" if ours else "",
                end_section=policy == BEST_FIT,
            )
    return shown


def _picture(compared: Sequence[Compared]) -> Picture:
    return Picture(
        "Packing: allocation against arrivals",
        "% of all GPUs, mean over seeds; the bound leaves out CPU, memory, models and the borders of nodes",
        (OURS, FGD, BEST_FIT, BOUND),
        [_panel(each) for each in compared],
        2,
    )


def _panel(each: Compared) -> Panel:
    least = min(each.mean(policy, METRICS[0]) for policy in (OURS, FGD, BEST_FIT))
    low = max(MARKS_PCT[0], int(least - 4) // 5 * 5)
    return Panel(
        each.name,
        Axis("% of the GPU capacity arrived", low, 130, [(at, str(at)) for at in range(low, 131, 5)]),
        Axis("% allocated", low, 100, [(at, str(at)) for at in range(low, 101, 5)]),
        list(each.series()),
    )


PROBLEM = Problem("packing", "p1_packing", cases, run, report)


def measure(short: bool = False) -> dict[str, float]:
    """The figures by name; none when the traces are not there."""
    return measured(PROBLEM, short=short)
