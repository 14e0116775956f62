"""What declarations name of one another: the artifacts that jobs take in and that services serve.

Theory: a link is "who needs which artifact of whom". Within what is declared together it is checked here: its
source is a job, leaves that artifact, and nothing waits for itself in a circle. A source that is not declared
here may exist already: it is let pass, and `external_inputs` and `external_models` list it, so that the
caller can check it against what runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches

from steersman.model.errors import SpecError
from steersman.model.ids import WorkloadName
from steersman.model.service import ArtifactRef, OnnxModel, Service
from steersman.model.workload import Input, Workload
from steersman.spec.place import SHOWN_CHARS_MAX, Origin, show

MODEL_PATH = "model.artifact"


def model_source(service: Service) -> ArtifactRef | None:
    """The artifact that a service serves; None when its model is something else."""
    return service.model.artifact if isinstance(service.model, OnnxModel) else None


def external_inputs(workloads: Sequence[Workload]) -> tuple[tuple[WorkloadName, Input], ...]:
    """Inputs that name a workload which is not among these: (who needs it, what), in the order declared."""
    declared = {workload.name for workload in workloads}
    return tuple(
        (workload.name, each)
        for workload in workloads
        for each in workload.body.inputs
        if each.workload not in declared
    )


def external_models(
    workloads: Sequence[Workload], services: Sequence[Service]
) -> tuple[tuple[Service, ArtifactRef], ...]:
    """Services whose model is the artifact of a workload which is not among these, likewise."""
    declared = {workload.name for workload in workloads}
    sources = ((service, model_source(service)) for service in services)
    return tuple((one, source) for one, source in sources if source and source.workload not in declared)


def check_links(
    workloads: Sequence[Workload], services: Sequence[Service], origins: Mapping[WorkloadName, Origin]
) -> None:
    """Raises SpecError for a source that is a service or leaves no such artifact, and for a circle."""
    jobs = {workload.name: workload for workload in workloads}
    serving = {service.name for service in services}
    for name, source, path in _links(workloads, services):
        origin = origins[name]
        if source.workload in serving:
            raise from_service(name, source.workload, origin, path)
        job = jobs.get(source.workload)
        if job is not None:
            check_artifact(name, source, job, origin, path)
    circle = _circle({name: _needs(workload, jobs) for name, workload in jobs.items()})
    if circle:
        raise SpecError(
            f"these workloads wait for one another: {' → '.join(circle)}",
            hint="remove one of the inputs",
            source=origins[circle[0]].source,
            path="inputs",
            line=origins[circle[0]].line_of("inputs"),
        )


def check_artifact(name: WorkloadName, source: ArtifactRef, job: Workload, origin: Origin, path: str) -> None:
    """Raises SpecError when the job leaves no artifact of that name; `name` is who needs it."""
    known = [artifact.name for artifact in job.body.artifacts]
    if source.artifact in known:
        return
    close = get_close_matches(source.artifact[:SHOWN_CHARS_MAX], known, n=1)
    nearest = f"did you mean {close[0]!r}? " if close else ""
    raise SpecError(
        f"{name!r} needs {show(source.artifact)} of {job.name!r}, which leaves no such",
        hint=f"{nearest}its artifacts are: {', '.join(known) or 'none'}",
        source=origin.source,
        path=path,
        line=origin.line_of(path),
    )


def from_service(name: WorkloadName, service: WorkloadName, origin: Origin, path: str) -> SpecError:
    """The refusal of a link to a service."""
    return SpecError(
        f"{name!r} needs an artifact of {service!r}, which is a service and leaves none",
        hint="name a job and one of its `artifacts`",
        source=origin.source,
        path=path,
        line=origin.line_of(path),
    )


def _links(
    workloads: Sequence[Workload], services: Sequence[Service]
) -> Iterator[tuple[WorkloadName, ArtifactRef, str]]:
    for workload in workloads:
        for each in workload.body.inputs:
            source = ArtifactRef(workload=each.workload, artifact=each.artifact)
            yield workload.name, source, f"inputs.{each.name}"
    for service in services:
        model = model_source(service)
        if model is not None:
            yield service.name, model, MODEL_PATH


def _needs(workload: Workload, declared: Mapping[WorkloadName, Workload]) -> tuple[WorkloadName, ...]:
    return tuple(each.workload for each in workload.body.inputs if each.workload in declared)


def _circle(needs: Mapping[WorkloadName, Sequence[WorkloadName]]) -> list[WorkloadName]:
    """A circle of dependencies, its first name again at the end; empty when there is none.

    Walks down iteratively: a chain of a hundred thousand workloads must not meet the interpreter's stack.
    """
    done: set[WorkloadName] = set()
    for root in needs:
        path: dict[WorkloadName, Iterator[WorkloadName]] = {} if root in done else {root: iter(needs[root])}
        while path:
            last = next(reversed(path))
            following = next(path[last], None)
            if following is None:
                done.add(last)
                del path[last]
            elif following in path:
                names = list(path)
                return [*names[names.index(following) :], following]
            elif following not in done:
                path[following] = iter(needs[following])
    return []
