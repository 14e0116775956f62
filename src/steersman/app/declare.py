"""From texts to events: what a submission changes, against what is there.

Theory of operation. All documents are parsed and checked before anything comes of them, and all of it becomes
one list of events that the journal takes in one commit: a submission is accepted whole or not at all. What is
declared already and has not changed gives no event, so that `up` may be said again and again; only a workload
that failed or was stopped is declared anew by it, for then the user asks for it again.

What the parser cannot know is checked here: that folders and files exist (`placing`), that what is named from
outside the submission is there (`outside`), that secrets are set.

`read` takes the digests of workdirs and model files, and so reads all of them: it is a step of its own, which
needs no snapshot, and nobody who declares something else waits for it. `store` keeps the model files that
were read; only who means to commit the events calls it, between `compare` and the commit.
"""

from collections.abc import Collection, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from steersman.app.doubts import doubts
from steersman.app.machine import Machine
from steersman.app.model_files import store_model
from steersman.app.outside import check_inputs, check_kinds, check_models, nearest
from steersman.app.placing import Base, placed
from steersman.app.wire import ChangeView, DeclaredView, Document, Submission
from steersman.model.errors import SpecError
from steersman.model.events import (
    Event,
    FleetDeclared,
    GatewayDeclared,
    QueueDeclared,
    ServiceDeclared,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet
from steersman.model.ids import QueueName
from steersman.model.queue import Queue
from steersman.model.service import Gateway, OnnxModel, Service
from steersman.model.snapshot import Phase, ServiceState, Snapshot, WorkloadState
from steersman.model.units import format_bytes, format_cpu
from steersman.model.workload import SecretRef, Workload
from steersman.spec.diff import Change, Diff, diff, diff_gateways, diff_services
from steersman.spec.digest import digest
from steersman.spec.parse import Origin, Parsed, merge, parse

__all__ = [
    "Declaration",
    "Here",
    "compare",
    "declare",
    "declared_fleet",
    "nearest",
    "read",
    "store",
]

_AGAIN = frozenset({Phase.FAILED, Phase.STOPPED})
LOCAL_DRIVER = "local"


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What a submission is checked against besides the snapshot.

    `fleet` is what to declare when no fleet ever was; `secrets` are the names of those that are set; `user`
    is what ``~`` stands for; `machine` is what there is of the machine that local nodes are on.
    """

    home: Path
    user: Path
    fleet: Fleet
    secrets: Collection[str]
    machine: Machine


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """What a submission comes to. `workloads` are the jobs, then the services.

    `fleet` and `gateway` are the names of a fleet and of a gateway that are new or changed; a gateway's
    changes are told from what holds when none is declared, too.
    """

    events: tuple[Event, ...]
    workloads: tuple[DeclaredView, ...]
    fleet: str | None
    warnings: tuple[str, ...]
    gateway: str | None = None
    gateway_changes: tuple[ChangeView, ...] = ()
    queues: tuple[str, ...] = ()


def declare(submission: Submission, snapshot: Snapshot, here: Here) -> Declaration:
    """The events of a submission. Raises SpecError, and then nothing of it counts."""
    return compare(read(submission, here), snapshot, here)


def read(submission: Submission, here: Here) -> Parsed:
    """What a submission says, whatever is declared already; reads every workdir and model whole.

    Changes nothing. Raises SpecError.
    """
    digests: dict[Path, str] = {}
    return merge([_parse(document, here, digests) for document in submission.documents])


def store(parsed: Parsed, home: Path) -> None:
    """Keep the model files that `read` found, under their digests in the home's store.

    May be called again. Raises SpecError when one was changed since it was read, HomeError when it cannot
    be kept.
    """
    for service, origin in zip(parsed.services, parsed.service_origins, strict=True):
        model = service.model
        if isinstance(model, OnnxModel) and model.path is not None and model.digest is not None:
            try:
                store_model(home, Path(model.path), model.digest)
            except SpecError as error:
                raise SpecError(
                    error.message,
                    hint=error.hint,
                    source=origin.source,
                    line=origin.line_of("model.onnx"),
                    path="model.onnx",
                ) from error


def compare(parsed: Parsed, snapshot: Snapshot, here: Here) -> Declaration:
    """The events of what was read, against what is declared. Raises SpecError."""
    check_kinds(parsed, snapshot)
    check_inputs(parsed, snapshot)
    pending = tuple(check_models(parsed, snapshot))
    _check_secrets(parsed, here.secrets)
    fleet = _fleet(parsed, snapshot, here)
    doubted = doubts(parsed, snapshot, fleet or declared_fleet(snapshot))
    gateway = None if parsed.gateway == snapshot.gateway else parsed.gateway
    queues = [queue for queue in parsed.queues if _queue_before(snapshot, queue.name) != queue]
    compared = [
        *(_compare_job(snapshot.workloads.get(each.name), each) for each in parsed.workloads),
        *(_compare_service(snapshot.services.get(each.name), each) for each in parsed.services),
    ]
    events: list[Event] = [] if fleet is None else [FleetDeclared(fleet=fleet)]
    events += [] if gateway is None else [GatewayDeclared(gateway=gateway)]
    events += (QueueDeclared(queue=queue) for queue in queues)
    events += (event for _, event in compared if event is not None)
    return Declaration(
        events=tuple(events),
        workloads=tuple(view for view, _ in compared),
        fleet=None if fleet is None else fleet.name,
        warnings=(*parsed.warnings, *pending, *_too_large(parsed.fleet, here.machine), *doubted),
        gateway=None if gateway is None else gateway.name,
        queues=tuple(queue.name for queue in queues),
        gateway_changes=() if gateway is None else _gateway_changes(snapshot.gateway, gateway),
    )


def _gateway_changes(before: Gateway | None, after: Gateway) -> tuple[ChangeView, ...]:
    return _views(diff_gateways(before or Gateway(), after))


def _queue_before(snapshot: Snapshot, name: QueueName) -> Queue | None:
    state = snapshot.queues.get(name)
    return None if state is None else state.spec


# Fleet.


def declared_fleet(snapshot: Snapshot) -> Fleet | None:
    """The fleet as last declared, from the snapshot."""
    if snapshot.fleet_name is None:
        return None
    here = (state for _, state in snapshot.nodes.sorted_items() if state.declared and not state.node.cluster)
    clusters = tuple(state.spec for state in snapshot.clusters)
    return Fleet(name=snapshot.fleet_name, nodes=tuple(state.node for state in here), clusters=clusters)


def _fleet(parsed: Parsed, snapshot: Snapshot, here: Here) -> Fleet | None:
    """The fleet to declare, if any."""
    current = declared_fleet(snapshot)
    if parsed.fleet is None:
        return here.fleet if current is None else None
    return None if parsed.fleet == current else parsed.fleet


def _too_large(fleet: Fleet | None, machine: Machine) -> Iterator[str]:
    """Warnings about local nodes that are more, together, than the machine they are on."""
    nodes = [] if fleet is None else [node for node in fleet.nodes if node.driver == LOCAL_DRIVER]
    cpu_milli = sum(node.cpu_milli for node in nodes)
    memory_bytes = sum(node.memory_bytes for node in nodes)
    lacks = []
    if cpu_milli > machine.cpu_milli:
        lacks.append((f"{format_cpu(cpu_milli)} cores", format_cpu(machine.cpu_milli)))
    if memory_bytes > machine.memory_bytes:
        lacks.append((f"{format_bytes(memory_bytes)} of memory", format_bytes(machine.memory_bytes)))
    for declared, there in lacks:
        yield (
            f"the fleet's local nodes have {declared}, this machine {there}: "
            "limits hold, but programs will share"
        )


# Jobs and services.


def _compare_job(
    before: WorkloadState | None, after: Workload
) -> tuple[DeclaredView, WorkloadDeclared | None]:
    found = diff(None if before is None else before.spec, after)
    again = before is not None and (before.stop_requested or before.removing or before.phase in _AGAIN)
    view = _view(after, found, again=again)
    if view.kind == "unchanged":
        return view, None
    restarts = found.restarts or view.kind == "again"
    return view, WorkloadDeclared(workload=after, digest=digest(after), restarts=restarts)


def _compare_service(
    before: ServiceState | None, after: Service
) -> tuple[DeclaredView, ServiceDeclared | None]:
    """A service that was stopped comes back as it was; one whose new revision was given up tries again."""
    found = diff_services(None if before is None else before.spec, after)
    failed = before is not None and before.failed is not None
    again = before is not None and (before.stop_requested or before.removing or failed)
    view = _view(after, found, again=again)
    if view.kind == "unchanged":
        return view, None
    return view, ServiceDeclared(service=after, digest=digest(after), restarts=found.restarts or failed)


def _view(after: Workload | Service, found: Diff, *, again: bool) -> DeclaredView:
    """What a declaration is against the one before. `again`: the one before is not at work."""
    service = isinstance(after, Service)
    if found.kind == "created":
        return DeclaredView(
            name=after.name, kind="created", restarts=True, service=service, note=_begins_empty(after)
        )
    if found.kind == "unchanged":
        kind: Literal["again", "unchanged"] = "again" if again else "unchanged"
        return DeclaredView(name=after.name, kind=kind, restarts=again, service=service)
    assert found.kind == "changed", "the new declaration is there"
    restarts = found.restarts or again
    return DeclaredView(
        name=after.name, kind="changed", restarts=restarts, changes=_views(found.changes), service=service
    )


def _views(changes: Sequence[Change]) -> tuple[ChangeView, ...]:
    return tuple(
        ChangeView(path=each.path, before=each.before, after=each.after, note=each.note) for each in changes
    )


def _begins_empty(after: Workload | Service) -> str:
    """What to add to a new service that keeps no replica while nobody asks."""
    if not isinstance(after, Service) or after.scaling.min_replicas or after.scaling.initial_replicas:
        return ""
    return (
        "min_replicas is 0: one replica starts to see that the model can be served, and ends again; "
        "then nothing runs until the first request"
    )


def _parse(document: Document, here: Here, digests: MutableMapping[Path, str]) -> Parsed:
    parsed = parse(document.text, document.source)
    folder = Path(document.folder)
    if not folder.is_absolute():
        raise SpecError(
            "the folder that relative paths start from is not absolute",
            hint="give `folder` as an absolute path",
            source=document.source,
        )
    return placed(parsed, Base(folder=folder, home=here.home, user=here.user, digests=digests))


def _check_secrets(parsed: Parsed, known: Collection[str]) -> None:
    jobs = zip(parsed.workloads, parsed.origins, strict=True)
    services = zip(parsed.services, parsed.service_origins, strict=True)
    for workload, origin in jobs:
        _require_secrets(workload.name, workload.body.secrets, origin, known)
    for service, origin in services:
        _require_secrets(service.name, service.secrets, origin, known)
    if parsed.fleet is not None and parsed.fleet_origin is not None:
        tokens = [SecretRef(env=each.name, secret=each.token) for each in parsed.fleet.clusters if each.token]
        _require_secrets("the fleet", tokens, parsed.fleet_origin, known, "clusters")


def _require_secrets(
    name: str, secrets: Sequence[SecretRef], origin: Origin, known: Collection[str], section: str = "secrets"
) -> None:
    for item in secrets:
        if item.secret not in known:
            path = f"{section}.{item.env}"
            raise SpecError(
                f"{name!r} needs the secret {item.secret!r}, which is not set",
                hint=f"steer secret set {item.secret}",
                source=origin.source,
                line=origin.line_of(path),
                path=path,
                code="unknown-secret",
            )
