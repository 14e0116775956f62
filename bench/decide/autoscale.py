"""`autoscale` on the open traces: Steersman beside HPA, Ray Serve, a constant fleet and the bound.

    python -m bench.decide.autoscale [--short] [--json]

Theory: every policy goes through the product's own simulator. The bound: for an hour whole replicas on a grid
of 10 s (HiGHS, 40 s, gap 1 %), for days fractional ones on a grid of 60 s (a true lower bound), for a service
that may go to zero the schedule by level. Baselines have their defaults, at a target of 0.7. Needs scipy.
The traces: STEERSMAN_TRACES, else ../shared/traces beside the repository, in open/p3_autoscale.
"""

import math
import os
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import Bounds, LinearConstraint, milp  # type: ignore[import-untyped]  # scipy has no types
from scipy.sparse import coo_matrix  # type: ignore[import-untyped]  # the same

from bench.decide.command import command
from steersman.sim.replay.arrivals import read_arrivals
from steersman.sim.replay.autoscale import (
    Asked,
    Decider,
    Second,
    first_replicas,
    peak_replicas,
    service_of,
    simulate,
    steersman,
    violating,
)
from steersman.sim.replay.bounds_autoscale import level_schedule

ROOT = Path(__file__).resolve().parents[2]
TARGET = 0.7
COLD_STARTS_S = (60.0, 180.0)
HOUR_LONG_S = 20_000
SHORT = ("azure_conv", "mooncake_conv", "m_small")
BURST: Mapping[str, Any] = {"slo_s": 10.0, "budget": 0.01}
DAYS: Mapping[str, Any] = {"slo_s": 10.0, "to": "432000"}
JUNE: Mapping[str, Any] = {"slo_s": 5.0, "from_": "1998-06-08", "to": "1998-06-12", "seed": 3}
ZERO: Mapping[str, Any] = {
    "slo_s": 60.0,
    "from_": "432000",
    "to": "1296000",
    "min_replicas": 0,
    "budget": 0.01,
}
TRACES: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    "azure_conv": ("azure_llm2023_conv", {**BURST, "capacity": 0.5}, 8),
    "mooncake_conv": ("mooncake_conversation", {**BURST, "capacity": 0.3}, 12),
    "m_large": ("servegen_m-large_10min", {**DAYS, "capacity": 10.0, "seed": 1}, 8),
    "m_small": ("servegen_m-small_10min", {**DAYS, "capacity": 50.0, "seed": 2}, 4),
    "worldcup98": ("worldcup98_1min", {**JUNE, "capacity": 40.0}, 1),
    "genai_lora": ("genai_lora_requests", {**ZERO, "capacity": 1.0}, 28),
}
"""File, options, and the seconds that a request is served."""


def hpa(capacity: float, least: int, most: int) -> Decider:
    """Kubernetes HPA on utilisation: 15 s sync, 30 s mean, 10 % tolerance, 300 s before less."""
    used: deque[float] = deque(maxlen=30)
    asked: deque[tuple[int, int]] = deque()
    last = [0.0]

    def want_of(seen: Second, mean: float) -> int:
        if seen.ready == 0:
            return max(seen.replicas, 1)
        if mean / TARGET > 1.1:
            spread = mean * seen.ready / seen.replicas / TARGET
            return seen.replicas if spread <= 1.1 else math.ceil(spread * seen.replicas)
        return math.ceil(mean / TARGET * seen.ready) if mean / TARGET < 0.9 else seen.replicas

    def look(seen: Second) -> int | None:
        served, last[0] = seen.served - last[0], seen.served
        used.append(served / (seen.ready * capacity) if seen.ready else float(seen.arrived > seen.served))
        if seen.second % 15 != 14:
            return None
        want = want_of(seen, sum(used) / len(used))
        while asked and asked[0][0] <= seen.second - 300:
            asked.popleft()
        asked.append((seen.second, want))
        if want < seen.replicas:
            want = min(max(number for _, number in asked), seen.replicas)
        elif want > seen.replicas:
            want = min(want, max(2 * seen.replicas, seen.replicas + 4))
        return min(max(want, least), most)

    return look


def ray_serve(each: float, service_s: int, least: int, most: int) -> Decider:
    """Ray Serve: 30 s mean of ongoing work, 30 s before more, 600 s before less, never zero."""
    served, ongoing = deque([0.0], maxlen=service_s + 1), deque([0.0][:0], maxlen=30)
    up, down = [0], [0]

    def look(seen: Second) -> int | None:
        served.append(seen.served)
        ongoing.append(seen.arrived - served[0])
        want = math.ceil(sum(ongoing) / len(ongoing) / each - 1e-9)
        up[0] = up[0] + 1 if want > seen.replicas else 0
        down[0] = down[0] + 1 if want < seen.replicas else 0
        if up[0] < 30 and down[0] < 600:
            want = seen.replicas
        else:
            up[0] = down[0] = 0
        return min(max(want, least, 1), most)

    return look


