"""The nearest change that would let a workload run on the fleet as it is, or the nodes that it lacks.

Theory: a rank that fits nowhere is cut down to each size of node there is; the nearest is what changes
the fewest amounts, then the one that gives up the least of them (in per-mille, summed). If single ranks fit
but not all of them, the number of ranks is what is changed. A property proves that what is suggested works.
"""

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from steersman.decide.admit import may_use, ranks_by_place
from steersman.model.devices import ranks_on_devices, will_do
from steersman.model.resources import ALTERNATIVES, WHOLE_MILLI, Resources
from steersman.model.snapshot import NodeSize
from steersman.model.units import format_bytes, format_cpu
from steersman.model.workload import Workload


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """Either declare `num_nodes` ranks of `resources` (None: there is nothing to cut it down to), or add
    `add_nodes` nodes that have at least `node`, in the zone (site, zone) when there is one to be in."""

    resources: Resources | None
    num_nodes: int
    add_nodes: int
    node: Resources
    words: str
    zone: tuple[str, str] | None = None


def nearest_fix(spec: Workload, sizes: Mapping[NodeSize, int]) -> Fix | None:
    """What would let it run on empty nodes of these sizes; None when it could run as it is."""
    asked, ranks = spec.resources, spec.body.num_nodes
    places = ranks_by_place(spec, sizes)
    fit = max(places.values(), default=0)
    if fit >= ranks:
        return None
    smaller = asked if fit else _cut(spec, sizes)
    fewer = 0 if smaller is None else min(_ranks(spec, smaller, sizes), ranks)
    less = [] if smaller is None else _changed(asked, smaller)
    less += [f"num_nodes: {fewer}"] if 0 < fewer < ranks else []
    missing, node, zone = ranks - fit, asked, None
    if spec.body.topology == "node":
        missing, node = 1, _together(asked, ranks)
    elif spec.body.topology == "zone":
        zone = min(places, key=lambda place: (-places[place], place), default=None)
    where = f"zone {zone[1]} of {zone[0]}" if zone is not None and zone[1] else "the fleet"
    add = f"add {missing} node{'' if missing == 1 else 's'} with at least {_amount(node)} to {where}"
    words = f"ask for at most {', '.join(less)}, or {add}" if less else add
    return Fix(resources=smaller, num_nodes=fewer, add_nodes=missing, node=node, words=words, zone=zone)


def _ranks(spec: Workload, asked: Resources, sizes: Mapping[NodeSize, int]) -> int:
    return max(ranks_by_place(replace(spec, resources=asked), sizes).values(), default=0)


def _together(asked: Resources, ranks: int) -> Resources:
    """What one node needs for so many ranks."""
    devices = []
    for kind, count in asked.accelerators:
        one = kind.split(ALTERNATIVES)[0]
        each = ranks_on_devices(asked, kind, count, one, count)
        devices.append((kind, -(-ranks // max(each, 1)) * count))
    return replace(
        asked,
        cpu_milli=asked.cpu_milli * ranks,
        memory_bytes=asked.memory_bytes * ranks,
        accelerators=tuple(devices),
    )


def _cut(spec: Workload, sizes: Mapping[NodeSize, int]) -> Resources | None:
    """What is asked for, cut down to the nearest size of node; None when no node has any of it."""
    asked = spec.resources
    found: list[tuple[int, int, NodeSize, Resources]] = []
    for size in sizes:
        if not may_use(spec, size):
            continue
        kept = tuple((kind, _most(asked, kind, count, size)) for kind, count in asked.accelerators)
        cut = Resources(
            cpu_milli=min(asked.cpu_milli, size.cpu_milli),
            memory_bytes=min(asked.memory_bytes, size.memory_bytes),
            accelerators=tuple((kind, count) for kind, count in kept if count),
            infra=asked.infra,
        )
        if cut.accelerators:
            cut = replace(
                cut, device_milli=asked.device_milli, sharing=asked.sharing, mig_profile=asked.mig_profile
            )
        if (not asked.cpu_milli or cut.cpu_milli) and (not asked.memory_bytes or cut.memory_bytes):
            lost = _given_up(asked, cut)
            found.append((len(lost), sum(lost), size, cut))
    return min(found, key=lambda item: item[:3])[3] if found else None


def _most(asked: Resources, kind: str, count: int, size: NodeSize) -> int:
    """Of `count` devices asked for, as many as one kind of the node's has; of a part, one or none."""
    if asked.device_milli < WHOLE_MILLI or asked.mig_profile:
        return int(any(ranks_on_devices(asked, kind, 1, *have) for have in size.accelerators))
    return max((min(count, have) for name, have in size.accelerators if will_do(kind, name)), default=0)


def _given_up(asked: Resources, cut: Resources) -> list[int]:
    """For each amount that was cut, how much of it is gone, in per-mille."""
    left = dict(cut.accelerators)
    pairs = [(asked.cpu_milli, cut.cpu_milli), (asked.memory_bytes, cut.memory_bytes)]
    pairs += [(count, left.get(kind, 0)) for kind, count in asked.accelerators]
    return [(was - now) * 1000 // was for was, now in pairs if was > now]


def _changed(asked: Resources, cut: Resources) -> list[str]:
    """The amounts to change, in the words of a declaration."""
    parts = [f"cpus: {format_cpu(cut.cpu_milli)}"] if cut.cpu_milli < asked.cpu_milli else []
    parts += [f"memory: {format_bytes(cut.memory_bytes)}"] if cut.memory_bytes < asked.memory_bytes else []
    left = dict(cut.accelerators)
    for kind, count in asked.accelerators:
        now = left.get(kind, 0)
        if now < count:
            parts.append(f"accelerators: {kind}:{now}" if now else f"no {kind}")
    return parts


def _amount(resources: Resources) -> str:
    parts = [f"{format_cpu(resources.cpu_milli)} cores", f"{format_bytes(resources.memory_bytes)} of memory"]
    shared = f" (sharing: {resources.sharing})" if resources.sharing != "auto" else ""
    shared = " (sharing: mig)" if resources.mig_profile else shared
    kinds = [(kind.replace(ALTERNATIVES, " or "), count) for kind, count in resources.accelerators]
    parts += [f"{count} x {kind}{shared}" for kind, count in kinds]
    return ", ".join(parts)
