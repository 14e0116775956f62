"""Where a single rank goes, by what the node is worth to the work still to come. A part of `schedule`.

Theory of operation. `pack` knows nodes with devices of one kind, whose parts it counts in thousandths. Here
the fleet is put before it: each node with its flavor, which is the kind of its devices, whether they may be
shared, and its pool; an ask names the flavors that will do. What fits no such picture (nodes with several
kinds of devices, ranks that want several, MIG instances, gangs) is placed by best fit in `fit`.

A placer is a memo: it keeps the nodes indexed between cycles, and looks only at those that changed. It may be
thrown away at any time, and the decisions are the same (a property proves it), for what was learned is in
the snapshot, and which of two equal nodes is taken follows from their names.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from steersman.decide.fit import free_cores, free_memory, is_over
from steersman.decide.pack import NodeState as PackNode
from steersman.decide.pack import Packer, is_due
from steersman.decide.pack_price import Size
from steersman.model.decisions import Placement
from steersman.model.devices import will_do
from steersman.model.fleet import LOCAL, Node, is_within
from steersman.model.ids import DeviceId, NodeId
from steersman.model.packing import Ask, Basis, PackingUpdate
from steersman.model.resources import ALTERNATIVES, ANY_KIND, WHOLE_MILLI
from steersman.model.snapshot import NodeState, Shape, Snapshot
from steersman.model.table import Table, TableEditor
from steersman.state.derive import takes_work
from steersman.state.draft import Draft
from steersman.state.packing import ask_of, update

Where = tuple[tuple[str, ...], str]
"""Pools and infrastructure that work names."""
ANYWHERE: Where = ((), "")


class Flavor(NamedTuple):
    """What nodes have in common that decides who may go there.

    `kinds` of their devices; whether all of these may be shared by time slices (`sliced`) and any of them be
    cut into MIG instances (`cut`).
    """

    kinds: tuple[str, ...]
    sliced: bool
    cut: bool
    spot: bool
    pool: str
    infra: str = LOCAL

    @property
    def name(self) -> str:
        """Its name among the packer's models: the kind, where nothing else tells flavors apart."""
        kinds, whole = "".join(self.kinds), "" if self.sliced else "/whole"
        pool, infra = self.pool and f"@{self.pool}", "" if self.infra == LOCAL else f"#{self.infra}"
        return f"{kinds}{whole}{pool}{infra}"

    def serves(self, pools: tuple[str, ...], infra: str = "") -> bool:
        """Whether work that names these may go there; see `model.fleet.serves`."""
        here = self.pool in pools if pools else not self.spot
        return here and is_within(self.infra, infra)


class Look(NamedTuple):
    """What follows from a node as it was declared: its flavor, and its devices by id."""

    node: Node
    flavor: Flavor
    devices: tuple[DeviceId, ...]


