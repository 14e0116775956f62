"""From texts to events: what a submission changes, against what is there.

Theory of operation. All documents are parsed and checked before anything comes of them, and all of it becomes
one list of events that the journal takes in one commit: a submission is accepted whole or not at all. What is
declared already and has not changed gives no event, so that `up` may be said again and again; only a workload
that failed or was stopped is declared anew by it, for then the user asks for it again.

What the parser cannot know is checked here: that a workdir exists, that inputs from outside the submission
name workloads and artifacts that are there, that nothing waits in a circle, that secrets are set.

A workdir is part of a declaration with all that is in it: its digest is taken here, so that a script that
was edited is a change like any other. That reads every file of it, so `read` is a step of its own, which
needs no snapshot: nobody who declares something else waits for it.
"""

import os
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from difflib import get_close_matches
from pathlib import Path

import msgspec
from msgspec.structs import replace

from steersman.app.machine import Machine
from steersman.app.wire import ChangeView, DeclaredView, Document, Submission
from steersman.drivers.local.folders import workdir_digest
from steersman.model.errors import DriverError, SpecError
from steersman.model.events import Event, FleetDeclared, WorkloadDeclared
from steersman.model.fleet import Fleet
from steersman.model.ids import WorkloadName
from steersman.model.snapshot import Phase, Snapshot, WorkloadState
from steersman.model.units import format_bytes, format_cpu
from steersman.model.workload import Workload
from steersman.spec.diff import diff
from steersman.spec.digest import digest
from steersman.spec.parse import Origin, Parsed, external_inputs, merge, parse

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
    """What a submission comes to. `fleet` is the name of a fleet that is new or changed."""

    events: tuple[Event, ...]
    workloads: tuple[DeclaredView, ...]
    fleet: str | None
    warnings: tuple[str, ...]


def declare(submission: Submission, snapshot: Snapshot, here: Here) -> Declaration:
    """The events of a submission. Raises SpecError, and then nothing of it counts."""
    return compare(read(submission, here), snapshot, here)


def read(submission: Submission, here: Here) -> Parsed:
    """What a submission says, whatever is declared already; reads every workdir whole. Raises SpecError."""
    digests: dict[Path, str] = {}
    return merge([_parse(document, here, digests) for document in submission.documents])


def compare(parsed: Parsed, snapshot: Snapshot, here: Here) -> Declaration:
    """The events of what was read, against what is declared. Raises SpecError."""
    _check_inputs(parsed, snapshot)
    _check_secrets(parsed, here.secrets)
    fleet = _fleet(parsed, snapshot, here)
    events: list[Event] = [] if fleet is None else [FleetDeclared(fleet=fleet)]
    workloads = []
    for workload in parsed.workloads:
        view, event = _compare(snapshot.workloads.get(workload.name), workload)
        workloads.append(view)
        events += [] if event is None else [event]
    return Declaration(
        events=tuple(events),
        workloads=tuple(workloads),
        fleet=None if fleet is None else fleet.name,
        warnings=(*parsed.warnings, *_too_large(parsed.fleet, here.machine)),
    )