def solved(work: Sequence[float], asked: Asked, grid: int, whole: bool) -> float:
    """Least replica-seconds with every request served in its SLO, on a grid; fractional unless `whole`."""
    size, late = len(work) // grid, max(1, round(asked.slo_s / grid))
    total = np.concatenate([[0], np.cumsum(np.array(work)[: size * grid].reshape(size, grid).sum(1))])
    cells: list[tuple[int, int, float]] = []
    for at in range(size):  # variables: replicas, launches, work served by the end of the interval
        row, served = 3 * at, 2 * size + at
        cells += [(row, served, 1.0), (row, at, -asked.capacity * grid), (row + 1, served, 1.0)]
        cells += [(row + 2, at, 1.0), (row + 2, size + at, -1.0)]
        if at:
            cells += [(row, served - 1, -1.0), (row + 1, served - 1, -1.0), (row + 2, at - 1, -1.0)]
    rows, columns, values = zip(*cells, strict=True)
    matrix = coo_matrix((values, (rows, columns)), shape=(3 * size, 3 * size)).tocsr()
    due = total[np.maximum(np.arange(1, size + 1) - late, 0)]
    found = milp(
        np.concatenate([np.full(size, float(grid)), np.full(size, asked.cold_start_s), np.zeros(size)]),
        constraints=LinearConstraint(
            matrix, np.tile([-np.inf, 0.0, -np.inf], size), np.tile([0.0, np.inf, 0.0], size)
        ),
        bounds=Bounds(
            np.concatenate([np.full(size, float(asked.min_replicas)), np.zeros(size), due]),
            np.concatenate([np.full(2 * size, np.inf), total[1:]]),
        ),
        integrality=np.concatenate([np.full(size, float(whole)), np.zeros(2 * size)]),
        options={"time_limit": 40, "mip_rel_gap": 0.01},
    )
    return math.nan if found.x is None else float(found.fun)


def bound(work: Sequence[float], asked: Asked) -> float:
    """The reference, in replica-seconds."""
    if asked.min_replicas == 0:
        return level_schedule(work, asked.capacity, asked.cold_start_s, asked.slo_s)
    hour = len(work) < HOUR_LONG_S
    return solved(work, asked, 10 if hour else 60, hour)


def case(name: str, cold_s: float, folder: Path) -> dict[str, tuple[float, float, float]]:
    """By policy: cost over the bound, share that violates, replica-hours."""
    file, options, service_s = TRACES[name]
    asked = Asked(requests=folder / f"{file}.csv.gz", cold_start_s=cold_s, **options)
    arrivals = read_arrivals(asked.requests, asked.from_, asked.to, asked.seed)
    work, service = arrivals.work, service_of(asked, arrivals)
    first, peak = first_replicas(asked, work), peak_replicas(work, asked.capacity)
    least, most, each = asked.min_replicas, service.max_replicas, TARGET * asked.capacity * service_s
    policies: dict[str, tuple[int, Decider]] = {
        "steersman": (first, steersman(service, arrivals.requests, first)),
        "hpa": (first, hpa(asked.capacity, least, most)),
        "ray_serve": (first, ray_serve(each, service_s, least, most)),
        "static_peak": (peak, lambda _: None),
    }
    reference, found = bound(work, asked), {}
    for policy, (replicas, decider) in policies.items():
        run = simulate(asked, work, replicas, decider)
        share = violating(arrivals, run.served, asked.slo_s) / sum(arrivals.requests)
        found[policy] = (run.replica_s / reference, share, run.replica_s / 3_600)
    return found


def measure(short: bool = False) -> dict[str, float]:
    """The figures by name, after the table on stderr; none without traces."""
    home = Path(os.environ.get("STEERSMAN_TRACES", ROOT.parent / "shared" / "traces"))
    folder = home / "open" / "p3_autoscale"
    if not folder.is_dir():
        sys.stderr.write("autoscale: no traces; set STEERSMAN_TRACES (docs/guides/replay.md)\n")
        return {}
    names, colds = (SHORT, COLD_STARTS_S[:1]) if short else (tuple(TRACES), COLD_STARTS_S)
    cases = [(name, cold) for cold in colds for name in names]
    with ProcessPoolExecutor(max_workers=2) as pool:
        results = [run.result() for run in [pool.submit(case, *one, folder) for one in cases]]
    table = Table("trace", "cold start s", "policy", "cost/bound", "violating", "replica-h")
    figures: dict[str, float] = {}
    for (name, cold), found in zip(cases, results, strict=True):
        for policy, (cost, share, hours) in found.items():
            table.add_row(name, f"{cold:g}", policy, f"{cost:.3f}", f"{share:.3%}", f"{hours:,.1f}")
        cost, share, _ = found["steersman"]
        figures |= {f"{name}_{cold:g}_s_cost_over_oracle": cost, f"{name}_{cold:g}_s_violation_share": share}
    Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(table)
    return figures


if __name__ == "__main__":
    sys.exit(command(measure, __doc__))
