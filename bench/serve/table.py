"""The comparison as tables, and as named figures for floors.

A ratio is to the best peer of the same model in the same run; the bare loop is no peer, for it is no server.
"""

import sys
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table

from bench.serve.changes import Losses
from bench.serve.measure import Figures

OURS, REFERENCE = "steersman", "bare loop"
HEADS = (
    "model|server|req/CPU-s|ratio|req/s|cores|max rate|ratio|"
    "p50 ms ½|p99 ms ½|p99 ms =|CPU µs ½|PSS MiB|gen. cores|lost"
)
CHANGE_HEADS = "server|change|done|of|seconds|rate/s|requests|lost|refused|worst ms|p99 ms"


def _peers(figures: Iterable[Figures], model: str) -> list[Figures]:
    return [each for each in figures if each.model == model and each.server not in (OURS, REFERENCE)]


def best(figures: Sequence[Figures], model: str, value: Callable[[Figures], float]) -> float:
    """The greatest of the peers' values; 0 when no peer was measured."""
    return max((value(each) for each in _peers(figures, model)), default=0.0)


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}×" if reference else "–"


def _row(each: Figures, figures: Sequence[Figures]) -> list[str]:
    per_cpu = best(figures, each.model, lambda one: one.per_cpu_second)
    rate = best(figures, each.model, lambda one: one.max_rate)
    return [
        each.model,
        each.server,
        f"{each.per_cpu_second:,.0f}",
        _ratio(each.per_cpu_second, per_cpu),
        f"{each.saturated_per_s:,.0f}",
        f"{each.cores:.2f}",
        f"{each.max_rate:,.0f}" if each.max_rate else "none",
        _ratio(each.max_rate, rate),
        f"{each.half_p50_ms:.2f}",
        f"{each.half_p99_ms:.2f}",
        "" if each.equal_p99_ms is None else f"{each.equal_p99_ms:.2f}",
        f"{each.half_cpu_us:,.0f}",
        f"{each.pss_mib:,.0f}",
        f"{each.generator_cores:.2f}",
        f"{each.lost:,}",
    ]


def comparison(figures: Sequence[Figures]) -> Table:
    """Every server with every model."""
    table = Table(
        title="32 connections; max rate at p99 ≤ 50 ms, open loop; ratios to the best peer; "
        "½: at half of its own max rate, =: at half of the best peer's"
    )
    for place, head in enumerate(HEADS.split("|")):
        table.add_column(head, justify="left" if place < 2 else "right")
    for place, each in enumerate(figures):
        last = place + 1 == len(figures) or figures[place + 1].model != each.model
        table.add_row(*_row(each, figures), end_section=last)
    return table


def changes(losses: Sequence[Losses]) -> Table:
    """What changing cost."""
    table = Table(title="changes under half of what one replica holds, two replicas")
    for place, head in enumerate(CHANGE_HEADS.split("|")):
        table.add_column(head, justify="left" if place < 2 else "right")
    for each in losses:
        table.add_row(
            each.server,
            each.change,
            str(each.done),
            str(each.asked),
            f"{each.seconds:.0f}",
            f"{each.rate:,.0f}",
            f"{each.requests:,}",
            f"{each.lost:,}",
            f"{each.refused:,}",
            f"{each.worst_ms:,.0f}",
            f"{each.p99_ms:,.1f}",
        )
    return table


def show(figures: Sequence[Figures], losses: Sequence[Losses]) -> None:
    """Both tables on stdout."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(comparison(figures))
    if losses:
        console.print(changes(losses))


def _of_model(ours: Figures, figures: Sequence[Figures]) -> dict[str, float]:
    """Ratios of one model. A peer that held no rate has no p99 at half of it that could be beaten."""
    name = ours.model
    peers = _peers(figures, name)
    reference = [one for one in figures if one.model == name and one.server == REFERENCE]
    p99s = [one.half_p99_ms for one in peers if one.max_rate]
    found = {}
    if per_cpu := best(figures, name, lambda one: one.per_cpu_second):
        found[f"{name}_per_cpu_to_best_peer"] = ours.per_cpu_second / per_cpu
    if rate := best(figures, name, lambda one: one.max_rate):
        found[f"{name}_rate_to_best_peer"] = ours.max_rate / rate
    if p99s:
        found[f"{name}_half_p99_to_best_peer"] = ours.half_p99_ms / min(p99s)
        if ours.equal_p99_ms is not None:
            found[f"{name}_equal_p99_to_best_peer"] = ours.equal_p99_ms / min(p99s)
    if reference:
        found[f"{name}_per_cpu_to_bare"] = ours.per_cpu_second / reference[0].per_cpu_second
    return found


def floors(figures: Sequence[Figures], losses: Sequence[Losses]) -> dict[str, float]:
    """Steersman's ratios and losses by name, for floors.toml; only what was measured."""
    found: dict[str, float] = {}
    for each in figures:
        if each.server == OURS:
            found |= _of_model(each, figures)
    ours = [each for each in losses if each.server == OURS]
    if ours:
        found["changes_lost"] = sum(each.lost for each in ours)
        found["changes_done"] = sum(each.done for each in ours)
        found["changes_worst_ms"] = max(each.worst_ms for each in ours)
        requests = sum(each.requests for each in ours)
        found["changes_refused_share"] = sum(each.refused for each in ours) / max(requests, 1)
    return {name: round(value, 4) for name, value in found.items()}
