"""Where work can run: nodes at sites, grouped into one declared fleet."""

import msgspec

from steersman.model.ids import NodeId
from steersman.model.resources import Device

DEFAULT_SITE = "local"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine, or a declared part of one, that can hold runs.

    `driver` names the adapter that acts on it (``local`` is this machine's processes). `cpu_milli` and
    `memory_bytes` are what Steersman may hand out, which can be less than the machine has.
    """

    id: NodeId
    driver: str = "local"
    site: str = DEFAULT_SITE
    cpu_milli: int
    memory_bytes: int
    devices: tuple[Device, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes that may be used, sorted by id. Declared whole: a node that is absent leaves the fleet."""

    name: str
    nodes: tuple[Node, ...]
