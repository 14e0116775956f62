"""Text to declarations, and the files of a folder to one declaration of everything.

Theory: `parse` reads one text, `merge` joins what several texts declare. Both hold the rules that need more
than one document: one fleet, one gateway, one job or service of a name, and what they name of one another
(`links`).

A document without `name` is called after its source, made into a valid name.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from steersman.model.errors import SpecError
from steersman.model.fleet import Fleet
from steersman.model.ids import WorkloadName
from steersman.model.queue import Queue
from steersman.model.service import Gateway, Service
from steersman.model.workload import Workload
from steersman.spec import keys_common as keys
from steersman.spec.fleets import read_fleet
from steersman.spec.gateways import read_gateway
from steersman.spec.jobs import read_job
from steersman.spec.links import check_links
from steersman.spec.nodes import MapNode, Node, ScalarNode, compose, decode, describe
from steersman.spec.place import Origin, Place, step
from steersman.spec.queues import read_queue_document
from steersman.spec.services import read_service

__all__ = ["Origin", "Parsed", "decode", "default_name", "merge", "parse"]

NAME_CHARS_MAX = 63
SERVICE_MARKS = frozenset({"model", "service"})
"""A document with one of these keys and no kind is a service: SkyPilot's files have no kind."""


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What texts declare. `warnings` are words for people: source, line, path, what is not honoured.

    `origins` has one item for each workload, in the same order, and `service_origins` for each service;
    `fleet_origin` belongs to `fleet`, `gateway_origin` to `gateway`.
    """

    fleet: Fleet | None = None
    workloads: tuple[Workload, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    fleet_origin: Origin | None = None
    services: tuple[Service, ...] = ()
    service_origins: tuple[Origin, ...] = ()
    gateway: Gateway | None = None
    gateway_origin: Origin | None = None
    queues: tuple[Queue, ...] = ()
    queue_origins: tuple[Origin, ...] = ()


def parse(text: str, source: str) -> Parsed:
    """What a text declares; `source` names it in messages. Raises SpecError and nothing else."""
    documents = compose(text, source)
    if not documents:
        raise SpecError("nothing is declared here", hint="declare a job: `name:` and `run:`", source=source)
    return merge([_document(document, source) for document in documents])


def merge(parsed: Sequence[Parsed]) -> Parsed:
    """What several texts declare together. Raises SpecError naming both sources of a clash."""
    fleets = [(each.fleet, each.fleet_origin) for each in parsed if each.fleet is not None]
    gateways = [(each.gateway, each.gateway_origin) for each in parsed if each.gateway is not None]
    for what, found in (("two fleets", fleets), ("two gateways", gateways)):
        if len(found) > 1:
            raise _clash(what, found[0][1], found[1][1])
    origins = _origins(parsed)
    queue_origins = _queue_origins(parsed)
    workloads = [workload for each in parsed for workload in each.workloads]
    services = [service for each in parsed for service in each.services]
    check_links(workloads, services, origins)
    fleet, fleet_origin = fleets[0] if fleets else (None, None)
    gateway, gateway_origin = gateways[0] if gateways else (None, None)
    return Parsed(
        fleet=fleet,
        workloads=tuple(workloads),
        warnings=tuple(warning for each in parsed for warning in each.warnings),
        origins=tuple(origins[workload.name] for workload in workloads),
        fleet_origin=fleet_origin,
        services=tuple(services),
        service_origins=tuple(origins[service.name] for service in services),
        gateway=gateway,
        gateway_origin=gateway_origin,
        queues=tuple(queue for each in parsed for queue in each.queues),
        queue_origins=tuple(queue_origins.values()),
    )


def _queue_origins(parsed: Sequence[Parsed]) -> dict[str, Origin]:
    """Where each queue is declared. Raises SpecError for a name that stands twice."""
    origins: dict[str, Origin] = {}
    for each in parsed:
        for queue, origin in zip(each.queues, each.queue_origins, strict=True):
            if queue.name in origins:
                raise _clash(f"two queues called {queue.name!r}", origins[queue.name], origin)
            origins[queue.name] = origin
    return origins


def _origins(parsed: Sequence[Parsed]) -> dict[WorkloadName, Origin]:
    """Where each job and service is declared. Raises SpecError for a name that stands twice."""
    origins: dict[WorkloadName, Origin] = {}
    jobs: set[WorkloadName] = set()
    for each in parsed:
        declared: tuple[Workload | Service, ...] = (*each.workloads, *each.services)
        for one, origin in zip(declared, (*each.origins, *each.service_origins), strict=True):
            if one.name in origins:
                what = _two(one, is_job=one.name in jobs)
                raise _clash(f"{what} called {one.name!r}", origins[one.name], origin)
            origins[one.name] = origin
            if isinstance(one, Workload):
                jobs.add(one.name)
    return origins


def _two(second: Workload | Service, *, is_job: bool) -> str:
    if is_job != isinstance(second, Workload):
        return "a job and a service"
    return "two workloads" if is_job else "two services"


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
    origin = Origin(source=source, line=node.line, lines=tuple(_lines(node)))
    name = default_name(source)
    warnings = place.warnings
    match _kind(node, place):
        case "fleet":
            fleet = read_fleet(node, place, name)
            return Parsed(fleet=fleet, fleet_origin=origin, warnings=tuple(warnings))
        case "gateway":
            gateway = read_gateway(node, place)
            return Parsed(gateway=gateway, gateway_origin=origin, warnings=tuple(warnings))
        case "queue":
            queue = read_queue_document(node, place, name)
            return Parsed(queues=(queue,), queue_origins=(origin,), warnings=tuple(warnings))
        case "service":
            service = read_service(node, place, name)
            return Parsed(services=(service,), service_origins=(origin,), warnings=tuple(warnings))
        case _:
            workload = read_job(node, place, name)
            return Parsed(workloads=(workload,), origins=(origin,), warnings=tuple(warnings))


def _lines(node: MapNode) -> Iterator[tuple[str, int]]:
    """Where the keys of a document stand, and those right below them: what names a file is no deeper."""
    for entry in node.entries:
        name = step(entry.key.text)
        yield name, entry.key.line
        inner = entry.value.entries if isinstance(entry.value, MapNode) else ()
        yield from ((f"{name}.{step(each.key.text)}", each.key.line) for each in inner)


def _kind(node: MapNode, place: Place) -> str:
    """The kind of a document; when it does not say, `service` by its keys, else `job`.

    Raises NotYetError for kinds that come later.
    """
    for entry in node.entries:
        if entry.key.text == keys.KIND.name:
            value = entry.value
            if isinstance(value, ScalarNode) and value.text in keys.KINDS_NOT_YET:
                raise place.at(keys.KIND.name).not_yet(
                    value.line, f"the kind `{value.text}` is not built yet", "declare a `job` or a `service`"
                )
            return keys.KIND.shape.read(entry.value, place.at(keys.KIND.name))
    return "service" if any(entry.key.text in SERVICE_MARKS for entry in node.entries) else "job"


def _clash(what: str, first: Origin | None, second: Origin | None) -> SpecError:
    return SpecError(
        f"{what} are declared, in {first} and in {second}",
        hint="rename or remove one of them; a document without `name` is called after its file",
        source=second.source if second else "",
        line=second.line if second else None,
    )
