"""What Ray says of a node as a node of the fleet, and a placement as what Ray is asked to reserve.

Ray counts GPUs in one number whatever their make; a node has one make, named by a resource
`accelerator_type:…` or a label. Every other resource with a whole number is a kind of its own (`TPU`,
`neuron_cores`, a user's `slot`), each unit of it a device. Which GPU a program sees is Steersman's choice,
as on this machine.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steersman.model.decisions import Placement
from steersman.model.devices import modes_of
from steersman.model.fleet import Cluster, Node
from steersman.model.ids import DeviceId, NodeId
from steersman.model.resources import WHOLE_MILLI, Device

NODE_ID = "ray.io/node-id"
MAKE_LABEL = "ray.io/accelerator-type"
ZONE_LABELS = ("zone", "ray.io/availability-zone", "topology.kubernetes.io/zone")
MARKET_LABEL = "ray.io/market-type"
MAKE_PREFIX = "accelerator_type:"
PLAIN_GPU = "GPU"
OWN = frozenset({"CPU", "GPU", "memory", "object_store_memory"})
UNITS_MAX = 1_024
"""A resource of which a node has more is an amount, not so many devices; it is left to others."""
MEMORY_SHARE_PERCENT = 95
"""Ray offers all memory that was free; actors need some that nobody declared."""

_NOT_NAME = re.compile(r"[^a-z0-9]+")


def node_names(cluster: str, raw: Sequence[Mapping[str, Any]]) -> dict[str, NodeId]:
    """Ray's node ids with the names that they get: cluster and address; with a piece of the id where several
    had the same address, living or dead, so that no name passes from one to another while one looks."""
    count = Counter(node["ip"] for node in raw)
    names = {}
    for node in raw:
        name = f"{cluster}-{_NOT_NAME.sub('-', node['ip'].lower()).strip('-')}"
        names[node["id"]] = NodeId(name if count[node["ip"]] == 1 else f"{name}-{node['id'][:6]}")
    return names


def nodes_of(cluster: Cluster, raw: Sequence[Mapping[str, Any]]) -> tuple[Node, ...]:
    """The nodes of a cluster that are up, by name."""
    names = node_names(cluster.name, raw)
    found = [_node(cluster, names[each["id"]], each) for each in raw if each["alive"]]
    return tuple(sorted(found, key=lambda node: node.id))


def _node(cluster: Cluster, name: NodeId, raw: Mapping[str, Any]) -> Node:
    resources, labels = raw["resources"], raw["labels"]
    zone = next((labels[key] for key in ZONE_LABELS if labels.get(key)), cluster.zone)
    spot = labels.get(MARKET_LABEL) == "spot"
    kept = {key: value for key, value in labels.items() if not key.startswith("ray.io/")}
    kept[NODE_ID] = raw["id"]
    return Node(
        id=name,
        driver=cluster.driver,
        site=cluster.site,
        cpu_milli=int(resources.get("CPU", 0) * 1000),
        memory_bytes=int(resources.get("memory", 0)) * MEMORY_SHARE_PERCENT // 100,
        devices=tuple(_devices(name, resources, labels)),
        labels=tuple(sorted(kept.items())),
        zone=zone,
        pool=cluster.pool,
        market="spot" if spot else cluster.market,
        price_usd_micro_per_hour=cluster.price_usd_micro_per_hour,
        infra=cluster.infra,
    )


def _devices(name: str, resources: Mapping[str, float], labels: Mapping[str, str]) -> Iterable[Device]:
    for kind, amount in sorted(_kinds(resources, labels).items()):
        sharing = tuple(mode for mode in modes_of(kind) if mode == "time-slice")
        for number in range(amount):
            yield Device(id=DeviceId(f"{name}/{kind}-{number}"), kind=kind, sharing=sharing)


def _kinds(resources: Mapping[str, float], labels: Mapping[str, str]) -> dict[str, int]:
    found = {}
    makes = [name.removeprefix(MAKE_PREFIX) for name in sorted(resources) if name.startswith(MAKE_PREFIX)]
    if gpus := int(resources.get("GPU", 0)):
        found[labels.get(MAKE_LABEL) or (makes[0] if makes else PLAIN_GPU)] = gpus
    for name, amount in resources.items():
        named = name in OWN or name.startswith(("node:", MAKE_PREFIX)) or name.endswith("-head")
        if not named and amount == int(amount) and 0 < amount <= UNITS_MAX:
            found[name] = int(amount)
    return found


def asked(placement: Placement, devices: Sequence[Device], raw: Mapping[str, Any]) -> dict[str, float]:
    """What Ray is asked to reserve for a rank on a node with these devices."""
    kinds = {device.id: device.kind for device in devices}
    wanted: dict[str, float] = {}
    if placement.cpu_milli:
        wanted["CPU"] = placement.cpu_milli / 1000
    if placement.memory_bytes:
        wanted["memory"] = float(placement.memory_bytes)
    for device in placement.devices:
        kind = kinds.get(device, PLAIN_GPU)
        name = kind if kind in raw["resources"] else "GPU"
        wanted[name] = wanted.get(name, 0.0) + placement.device_milli / WHOLE_MILLI
    return wanted
