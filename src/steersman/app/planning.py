"""What `up` would do: on a running control plane, or on the journal of one that does not run.

Both are the live path: the same declarations, the same fold, the same deciders. Without a server the state is
read from the journal, or is empty when the home has none yet; nothing is written, not even a folder.
"""

from itertools import islice

from msgspec.structs import replace

from steersman.app.declare import Declaration, Here, declare
from steersman.app.gateway_place import Follower, foreseen
from steersman.app.machine import local_fleet, this_machine
from steersman.app.serving import Live, gateway
from steersman.app.settings import Settings, check_home
from steersman.app.views import decision_view
from steersman.app.wire import PlanView, Submission
from steersman.drivers.local import LocalGateways
from steersman.engine.preview import preview
from steersman.explain.words import describe
from steersman.guard.secrets import Secrets
from steersman.journal.connect import DATABASE_NAME
from steersman.journal.reader import SqliteReader
from steersman.journal.sqlite import SqliteJournal
from steersman.model.codec import decode_event
from steersman.model.decisions import Plan
from steersman.model.events import Decided, GatewayDeclared, ServiceDeclared
from steersman.model.service import Gateway
from steersman.model.snapshot import Snapshot
from steersman.sensors.figures import Figures
from steersman.state.fold import fold

CYCLES_MAX = 16
"""Cycles that a plan looks ahead."""
FOLD_EVENTS = 10_000
"""Events of one batch of the fold."""


def gateway_warnings(found: Declaration, snapshot: Snapshot, live: Live) -> tuple[str, ...]:
    """What to say of the gateway's port: where it listens now, or what it would meet."""
    declared = next((each.gateway for each in found.events if isinstance(each, GatewayDeclared)), None)
    now = gateway(snapshot, live)
    if declared is None and now is not None and now.listens_on:
        return (now.warning,) if now.warning else ()
    begins = any(isinstance(each, ServiceDeclared) for each in found.events)
    if declared is None and not begins:
        return ()
    text = foreseen(declared or snapshot.gateway or Gateway(), live.address)
    return (text,) if text else ()


def plan_view(found: Declaration, plan: Plan, warnings: tuple[str, ...] = ()) -> PlanView:
    """A declaration and the plan that would follow, for people, with what to warn of besides."""
    return PlanView(
        changed=bool(found.events),
        workloads=found.workloads,
        decisions=tuple(decision_view(decision) for decision in plan.decisions),
        fleet=found.fleet,
        warnings=(*found.warnings, *warnings),
        idle="" if plan.idle is None else describe(plan.idle),
        gateway=found.gateway,
        gateway_changes=found.gateway_changes,
        queues=found.queues,
    )


def foresee(previewed: tuple[Snapshot, Plan]) -> Plan:
    """What would be decided at once, the cycles that follow included, for a service takes several: its
    revision, its replicas, where they run. Ends before anything has to happen in the world.
    """
    snapshot, plan = previewed
    decisions, last = list(plan.decisions), plan
    for _ in range(CYCLES_MAX):
        if not last.decisions:
            break
        at = snapshot.observed_at
        intent = Decided(observed_at=at, decisions=last.decisions, packing=last.packing)
        snapshot = fold(snapshot, [(snapshot.position + 1, intent)])
        snapshot, last = preview(snapshot, (), snapshot.now_ms)
        decisions += last.decisions
    return replace(plan, decisions=tuple(decisions))


def plan_offline(submission: Submission, settings: Settings, now_ms: int) -> PlanView:
    """The plan for a home without a server. Raises SpecError, JournalError, HomeError."""
    here = Here(
        home=settings.home,
        user=settings.user,
        fleet=local_fleet(),
        secrets=Secrets(settings.home).list(),
        machine=this_machine(),
    )
    snapshot = stored_snapshot(settings)
    found = declare(submission, snapshot, here)
    address = LocalGateways(settings.home).address()  # a gateway outlives its control plane
    follows = Follower(settings.home).follows(snapshot.gateway or Gateway(), address)
    warnings = gateway_warnings(found, snapshot, Live(Figures(), address, follows))
    return plan_view(found, foresee(preview(snapshot, found.events, now_ms)), warnings)


def stored_snapshot(settings: Settings) -> Snapshot:
    """The state that the home's journal tells; an empty one when there is no journal."""
    if not settings.home.exists():
        return Snapshot()
    check_home(settings.home)
    if not (settings.home / DATABASE_NAME).exists():
        return Snapshot()
    reader = SqliteJournal.open_reader(settings.home)
    try:
        return _folded(reader)
    finally:
        reader.close()


def _folded(reader: SqliteReader) -> Snapshot:
    snapshot = Snapshot()
    records = reader.read()
    while batch := list(islice(records, FOLD_EVENTS)):
        events = (
            (record.position, decode_event(record.type, record.version, record.body)) for record in batch
        )
        snapshot = fold(snapshot, events)
    return snapshot
