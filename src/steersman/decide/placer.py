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

from steersman.decide.fit import free_cores, free_memory
from steersman.decide.pack import NodeState as PackNode
from steersman.decide.pack import Packer, is_due
from steersman.model.decisions import Placement
from steersman.model.demand import Ask, Basis, PackingUpdate
from steersman.model.devices import will_do
from steersman.model.ids import NodeId
from steersman.model.resources import ALTERNATIVES, ANY_KIND, WHOLE_MILLI
from steersman.model.snapshot import NodeState, Shape, Snapshot
from steersman.model.table import Table, TableEditor
from steersman.state.demand import ask_of, update
from steersman.state.derive import takes_work
from steersman.state.draft import Draft


class Flavor(NamedTuple):
    """What nodes have in common that decides who may go there. `kind` is empty without devices."""

    kind: str
    sliced: bool
    pool: str

    @property
    def name(self) -> str:
        """Its name among the packer's models: the kind, where nothing else tells flavors apart."""
        return self.kind + ("" if self.sliced else "/whole") + (f"@{self.pool}" if self.pool else "")


class Placer:
    """The fleet as the packer sees it; for one caller at a time."""

    def __init__(self) -> None:
        self._packer = Packer()
        self._synced: Table[NodeState] = Table()
        self._ahead: set[NodeId] = set()
        self._flavors: dict[NodeId, Flavor] = {}
        self._counts: dict[Flavor, int] = {}
        self._mixed: set[NodeId] = set()
        self._mig: set[NodeId] = set()
        self._will_do: dict[tuple[str, bool, tuple[str, ...]], tuple[str, ...] | None] = {}
        self._basis = Basis()
        self._known = True  # whether the packer has been told of it as the flavors are now

    def begin(self, snapshot: Snapshot) -> PackingUpdate | None:
        """Take in the fleet as it is; what a cycle on this snapshot learns, which is then obeyed."""
        changed = self._ahead.union(NodeId(key) for key in snapshot.nodes.keys_unlike(self._synced))
        self._synced, self._ahead = snapshot.nodes, set()
        self._take(changed, snapshot.nodes)
        demand, packing = snapshot.demand, None
        if is_due(demand.arrived, demand.basis, demand.since_price):
            packing = self._packer.news(self._named(demand.counts), demand.basis, demand.since_price)
            demand = demand if packing is None else update(demand, packing)
        if not self._known or demand.basis != self._basis:
            self._basis, self._known = demand.basis, True
            named = self._named(dict(demand.basis.counts))
            self._packer.know(demand.basis._replace(counts=tuple(sorted(named.items()))))
        self._packer.charge(demand.prices)
        return packing

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
        devices = sorted(device.id for device in draft.nodes[node].node.devices)
        return Placement(
            rank=0,
            node=node,
            cpu_milli=shape.cpu_milli,
            memory_bytes=shape.memory_bytes,
            devices=tuple(sorted(devices[index] for index in found.devices)),
            device_milli=shape.device_milli,
        )

    def has_mixed(self) -> bool:
        """Whether there are nodes with several kinds of devices, which the packer does not see."""
        return bool(self._mixed)

    def has_mig(self) -> bool:
        """Whether any device may be cut into MIG instances."""
        return bool(self._mig)

    def _take(self, names: Iterable[NodeId], nodes: Table[NodeState] | TableEditor[NodeState]) -> None:
        for name in sorted(names):
            state = nodes.get(name)
            state = None if state is None or not takes_work(state) else state
            flavor = None if state is None else flavor_of(state)
            self._note(name, flavor)
            _keep(self._mixed, name, wanted=state is not None and flavor is None)
            _keep(self._mig, name, wanted=state is not None and offers_mig(state))
            if state is None or flavor is None:
                self._packer.drop(name)
            else:
                self._packer.put(as_packed(state, flavor))

    def _note(self, name: NodeId, flavor: Flavor | None) -> None:
        """Keep the set of flavors; what was worked out from it is worked out anew when it changes."""
        before = self._flavors.pop(name, None)
        if flavor is not None:
            self._flavors[name] = flavor
        if before == flavor:
            return
        for each, by in ((before, -1), (flavor, 1)):
            if each is not None:
                count = self._counts.pop(each, 0) + by
                self._counts |= {each: count} if count else {}
                if count in (0, by):  # it is gone, or new
                    self._will_do, self._known = {}, False

    def _named(self, counts: Mapping[Ask, int]) -> dict[Ask, int]:
        """The counts with the flavors that will do in place of the kinds that were asked for."""
        named: dict[Ask, int] = {}
        for ask, count in counts.items():
            asked = ALTERNATIVES.join(ask.models) or ANY_KIND
            models = self._flavors_for(asked, 0 < ask.gpu_milli < WHOLE_MILLI, ()) if ask.gpus else ()
            if models is not None:
                whose = ask._replace(models=models)
                named[whose] = named.get(whose, 0) + count
        return named

    def _flavors_for(self, asked: str, part: bool, pools: tuple[str, ...]) -> tuple[str, ...] | None:
        """The flavors that will do, by name; empty: all of them. None: there is none."""
        where = (asked, part, pools)
        if where not in self._will_do:
            good = [
                flavor.name
                for flavor in self._counts
                if (flavor.sliced or not part)
                and (not asked or will_do(asked, flavor.kind))
                and (not pools or flavor.pool in pools)
            ]
            everyone = len(good) == len(self._counts) or (asked == ANY_KIND and not part and not pools)
            self._will_do[where] = None if not good else () if everyone else tuple(sorted(good))
        return self._will_do[where]

    def _models(self, shape: Shape) -> tuple[str, ...] | None:
        asked = shape.accelerators[0][0] if shape.accelerators else ""
        return self._flavors_for(asked, shape.device_milli < WHOLE_MILLI, shape.pools)


def _keep(names: set[NodeId], name: NodeId, *, wanted: bool) -> None:
    if wanted:
        names.add(name)
    else:
        names.discard(name)


def is_for_packer(shape: Shape) -> bool:
    """Whether the packer's picture holds it: one rank, devices of one kind, no MIG instance."""
    return (
        shape.num_nodes == 1
        and len(shape.accelerators) < 2
        and not shape.mig_profile
        and shape.sharing != "mig"
    )


def offers_mig(state: NodeState) -> bool:
    """Whether one of its devices may be cut into MIG instances."""
    return any("mig" in device.sharing for device in state.node.devices)


def flavor_of(state: NodeState) -> Flavor | None:
    """The flavor of a node; None when it has several kinds of devices."""
    kinds = {device.kind for device in state.node.devices}
    if len(kinds) > 1:
        return None
    sliced = all("time-slice" in device.sharing for device in state.node.devices)
    return Flavor(next(iter(kinds), ""), sliced, state.node.pool)


def as_packed(state: NodeState, flavor: Flavor) -> PackNode:
    """The node as the packer sees it: what is free for new work, devices in thousandths, by id."""
    left = {share.device: share.free_milli for share in state.shares if not share.instances}
    left |= dict.fromkeys(state.free_devices, WHOLE_MILLI)
    devices = [left.get(device, 0) for device in sorted(device.id for device in state.node.devices)]
    kept = dict(state.reserved_accelerators).get(flavor.kind, 0)
    for index in range(len(devices)):
        if state.reserved_shares or (kept > 0 and devices[index] == WHOLE_MILLI):
            kept -= devices[index] == WHOLE_MILLI
            devices[index] = 0
    return PackNode(state.node.id, flavor.name, free_cores(state), free_memory(state), tuple(devices))