class Placer:
    """The fleet as the packer sees it; for one caller at a time."""

    def __init__(self) -> None:
        self._packer = Packer()
        self._synced: Table[NodeState] = Table()
        self._ahead: set[NodeId] = set()
        self._looks: dict[NodeId, Look] = {}
        self._flavors: dict[Flavor, int] = {}
        self._will_do: dict[tuple[str, bool, Where], tuple[str, ...] | None] = {}
        self._basis = Basis()
        self._known = True  # whether the packer has been told of it as the flavors are now

    def begin(self, snapshot: Snapshot) -> PackingUpdate | None:
        """Take in the fleet as it is; what a cycle on this snapshot learns, which is then obeyed."""
        changed = self._ahead.union(NodeId(key) for key in snapshot.nodes.keys_unlike(self._synced))
        self._synced, self._ahead = snapshot.nodes, set()
        self._take(changed, snapshot.nodes)
        known, news = snapshot.packing, None
        if is_due(known.arrived, known.basis, known.since_price):
            counts, since_price = self._named(known.counts), known.since_price
            news = self._packer.news(counts, known.basis, since_price, self._largest())
            known = known if news is None else update(known, news)
        if not self._known or known.basis != self._basis:
            self._basis, self._known = known.basis, True
            named = self._named(dict(known.basis.counts))
            self._packer.know(known.basis._replace(counts=tuple(sorted(named.items()))))
        self._packer.charge(known.prices)
        return news

    def place(self, draft: Draft, shape: Shape) -> Placement | None:
        """The lease of the one rank of a shape, or None when it has no room, or is not for the packer."""
        self._ahead |= draft.touched
        self._take(draft.touched, draft.nodes)
        draft.touched.clear()
        models = self._models(shape) if is_for_packer(shape) else None
        if models is None:
            return None
        found = self._packer.place(ask_of(shape)._replace(models=models), first_try=False)
        if found is None:
            return None
        node = NodeId(found.node)
        self._ahead.add(node)
        devices = self._looks[node].devices
        return Placement(
            rank=0,
            node=node,
            cpu_milli=shape.cpu_milli,
            memory_bytes=shape.memory_bytes,
            devices=tuple(sorted(devices[index] for index in found.devices)),
            device_milli=shape.device_milli if found.devices else WHOLE_MILLI,
        )

    def has_mixed(self) -> bool:
        """Whether there are nodes with several kinds of devices, which the packer does not see."""
        return any(len(flavor.kinds) > 1 for flavor in self._flavors)

    def has_mig(self) -> bool:
        """Whether any device may be cut into MIG instances."""
        return any(flavor.cut for flavor in self._flavors)

    def _take(self, names: Iterable[NodeId], nodes: Table[NodeState] | TableEditor[NodeState]) -> None:
        """Nodes that may have changed, as they are now."""
        for name in sorted(names):
            state = nodes.get(name)
            if state is None or not takes_work(state):
                self._note(name, None)
                self._packer.drop(name)
                continue
            look = self._looks.get(name)
            if look is None or look.node is not state.node:
                look = look_at(state.node)
                self._note(name, look)
            if len(look.flavor.kinds) > 1:
                self._packer.drop(name)
            else:
                self._packer.put(as_packed(state, look))

    def _note(self, name: NodeId, look: Look | None) -> None:
        """Keep count of the flavors; what was worked out from them is worked out anew when they change."""
        before = self._looks.pop(name, None)
        if look is not None:
            self._looks[name] = look
        for each, by in ((before, -1), (look, 1)):
            if each is not None:
                count = self._flavors.pop(each.flavor, 0) + by
                if count:
                    self._flavors[each.flavor] = count
                if count in (0, by):  # the last of them, or the first
                    self._will_do, self._known = {}, False

    def _largest(self) -> dict[str, Size]:
        """The largest node of each flavor, by name."""
        sizes: dict[str, Size] = {}
        for node, flavor, devices in self._looks.values():
            size = sizes.get(flavor.name, Size())
            sizes[flavor.name] = size.with_node(node.cpu_milli, node.memory_bytes, len(devices))
        return sizes

    def _named(self, counts: Mapping[Ask, int]) -> dict[Ask, int]:
        """The counts with the flavors that will do in place of the kinds that were asked for."""
        named: dict[Ask, int] = {}
        for ask, count in counts.items():
            asked = ALTERNATIVES.join(ask.models) or ANY_KIND
            models = self._flavors_for(asked, 0 < ask.gpu_milli < WHOLE_MILLI, ANYWHERE) if ask.gpus else ()
            if models is not None:
                whose = ask._replace(models=models)
                named[whose] = named.get(whose, 0) + count
        return named

    def _flavors_for(self, asked: str, part: bool, where: Where) -> tuple[str, ...] | None:
        """The flavors that will do, by name; empty: all of them. None: there is none."""
        question = (asked, part, where)
        if question not in self._will_do:
            seen = [flavor for flavor in self._flavors if len(flavor.kinds) < 2]
            good = {
                flavor.name
                for flavor in seen
                if (flavor.sliced or not part)
                and (not asked or will_do(asked, "".join(flavor.kinds)))
                and flavor.serves(*where)
            }
            everyone = len(good) == len({flavor.name for flavor in seen})
            self._will_do[question] = None if not good else () if everyone else tuple(sorted(good))
        return self._will_do[question]

    def _models(self, shape: Shape) -> tuple[str, ...] | None:
        asked = shape.accelerators[0][0] if shape.accelerators else ""
        return self._flavors_for(asked, shape.device_milli < WHOLE_MILLI, (shape.pools, shape.infra))


def is_for_packer(shape: Shape) -> bool:
    """Whether the packer's picture holds it: one rank, devices of one kind, no MIG instance."""
    return (
        shape.num_nodes == 1
        and len(shape.accelerators) < 2
        and not shape.mig_profile
        and shape.sharing != "mig"
    )


def look_at(node: Node) -> Look:
    """What follows from a node's declaration."""
    flavor = Flavor(
        kinds=tuple(sorted({device.kind for device in node.devices})),
        sliced=all("time-slice" in device.sharing for device in node.devices),
        cut=any("mig" in device.sharing for device in node.devices),
        spot=node.market == "spot",
        pool=node.pool,
        infra=node.infra,
    )
    return Look(node, flavor, tuple(sorted(device.id for device in node.devices)))


def as_packed(state: NodeState, look: Look) -> PackNode:
    """The node as the packer sees it: what is free for new work, devices in thousandths, by id."""
    left = dict.fromkeys(state.free_devices, WHOLE_MILLI)
    left |= {share.device: share.free_milli for share in state.shares}
    devices = [left.get(device, 0) for device in look.devices]
    kept = sum(count for _, count in state.reserved_accelerators)
    for index in range(len(devices) if kept or state.reserved_shares else 0):
        if state.reserved_shares or (kept > 0 and devices[index] == WHOLE_MILLI):
            kept -= devices[index] == WHOLE_MILLI
            devices[index] = 0
    cores, memory = free_cores(state), free_memory(state)
    if not is_over(state):  # what is kept for others may be more than is free
        cores, memory = max(cores, 0), max(memory, 0)
    return PackNode(state.node.id, look.flavor.name, cores, memory, tuple(devices))