def nearest(name: str, known: Collection[str]) -> str:
    """A hint that names the known name that is most like this one, or what there is; may be empty."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "no workload is declared"
    shown = sorted(known)[:5]
    return f"there {'is' if len(known) == 1 else 'are'}: {', '.join(shown)}{' …' if len(known) > 5 else ''}"


# Fleet.


def declared_fleet(snapshot: Snapshot) -> Fleet | None:
    """The fleet as last declared, from the snapshot."""
    if snapshot.fleet_name is None:
        return None
    nodes = [state.node for _, state in snapshot.nodes.sorted_items() if state.declared]
    return Fleet(name=snapshot.fleet_name, nodes=tuple(nodes))


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


# Workloads.


def _compare(before: WorkloadState | None, after: Workload) -> tuple[DeclaredView, WorkloadDeclared | None]:
    found = diff(None if before is None else before.spec, after)
    assert found.kind != "removed", "the new declaration is there"
    changes = (
        ()
        if before is None
        else tuple(
            ChangeView(path=each.path, before=each.before, after=each.after, note=each.note)
            for each in found.changes
        )
    )
    event = WorkloadDeclared(workload=after, digest=digest(after), restarts=found.restarts)
    if before is None:
        return DeclaredView(name=after.name, kind="created", restarts=True), event
    leaving = before.stop_requested or before.removing
    if found.kind == "changed":
        restarts = found.restarts or leaving or before.phase in _AGAIN
        return DeclaredView(name=after.name, kind="changed", restarts=restarts, changes=changes), event
    if leaving or before.phase in _AGAIN:
        return DeclaredView(name=after.name, kind="again", restarts=True), replace(event, restarts=True)
    return DeclaredView(name=after.name, kind="unchanged"), None


def _parse(document: Document, here: Here, digests: MutableMapping[Path, str]) -> Parsed:
    parsed = parse(document.text, document.source)
    folder = Path(document.folder)
    if not folder.is_absolute():
        raise SpecError(
            "the folder that relative paths start from is not absolute",
            hint="give `folder` as an absolute path",
            source=document.source,
        )
    workloads = tuple(
        _with_files(_placed(workload, origin, folder, here), origin, digests)
        for workload, origin in zip(parsed.workloads, parsed.origins, strict=True)
    )
    return replace(parsed, workloads=workloads)


def _placed(workload: Workload, origin: Origin, folder: Path, here: Here) -> Workload:
    """The workload with its workdir as an absolute path of a folder that is there."""
    text = workload.body.workdir
    if text is None:
        return workload
    first, _, rest = text.partition("/")
    start = here.user / rest if first == "~" else folder / text
    path = Path(os.path.abspath(start))  # noqa: PTH100 - Path.absolute keeps `..`, resolve follows links
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise _wrong_workdir(
            origin, f"the workdir {str(path)!r} {what}", "it is relative to the file's folder"
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise _wrong_workdir(origin, f"the workdir {str(path)!r} cannot be read", "check its mode")
    if here.home.resolve().is_relative_to(path.resolve()):
        raise _wrong_workdir(
            origin,
            f"the workdir {str(path)!r} contains Steersman's home {here.home}",
            "give the job a folder of its own, or choose another home with --home",
        )
    return replace(workload, body=replace(workload.body, workdir=str(path)))


def _with_files(workload: Workload, origin: Origin, digests: MutableMapping[Path, str]) -> Workload:
    """The workload with the digest of what is in its workdir; `digests` holds those already taken."""
    if workload.body.workdir is None:
        return workload
    path = Path(workload.body.workdir)
    try:
        found = digests[path] if path in digests else workdir_digest(path)
    except DriverError as error:
        raise _wrong_workdir(origin, error.message, error.hint) from error
    except OSError as error:
        what = f"{error.filename!r} in the workdir cannot be read: {error.strerror}"
        raise _wrong_workdir(origin, what, "check its mode, or keep it out of the workdir") from error
    digests[path] = found
    return replace(workload, body=replace(workload.body, workdir_digest=found))


def _wrong_workdir(origin: Origin, message: str, hint: str) -> SpecError:
    return SpecError(message, hint=hint, source=origin.source, line=origin.line, path="workdir")


def _check_secrets(parsed: Parsed, known: Collection[str]) -> None:
    for workload, origin in zip(parsed.workloads, parsed.origins, strict=True):
        for item in workload.body.secrets:
            if item.secret not in known:
                raise SpecError(
                    f"{workload.name!r} needs the secret {item.secret!r}, which is not set",
                    hint=f"steer secret set {item.secret}",
                    source=origin.source,
                    line=origin.line,
                    path=f"secrets.{item.env}",
                    code="unknown-secret",
                )


# Inputs from outside the submission.


def _check_inputs(parsed: Parsed, snapshot: Snapshot) -> None:
    origins = {
        workload.name: origin for workload, origin in zip(parsed.workloads, parsed.origins, strict=True)
    }
    outside = external_inputs(parsed)
    for name, item in outside:
        state = snapshot.workloads.get(item.workload)
        if state is None or state.removing:
            names = [known for known, _ in snapshot.workloads.sorted_items()]
            raise SpecError(
                f"{name!r} needs an artifact of {item.workload!r}, which is declared nowhere",
                hint=nearest(item.workload, [*names, *origins]),
                source=origins[name].source,
                line=origins[name].line,
                path=f"inputs.{item.name}",
            )
    reached = _reached([item.workload for _, item in outside], snapshot, origins)
    if reached:
        # The parser's own check of artifacts and circles, over what is here and what it leans on.
        there = Origin(source="declared before", line=0)
        merge([replace(parsed, fleet=None), Parsed(workloads=reached, origins=(there,) * len(reached))])


def _reached(
    first: list[WorkloadName], snapshot: Snapshot, here: Mapping[WorkloadName, Origin]
) -> tuple[Workload, ...]:
    """The workloads outside the submission that it leans on, directly or through others."""
    found: dict[WorkloadName, Workload] = {}
    left = list(first)
    while left:
        name = left.pop()
        state = None if name in found or name in here else snapshot.workloads.get(name)
        if state is not None:
            found[name] = state.spec
            left += _sources(state.spec)
    return tuple(found[name] for name in sorted(found))


def _sources(workload: Workload) -> Iterator[WorkloadName]:
    return (item.workload for item in workload.body.inputs)
