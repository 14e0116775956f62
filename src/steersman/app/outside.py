"""What a submission meets that was declared before it: jobs whose artifacts it names, names that are taken.

Theory of operation. The parser checks what is declared together; here the same rules are held against the
snapshot. A job waits for an artifact of a job that must be there. A service may be declared before the job
whose artifact it serves: it waits, and a warning says so. A name stands for a job or for a service; while the
one is there, it cannot become the other.
"""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

from msgspec.structs import replace

from steersman.model.errors import SpecError
from steersman.model.ids import WorkloadName
from steersman.model.service import ArtifactRef
from steersman.model.snapshot import Snapshot, WorkloadState
from steersman.model.workload import Workload
from steersman.spec.links import (
    MODEL_PATH,
    check_artifact,
    external_inputs,
    external_models,
    from_service,
)
from steersman.spec.parse import Origin, Parsed, merge

NAMES_SHOWN_MAX = 5
"""How many names a hint lists."""


def nearest(name: str, known: Collection[str]) -> str:
    """A hint that names the known name that is most like this one, or what there is; may be empty."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "no workload is declared"
    shown = sorted(known)[:NAMES_SHOWN_MAX]
    rest = " …" if len(known) > NAMES_SHOWN_MAX else ""
    return f"there {'is' if len(known) == 1 else 'are'}: {', '.join(shown)}{rest}"


def check_kinds(parsed: Parsed, snapshot: Snapshot) -> None:
    """Raises SpecError when a job is declared under the name of a service that is there, or the other way."""
    for workload, origin in zip(parsed.workloads, parsed.origins, strict=True):
        if workload.name in snapshot.services:
            raise _taken(workload.name, "a service", "a job", origin)
    for service, origin in zip(parsed.services, parsed.service_origins, strict=True):
        if service.name in snapshot.workloads:
            raise _taken(service.name, "a job", "a service", origin)


def _taken(name: WorkloadName, was: str, becomes: str, origin: Origin) -> SpecError:
    return SpecError(
        f"{name!r} is {was}, and is declared as {becomes} here",
        hint=f"steer down {name} first, or choose another name",
        source=origin.source,
        line=origin.line_of("name"),
        path="name",
    )


def check_inputs(parsed: Parsed, snapshot: Snapshot) -> None:
    """Raises SpecError for an input from outside that leads nowhere, and for a circle through it."""
    origins = {
        workload.name: origin for workload, origin in zip(parsed.workloads, parsed.origins, strict=True)
    }
    outside = external_inputs(parsed.workloads)
    for name, item in outside:
        path = f"inputs.{item.name}"
        if item.workload in snapshot.services:
            raise from_service(name, item.workload, origins[name], path)
        if _job(snapshot, item.workload) is None:
            raise SpecError(
                f"{name!r} needs an artifact of {item.workload!r}, which is declared nowhere",
                hint=nearest(item.workload, [*_jobs(snapshot), *origins]),
                source=origins[name].source,
                line=origins[name].line_of(path),
                path=path,
            )
    reached = _reached([item.workload for _, item in outside], snapshot, origins)
    if reached:
        # The parser's own check of artifacts and circles, over what is here and what it leans on.
        there = Origin(source="declared before", line=0)
        before = Parsed(workloads=reached, origins=(there,) * len(reached))
        merge([replace(parsed, fleet=None, gateway=None), before])


def check_models(parsed: Parsed, snapshot: Snapshot) -> Iterator[str]:
    """Warnings about models whose job is declared nowhere yet.

    Raises SpecError for one whose job is there and leaves no such artifact, or is a service.
    """
    origins = {
        service.name: origin for service, origin in zip(parsed.services, parsed.service_origins, strict=True)
    }
    for service, source in external_models(parsed.workloads, parsed.services):
        origin = origins[service.name]
        if source.workload in snapshot.services:
            raise from_service(service.name, source.workload, origin, MODEL_PATH)
        job = _job(snapshot, source.workload)
        if job is None:
            yield _pending(source, origin, [*_jobs(snapshot), *(each.name for each in parsed.workloads)])
        else:
            check_artifact(service.name, source, job.spec, origin, MODEL_PATH)


def _pending(source: ArtifactRef, origin: Origin, known: Collection[str]) -> str:
    close = get_close_matches(source.workload, known, n=1)
    question = f" (did you mean {close[0]!r}?)" if close else ""
    place = f"{origin.source}:{origin.line_of(MODEL_PATH)}: {MODEL_PATH}"
    return (
        f"{place}: no job {source.workload!r} is declared{question}: "
        f"the service waits until one has left {source.artifact!r}"
    )


def _job(snapshot: Snapshot, name: WorkloadName) -> WorkloadState | None:
    """A job that is there to stay."""
    state = snapshot.workloads.get(name)
    return None if state is None or state.removing else state


def _jobs(snapshot: Snapshot) -> list[str]:
    """The names of the jobs that users declared: a replica's name is not one that a user can write."""
    return [name for name, _ in snapshot.workloads.sorted_items() if "." not in name]


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
            left += (item.workload for item in state.spec.body.inputs)
    return tuple(found[name] for name in sorted(found))
