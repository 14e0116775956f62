"""Text to declarations, and the files of a folder to one declaration of everything.

Theory: `parse` reads one text, `merge` joins what several texts declare. Both hold the rules that need more
than one document: one fleet, one workload of a name, inputs that name an artifact which exists, and no circle
of dependencies. A workload that an input names and these texts do not declare may exist already: `merge`
lets it pass and `external_inputs` lists it, so that the caller can check it against what runs.

A document without `name` is called after its source, made into a valid name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from steersman.model.errors import SpecError
from steersman.model.fleet import Fleet
from steersman.model.ids import WorkloadName
from steersman.model.workload import Input, Workload
from steersman.spec import keys
from steersman.spec.fleets import read_fleet
from steersman.spec.jobs import read_job
from steersman.spec.nodes import MapNode, Node, ScalarNode, compose, decode, describe
from steersman.spec.place import Place, show

__all__ = ["Origin", "Parsed", "decode", "default_name", "external_inputs", "merge", "parse"]

NAME_CHARS_MAX = 63


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where something was declared."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What texts declare. `warnings` are words for people: source, line, path, what is not honoured.

    `origins` has one item for each workload, in the same order; `fleet_origin` belongs to `fleet`.
    """

    fleet: Fleet | None = None
    workloads: tuple[Workload, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    fleet_origin: Origin | None = None


def parse(text: str, source: str) -> Parsed:
    """What a text declares; `source` names it in messages. Raises SpecError and nothing else."""
    documents = compose(text, source)
    if not documents:
        raise SpecError("nothing is declared here", hint="declare a job: `name:` and `run:`", source=source)
    return merge([_document(document, source) for document in documents])


def merge(parsed: Sequence[Parsed]) -> Parsed:
    """What several texts declare together. Raises SpecError naming both sources of a clash."""
    workloads: list[Workload] = []
    origins: dict[WorkloadName, Origin] = {}
    fleet: Fleet | None = None
    fleet_origin: Origin | None = None
    for each in parsed:
        if each.fleet is not None:
            if fleet is not None:
                raise _clash("two fleets", fleet_origin, each.fleet_origin)
            fleet, fleet_origin = each.fleet, each.fleet_origin
        for workload, origin in zip(each.workloads, each.origins, strict=True):
            if workload.name in origins:
                raise _clash(f"two workloads called {workload.name!r}", origins[workload.name], origin)
            origins[workload.name] = origin
            workloads.append(workload)
    _check_inputs(workloads, origins)
    return Parsed(
        fleet=fleet,
        workloads=tuple(workloads),
        warnings=tuple(warning for each in parsed for warning in each.warnings),
        origins=tuple(origins[workload.name] for workload in workloads),
        fleet_origin=fleet_origin,
    )


def external_inputs(parsed: Parsed) -> tuple[tuple[WorkloadName, Input], ...]:
    """Inputs that name a workload which is not declared here: (who needs it, what), in the order declared."""
    declared = {workload.name for workload in parsed.workloads}
    return tuple(
        (workload.name, each)
        for workload in parsed.workloads
        for each in workload.body.inputs
        if each.workload not in declared
    )


def default_name(source: str) -> str:
    """A valid name made of the last part of a source's name, without its ending."""
    last = re.split(r"[/\\]", source)[-1]
    stem = re.sub(r"\.(ya?ml|json)$", "", last, flags=re.IGNORECASE)
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:NAME_CHARS_MAX].strip("-")
    return slug or "job"


def _document(node: Node, source: str) -> Parsed:
    place = Place(source=source, warnings=[])
    if not isinstance(node, MapNode):
        message = f"a declaration is a mapping of keys, and this is {describe(node)}"
        raise place.error(node.line, message, "begin with `name:` and `run:`")
    origin = Origin(source=source, line=node.line)
    name = default_name(source)
    if _kind(node, place) == "fleet":
        fleet = read_fleet(node, place, name)
        return Parsed(fleet=fleet, fleet_origin=origin, warnings=tuple(place.warnings))
    workload = read_job(node, place, name)
    return Parsed(workloads=(workload,), origins=(origin,), warnings=tuple(place.warnings))


def _kind(node: MapNode, place: Place) -> str:
    """The kind of a document: `job` when it does not say. Raises NotYetError for kinds that come later."""
    for entry in node.entries:
        if entry.key.text == keys.KIND.name:
            value = entry.value
            if isinstance(value, ScalarNode) and value.text in keys.KINDS_NOT_YET:
                raise place.at(keys.KIND.name).not_yet(
                    value.line, f"the kind `{value.text}` is not built yet", "declare a `job`"
                )
            return keys.KIND.shape.read(entry.value, place.at(keys.KIND.name))
    return keys.KINDS[0]


def _clash(what: str, first: Origin | None, second: Origin | None) -> SpecError:
    return SpecError(
        f"{what} are declared, in {first} and in {second}",
        hint="rename or remove one of them; a document without `name` is called after its file",
        source=second.source if second else "",
        line=second.line if second else None,
    )


def _check_inputs(workloads: Sequence[Workload], origins: Mapping[WorkloadName, Origin]) -> None:
    """Inputs name artifacts that exist, and dependencies have no circle."""
    by_name = {workload.name: workload for workload in workloads}
    for workload in workloads:
        for each in workload.body.inputs:
            target = by_name.get(each.workload)
            if target is not None and each.artifact not in {a.name for a in target.body.artifacts}:
                known = ", ".join(artifact.name for artifact in target.body.artifacts) or "none"
                raise SpecError(
                    f"{workload.name!r} needs {show(each.artifact)} of {target.name!r}, which leaves no such",
                    hint=f"its artifacts are: {known}",
                    source=origins[workload.name].source,
                    path=f"inputs.{each.name}",
                    line=origins[workload.name].line,
                )
    circle = _circle({name: _needs(workload, by_name) for name, workload in by_name.items()})
    if circle:
        raise SpecError(
            f"these workloads wait for one another: {' → '.join(circle)}",
            hint="remove one of the inputs",
            source=origins[circle[0]].source,
            path="inputs",
            line=origins[circle[0]].line,
        )


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
