"""Declared queues as people see them: quota, use, share, budget."""

from steersman.app.wire import QueueView, QuotaView
from steersman.decide.budget import exhausted
from steersman.decide.quota import SHARE_ONE, Book, of
from steersman.explain.words import amount_words, describe
from steersman.model.ids import QueueName
from steersman.model.queue import GPU_HOUR, USD_MICRO, Amounts, QueueState, Quota
from steersman.model.snapshot import Snapshot
from steersman.state.draft import Draft
from steersman.state.usage import spent_at

MICRO = 1_000_000


def queue_views(snapshot: Snapshot) -> tuple[QueueView, ...]:
    """All declared queues, by name."""
    if not snapshot.queues:
        return ()
    book = Book(Draft(snapshot))
    waiting: dict[QueueName, int] = {}
    for shape, entries in snapshot.indexes.pending.items():
        waiting[shape.queue] = waiting.get(shape.queue, 0) + len(entries)
    return tuple(
        _view(snapshot, state, book.share(name), waiting.get(state.spec.name, 0))
        for name, state in snapshot.queues.items()
    )


def _view(snapshot: Snapshot, state: QueueState, share: int, waiting: int) -> QueueView:
    spec, held = state.spec, snapshot.indexes.usage.get(state.spec.name, ())
    usd, device_ms = spent_at(state, held, snapshot.now_ms)
    broke, budget = exhausted(state, held, snapshot.now_ms), spec.budget
    return QueueView(
        name=spec.name,
        cohort=spec.cohort,
        weight=spec.weight_milli / 1000,
        share=share / SHARE_ONE,
        waiting=waiting,
        quotas=tuple(_quota(quota, held) for quota in spec.quotas),
        usd=None if budget.usd_micro is None else budget.usd_micro / MICRO,
        usd_spent=usd / USD_MICRO / MICRO,
        gpu_hours=None if budget.device_ms is None else budget.device_ms / GPU_HOUR,
        gpu_hours_spent=device_ms / GPU_HOUR,
        refused="" if broke is None else describe(broke),
    )


def _quota(quota: Quota, held: Amounts) -> QuotaView:
    used = of(dict(held), quota.resource)
    beyond = used - quota.nominal
    return QuotaView(
        resource=quota.resource,
        used=amount_words(quota.resource, used),
        nominal=amount_words(quota.resource, quota.nominal),
        borrowed=amount_words(quota.resource, beyond) if beyond > 0 else "",
        borrowing_limit=_limit(quota.resource, quota.borrowing_limit),
        lending_limit=_limit(quota.resource, quota.lending_limit),
    )


def _limit(resource: str, amount: int | None) -> str:
    return "" if amount is None else amount_words(resource, amount)
