"""`autoscale` on the open traces: Steersman beside HPA, KEDA, Ray Serve, Knative, a constant fleet, bound.

Theory: every policy goes through the product's own simulator, at its defaults (scalers.py); the bound needs a
solver (autoscale_bound.py). A cost is replica-seconds over the bound, a violation a request that waits longer
than the objective. In short: three traces, one cold start.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from bench.decide.autoscale_bound import bound
from bench.decide.picture import Axis, Panel, Picture, Rule, Series
from bench.decide.problem import OURS, Cases, Problem, Report, measured, there
from bench.decide.scalers import SCALERS, Scaled
from steersman.sim.replay.arrivals import read_arrivals
from steersman.sim.replay.autoscale import (
    Asked,
    Decider,
    first_replicas,
    peak_replicas,
    service_of,
    simulate,
    steersman,
    violating,
)

COLD_STARTS_S = (60.0, 180.0)
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
STATIC = "static at peak"
POLICIES = (OURS, *SCALERS, STATIC)
SHARE_NONE = 3e-5
"""Where the picture draws a share of 0, for its axis is logarithmic."""


class Case(NamedTuple):
    """A trace under a cold start."""

    name: str
    cold_s: float
    path: Path


class Came(NamedTuple):
    """What a policy came to: cost over the bound, share that violates, replica-hours."""

    cost: float
    share: float
    replica_h: float


class Row(NamedTuple):
    """A case, what it could have cost, and by policy what it did."""

    case: Case
    budget: float
    bound_h: float
    came: Mapping[str, Came]


def cases(folder: Path, short: bool) -> Cases[Case]:
    """The longest first, so that no processor waits for another at the end."""
    names, colds = (SHORT, COLD_STARTS_S[:1]) if short else (tuple(TRACES), COLD_STARTS_S)
    _, missing = there([_path(folder, name) for name in names])
    found = [Case(name, cold, _path(folder, name)) for cold in colds for name in names]
    return Cases([one for one in found if one.path.is_file()], missing)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{TRACES[name][0]}.csv.gz"


def run(case: Case) -> Row:
    """Every policy on one trace."""
    _, options, service_s = TRACES[case.name]
    asked = Asked(requests=case.path, cold_start_s=case.cold_s, **options)
    arrivals = read_arrivals(asked.requests, asked.from_, asked.to, asked.seed)
    work, service = arrivals.work, service_of(asked, arrivals)
    first, peak = first_replicas(asked, work), peak_replicas(work, asked.capacity)
    scaled = Scaled(asked.capacity, service_s, asked.min_replicas, service.max_replicas)
    policies: dict[str, tuple[int, Decider]] = {
        OURS: (first, steersman(service, arrivals.requests, first)),
        **{name: (first, scaler(scaled)) for name, scaler in SCALERS.items()},
        STATIC: (peak, lambda _: None),
    }
    least, came = bound(work, asked), {}
    for policy, (replicas, decider) in policies.items():
        ran = simulate(asked, work, replicas, decider)
        share = violating(arrivals, ran.served, asked.slo_s) / sum(arrivals.requests)
        came[policy] = Came(ran.replica_s / least, share, ran.replica_s / 3_600)
    return Row(case, asked.budget, least / 3_600, came)


def report(rows: Sequence[Row]) -> Report:
    """The figures are Steersman's, by trace and cold start."""
    figures: dict[str, float] = {}
    for row in rows:
        name, came = f"{row.case.name}_{row.case.cold_s:g}_s", row.came[OURS]
        figures |= {f"{name}_cost_over_oracle": came.cost, f"{name}_violation_share": came.share}
    return Report(figures, [_table(rows)], list(_rows(rows)), {"autoscale": _picture(rows).svg()})


def _rows(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        for policy, came in row.came.items():
            yield {
                "trace": row.case.name,
                "cold_start_s": row.case.cold_s,
                "policy": policy,
                "cost_over_oracle": came.cost,
                "violation_share": came.share,
                "replica_h": came.replica_h,
                "oracle_replica_h": row.bound_h,
            }


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="cost over the bound / requests that wait longer than the objective")
    for head in ("trace", "cold start s", "may violate", "bound replica-h", *POLICIES):
        table.add_column(head, justify="left" if head == "trace" else "right")
    for row in rows:
        each = (row.came[policy] for policy in POLICIES)
        table.add_row(
            row.case.name,
            f"{row.case.cold_s:g}",
            f"{row.budget:.1%}",
            f"{row.bound_h:,.1f}",
            *(f"{came.cost:.3f} / {came.share:.2%}" for came in each),
        )
    return table


def _picture(rows: Sequence[Row]) -> Picture:
    names = list(dict.fromkeys(row.case.name for row in rows))
    return Picture(
        "Replicas: cost against violations",
        f"filled: cold start of {COLD_STARTS_S[0]:g} s, hollow: {COLD_STARTS_S[1]:g} s; low and left is good",
        POLICIES,
        [_panel(name, [row for row in rows if row.case.name == name]) for name in names],
        3,
    )


def _panel(name: str, rows: Sequence[Row]) -> Panel:
    shares = [
        (SHARE_NONE, "0"),
        (1e-4, "0.01 %"),
        (1e-3, "0.1 %"),
        (1e-2, "1 %"),
        (1e-1, "10 %"),
        (1.0, "100 %"),
    ]
    costs = [(one, f"{one:g}") for one in (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 6.0)]
    return Panel(
        name,
        Axis("requests that wait too long", 2e-5, 1.0, shares, log=True),
        Axis("cost / bound", 0.97, 6.0, costs, log=True),
        [
            Series(
                policy, [(max(came.share, SHARE_NONE), came.cost)], hollow=row.case.cold_s == COLD_STARTS_S[1]
            )
            for row in rows
            for policy, came in reversed(tuple(row.came.items()))
        ],
        [Rule(rows[0].budget, "allowed", upright=True)],
    )


PROBLEM = Problem("autoscale", "p3_autoscale", cases, run, report)


def measure(short: bool = False) -> dict[str, float]:
    """The figures by name, after the table on stderr; none without traces."""
    return measured(PROBLEM, short=short)
