"""The rows of `status`, `queue` and `up`, in words."""

import time
from collections.abc import Sequence

from steersman.app.wire import QueueView, QuotaView, Row, ServiceRow
from steersman.model.units import format_bytes, format_cpu

STATUS_HEAD = ("NAME", "PHASE", "RUN", "NODE", "PROGRESS", "RUNS", "FAILED", "PREEMPTED", "AGE", "REASON")
SERVICE_HEAD = (
    "SERVICE",
    "PHASE",
    "READY",
    "REVISION",
    "REQ/S",
    "P50",
    "P95",
    "P99",
    "QUEUE",
    "ERR/S",
    "URL",
    "REASON",
)
QUEUES_HEAD = ("QUEUE", "COHORT", "SHARE", "WAITING", "USED", "BORROWED", "BUDGET")
QUEUE_HEAD = ("PLACE", "NAME", "PRIORITY", "QUEUE", "ASKS FOR", "PHASE", "AGE", "WAITS FOR")
WAITING = frozenset({"declared", "queued", "backoff"})
NOTHING = "-"


def now_ms() -> int:
    """For ages only."""
    return time.time_ns() // 1_000_000


def _place(row: Row) -> str:
    """The nodes of a run; with its market and pool when it has one, or is on spot."""
    nodes = ", ".join(row.nodes) or NOTHING
    if not row.pool and row.market != "spot":
        return nodes
    return f"{nodes} ({', '.join(filter(None, (row.market, row.pool)))})"


def status_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line a workload."""
    now = now_ms()
    return [
        (
            row.name,
            phase(row),
            row.run or NOTHING,
            _place(row),
            progress(row) or NOTHING,
            str(row.runs),
            str(row.attempts),
            str(row.preemptions),
            age(now - row.declared_ms),
            row.reason,
        )
        for row in rows
    ]


def service_rows(rows: Sequence[ServiceRow]) -> list[tuple[str, ...]]:
    """One line a service."""
    return [
        (
            row.name,
            service_phase(row),
            ready(row),
            revision(row) or NOTHING,
            number(row.requests_per_second),
            number(row.p50_ms, " ms"),
            number(row.p95_ms, " ms"),
            number(row.p99_ms, " ms"),
            number(row.queue),
            number(row.errors_per_second),
            row.url or NOTHING,
            row.reason,
        )
        for row in rows
    ]


def service_phase(row: ServiceRow) -> str:
    """The phase, or that it is being taken down."""
    return "removing" if row.removing else row.phase


def service_line(row: ServiceRow) -> str:
    """``serving (2/2, revision 1): 2 replicas are ready``."""
    which = f", revision {revision(row)}" if revision(row) else ""
    return f"{service_phase(row)} ({row.ready}/{row.target}{which}): {row.reason}"


def ready(row: ServiceRow) -> str:
    """``2/3``, and the declared bounds when there are any: ``2/3 (1-5)``."""
    bounds = "" if row.min_replicas == row.max_replicas else f" ({row.min_replicas}-{row.max_replicas})"
    return f"{row.ready}/{row.target}{bounds}"


def revision(row: ServiceRow) -> str:
    """``1``, or ``1 → 2`` while another takes over; empty before the first."""
    parts = [str(part) for part in (row.revision or None, row.rolling) if part is not None]
    return " → ".join(parts)


def number(value: float | None, unit: str = "") -> str:
    """Three digits and a unit; a dash for what is not known."""
    if value is None:
        return NOTHING
    return f"{value:.0f}{unit}" if value >= 1000 else f"{value:.3g}{unit}"


def queues_rows(rows: Sequence[QueueView]) -> list[tuple[str, ...]]:
    """One line a quota of each declared queue; one for a queue without any."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        quotas = row.quotas or (QuotaView(resource=NOTHING, used=NOTHING, nominal=NOTHING),)
        for at, quota in enumerate(quotas):
            own = (row.name, row.cohort or NOTHING, f"{row.share:.1%}", str(row.waiting), _budget(row))
            name, cohort, share, waiting, budget = own if at == 0 else ("",) * 5
            used = f"{quota.used} of {quota.nominal}"
            lines.append((name, cohort, share, waiting, used, quota.borrowed or NOTHING, budget))
    return lines


def _budget(row: QueueView) -> str:
    parts = []
    if row.usd is not None:
        parts.append(f"{row.usd_spent:.2f} of {row.usd:.2f} USD")
    if row.gpu_hours is not None:
        parts.append(f"{row.gpu_hours_spent:.3g} of {row.gpu_hours:g} GPU-hours")
    return ", ".join(parts) or NOTHING


def queue_order(rows: Sequence[Row]) -> list[Row]:
    """What waits, in the order in which it is considered."""
    waiting = [row for row in rows if row.phase in WAITING]
    return sorted(waiting, key=lambda row: (-row.priority, row.declared_at, row.name))


def queue_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line a workload that waits."""
    now = now_ms()
    return [
        (
            str(place),
            row.name,
            str(row.priority),
            row.queue,
            asks(row),
            phase(row),
            age(now - row.declared_ms),
            _waits(row, now),
        )
        for place, row in enumerate(queue_order(rows), start=1)
    ]


def phase(row: Row) -> str:
    """The phase, or what is happening to it."""
    if row.removing:
        return "removing"
    if row.stopping and row.phase in {"active", "queued", "backoff", "declared"}:
        return "stopping"
    if row.phase == "active" and row.run_state:
        return row.run_state
    return row.phase


def phase_and_reason(row: Row) -> str:
    """``failed: exited with 3``; the phase alone when the reason is the same word, or there is none."""
    word = phase(row)
    return word if row.reason in {"", word} else f"{word}: {row.reason}"


def progress(row: Row) -> str:
    """``step 4000/12000, loss 0.2134, 1520 samples/s``; empty when nothing was reported."""
    parts = []
    if row.step is not None:
        total = "" if row.steps_total is None else f"/{row.steps_total:.0f}"
        parts.append(f"step {row.step:.0f}{total}")
    if row.loss is not None:
        parts.append(f"loss {row.loss:.4g}")
    if row.samples_per_second is not None:
        parts.append(f"{row.samples_per_second:.4g} samples/s")
    return ", ".join(parts)


def asks(row: Row) -> str:
    """What it wants, of all ranks together in so many parts."""
    parts = [f"{format_cpu(row.cpu_milli)} cores", format_bytes(row.memory_bytes)]
    parts += [f"{row.part or count} {kind}" for kind, count in sorted(row.accelerators.items())]
    words = ", ".join(parts)
    return words if row.num_nodes == 1 else f"{row.num_nodes} × ({words})"


def age(duration_ms: int) -> str:
    """``8s``, ``12m``, ``3h10m``, ``2d4h``."""
    seconds = max(duration_ms, 0) // 1000
    if seconds < 60:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes}m"
    return f"{hours // 24}d{hours % 24}h"


def _waits(row: Row, now: int) -> str:
    if row.phase == "backoff":
        return f"{row.reason}; next try in {age(row.not_before_ms - now)}"
    return row.reason or "its turn"
