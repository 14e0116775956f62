"""Where work can run: nodes at sites, grouped into one declared fleet."""

from typing import Literal

import msgspec

from steersman.model.ids import NodeId
from steersman.model.resources import Device

DEFAULT_SITE = "local"
LOCAL = "local"
LEASE_MS_DEFAULT = 30_000

Market = Literal["on-demand", "spot", "reserved"]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine, or a declared part of one, that can hold runs.

    `driver` names the adapter that acts on it (``local`` is this machine's processes). `cpu_milli` and
    `memory_bytes` are what Steersman may hand out, which can be less than the machine has. `zone` is its part
    of the site, `pool` the like nodes that it is one of. `market` is how it is paid for: ``spot`` capacity
    may be taken away. `price_usd_micro_per_hour` None: unknown, which is not 0. `infra` is where it
    belongs, as a job names it: ``local``, or engine and cluster: ``ray/gpu``.
    """

    id: NodeId
    driver: str = "local"
    site: str = DEFAULT_SITE
    cpu_milli: int
    memory_bytes: int
    devices: tuple[Device, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    zone: str = ""
    pool: str = ""
    market: Market = "on-demand"
    price_usd_micro_per_hour: int | None = None
    infra: str = LOCAL

    @property
    def cluster(self) -> str:
        """The name of the cluster that it was found on; empty for a declared node."""
        return "" if self.infra == LOCAL else self.infra.partition("/")[2]


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Machines that a distributed engine has joined: their nodes are found, not declared.

    `address` is where its head is reached. `token` names the secret that opens it; empty: none is needed.
    `allow_open`: it may be used although strangers can run programs on it. `python` is an interpreter
    that has the engine; empty: Steersman's own. `runtime_env` is what the engine makes each rank's
    environment of, a JSON object. `node_dir` is the folder for Steersman's files on its nodes; empty: their
    temporary one. `shared_dir` is one that all nodes and this machine share. A rank that could not reach the
    cluster's head for `lease_ms` ends itself, and may begin elsewhere from then on. The rest is as for a
    node.
    """

    name: str
    driver: str = "ray"
    address: str
    token: str = ""
    allow_open: bool = False
    python: str = ""
    runtime_env: str = "{}"
    node_dir: str = ""
    shared_dir: str = ""
    lease_ms: int = LEASE_MS_DEFAULT
    site: str = DEFAULT_SITE
    zone: str = ""
    pool: str = ""
    market: Market = "on-demand"
    price_usd_micro_per_hour: int | None = None

    @property
    def infra(self) -> str:
        """What a job writes to run on it."""
        return f"{self.driver}/{self.name}"


def is_within(infra: str, asked: str) -> bool:
    """Whether a node's infrastructure is what is asked for: ``ray`` is any cluster of Ray, empty anything."""
    return not asked or infra == asked or infra.startswith(f"{asked}/")


def serves(node: Node, pools: tuple[str, ...], infra: str = "") -> bool:
    """Whether work that names these pools and this infrastructure may go to the node.

    Spot takes only work that names its pool.
    """
    here = node.pool in pools if pools else node.market != "spot"
    return here and (not infra or is_within(node.infra, infra))


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes that may be used, sorted by id, and clusters, whose nodes are found. Declared whole: a node
    or cluster that is absent leaves the fleet."""

    name: str
    nodes: tuple[Node, ...]
    clusters: tuple[Cluster, ...] = ()
