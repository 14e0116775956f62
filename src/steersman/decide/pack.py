"""Packing: where a pod goes on nodes with CPU, memory and shared GPUs, learned from the arrivals seen so far.

Theory of operation. The cost of a pod on a node is what it takes away from the pods still to come
(`pack_value`, with the value of a shared GPU's rest from `pack_stock`) plus the scarcity price of the node's
GPU model (`pack_price`); the cheapest node that fits is taken. Both are learned again whenever the arrivals
have grown by half, and before the first few pods it is plain best fit. Nothing is known of the future, of
how long pods stay, or of how many will come; pods may be released and nodes come and go at any time.

Nothing depends on names: nodes in the same state form one class, and ties go to the smaller residual, then
the smaller state. A node's name decides only between nodes in identical states.

Speed. A cost depends on the class and on the pod's shape only. A lane, a (shape, model) pair, holds a heap
of classes by cost. A placement or a release changes one node, hence gives birth to at most one class, which
each lane scores when it is next asked, from a log of births per model. Dead tops of heaps are dropped when
met. Prices are added per lane, so new prices cost nothing.

State in and out: `Packer.export()` is a frozen value, and `Packer(state)` goes on with the same decisions.
"""

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from steersman.decide.pack_price import Size, model_prices
from steersman.decide.pack_stock import WHOLE
from steersman.decide.pack_value import SPREAD, Key, ModelCurves, cost, learn, model_curves
from steersman.model.packing import Ask, Basis, PackingUpdate
from steersman.state.packing import faded

WARM_PODS = 8
"""GPU arrivals before anything is learned: plain best fit until then."""
LEARN_GROWTH_PERCENT = 50
"""Learn again when GPU arrivals have grown by this much: O(log n) times in all."""
FREE_CHANGE_PERCENT = 20
"""Learn again when free GPU capacity moved by this much; looked at when prices are."""
PRICE_PODS = 128
"""Arrivals between two prices: they follow free capacity, which moves a few percent in that time."""
LANES_MAX = 16_384
"""Cached (shape, model) pairs; all are dropped beyond, for bounded memory."""
LOG_MAX = 8_192
"""Births kept for each model; a lane that is further behind scores all classes."""
STALE_MIN = 64
"""Dead entries that a heap may always hold, so that small ones are not rebuilt again and again."""


class Placement(NamedTuple):
    """Where a pod is: the node, and its GPUs counted from 0."""

    node: str
    devices: tuple[int, ...]
    shape: Ask


class NodeState(NamedTuple):
    """What is free on a node; `devices`: thousandths of each GPU."""

    node: str
    model: str
    cpu_milli: int
    memory_bytes: int
    devices: tuple[int, ...]


class State(NamedTuple):
    """All that decisions depend on.

    `counts`: arrivals with a GPU so far (what is old fades); `prices`: by model, thousandths of a GPU;
    `since_price`: arrivals since they were set; `largest`: by model, the largest node seen.
    """

    nodes: tuple[NodeState, ...] = ()
    counts: tuple[tuple[Ask, int], ...] = ()
    basis: Basis = Basis()
    prices: tuple[tuple[str, int], ...] = ()
    since_price: int = PRICE_PODS
    largest: tuple[tuple[str, Size], ...] = ()


NOTHING = State()
"""No nodes, nothing seen."""


class _Node:
    """A node as it is now."""

    __slots__ = ("cpu", "devices", "key", "memory", "model", "name")

    def __init__(self, state: NodeState) -> None:
        self.name, self.model = state.node, state.model
        self.cpu, self.memory = state.cpu_milli, state.memory_bytes
        self.devices = list(state.devices)
        self.key: Key = self.state()

    def state(self) -> Key:
        parts = sorted(r for r in self.devices if 0 < r < WHOLE)
        return (self.model, self.cpu, self.memory, self.devices.count(WHOLE), tuple(parts))


class _Class:
    """Nodes in one and the same state, the smallest name first."""

    __slots__ = ("_heap", "members")

    def __init__(self) -> None:
        self.members: set[str] = set()
        self._heap: list[str] = []  # also holds names that have left, up to a bound

    def add(self, name: str) -> None:
        self.members.add(name)
        if len(self._heap) > 2 * len(self.members) + STALE_MIN:
            self._heap = sorted(self.members)
        else:
            heapq.heappush(self._heap, name)

    def first(self) -> str:
        while self._heap[0] not in self.members:
            heapq.heappop(self._heap)
        return self._heap[0]


class _Model:
    """Classes of equal nodes of one model, the log of classes born, and thousandths of GPUs free."""

    __slots__ = ("base", "classes", "free", "largest", "log")

    def __init__(self) -> None:
        self.classes: dict[Key, _Class] = {}
        self.log: list[Key] = []
        self.base = 0  # how many births came before log[0]
        self.free = 0
        self.largest = Size()

    def enter(self, key: Key, name: str) -> None:
        if key not in self.classes:
            self.classes[key] = _Class()
            self.log.append(key)
            if len(self.log) > LOG_MAX:
                self.base += len(self.log)
                self.log = []
        self.classes[key].add(name)

    def leave(self, key: Key, name: str) -> None:
        members = self.classes[key].members
        members.remove(name)
        if not members:
            del self.classes[key]


class _Lane:
    """The classes of one model scored for one shape."""

    __slots__ = ("heap", "seen")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Key]] = []
        self.seen = -1


def learn_at(basis: Basis) -> int:
    """At how many arrivals with GPUs to learn again."""
    known = sum(k for _, k in basis.counts)
    return max(WARM_PODS, known + known * LEARN_GROWTH_PERCENT // 100 + 1 if known else 0)


def is_due(arrived: int, basis: Basis, since_price: int) -> bool:
    """Whether it is time to learn, or to set prices. `arrived`: with GPUs; `since_price`: all."""
    return arrived >= learn_at(basis) or (since_price >= PRICE_PODS and bool(basis.counts))


class Packer:
    """The nodes, what is held on them, and what was learned; for one caller at a time."""

    def __init__(self, state: State = NOTHING) -> None:
        self._nodes: dict[str, _Node] = {}
        self._models: dict[str, _Model] = {}
        self._counts = dict(state.counts)
        self._arrived = sum(k for _, k in state.counts)
        self._prices, self._since_price = dict(state.prices), state.since_price
        for node in state.nodes:
            self._enter(_Node(node))
        for model, size in state.largest:
            mine = self._models.setdefault(model, _Model())
            mine.largest = mine.largest.with_node(*size)
        self._set_basis(state.basis)

    def export(self) -> State:
        """Everything that later decisions depend on."""
        nodes = (self._nodes[n] for n in sorted(self._nodes))
        return State(
            tuple(NodeState(n.name, n.model, n.cpu, n.memory, tuple(n.devices)) for n in nodes),
            tuple(sorted(self._counts.items())),
            self._basis,
            tuple(sorted(self._prices.items())),
            self._since_price,
            tuple((model, self._models[model].largest) for model in sorted(self._models)),
        )

    def add_node(self, name: str, cpu_milli: int, memory_bytes: int, model: str, gpus: int) -> None:
        """A node with all of its GPUs free. Its name is new."""
        assert name not in self._nodes, f"node {name} is there already"
        self._enter(_Node(NodeState(name, model, cpu_milli, memory_bytes, (WHOLE,) * gpus)))
        self._since_price = PRICE_PODS

    def remove_node(self, name: str) -> None:
        """Its pods are gone with it; do not release them."""
        assert name in self._nodes, f"node {name} is not there"
        self.drop(name)
        self._since_price = PRICE_PODS

    def place(self, shape: Ask, *, first_try: bool = True) -> Placement | None:
        """Where the pod goes, now held for it; None: nowhere, all of it or nothing.

        A retry is no arrival: `first_try` is False for it.
        """
        assert 0 < shape.gpu_milli <= WHOLE if shape.gpus else not shape.gpu_milli, f"{shape} is no shape"
        if first_try:
            self._observe(shape)
        found = None
        for model in shape.models or self._models:
            top = self._top(shape, model) if model in self._models else None
            if top is not None:
                price = self._prices.get(model, 0) * shape.gpus * shape.gpu_milli
                bid = (top[0] + price, top[1], top[2])
                if found is None or bid < found:
                    found = bid
        if found is None:
            return None
        _, residual, key = found
        node = self._nodes[self._models[key[0]].classes[key].first()]
        placement = Placement(node.name, self._devices(node, shape, residual), shape)
        self._change(node, placement, -1)
        return placement

    def release(self, placement: Placement) -> None:
        """The pod is gone and its node is not: what it held is free again. Once for each placement."""
        node, shape = self._nodes[placement.node], placement.shape
        free_after = [node.devices[device] + shape.gpu_milli for device in placement.devices]
        assert all(free <= WHOLE for free in free_after), f"{placement} was released already"
        self._change(node, placement, 1)

    def put(self, state: NodeState) -> None:
        """A node as it is now, whether it is known or new."""
        before = self._nodes.get(state.node)
        node = _Node(state)
        if before is not None:
            if before.key == node.key and before.devices == node.devices:
                return
            self.drop(state.node)
        self._enter(node)

    def drop(self, name: str) -> None:
        """Forget a node, if it is known."""
        node = self._nodes.pop(name, None)
        if node is not None:
            self._models[node.model].leave(node.key, name)
            self._models[node.model].free -= sum(node.devices)

    def know(self, basis: Basis) -> None:
        """What was learned elsewhere: from now on costs follow from it."""
        self._set_basis(basis)

    def charge(self, prices: tuple[tuple[str, int], ...]) -> None:
        """Prices by model that were set elsewhere."""
        self._prices = dict(prices)

    def news(
        self, counts: Mapping[Ask, int], basis: Basis, since_price: int, largest: Mapping[str, Size]
    ) -> PackingUpdate | None:
        """What there is to learn now from arrivals (`counts`), after `basis`; None: nothing yet.

        `largest`: by model, its largest node.
        """
        arrived = sum(counts.values())
        if not is_due(arrived, basis, since_price):
            return None
        free = self._free()
        moved = bool(basis.counts) and since_price >= PRICE_PODS
        moved = moved and abs(free - basis.free) * 100 > FREE_CHANGE_PERCENT * basis.free
        learned = moved or arrived >= learn_at(basis)
        taught = faded(counts, arrived) if learned else dict(basis.counts)
        prices = model_prices(taught, {m: s.free for m, s in self._models.items()}, largest)
        stock = self._stock(counts) if learned else ()
        return PackingUpdate(
            learned=learned, stock=stock, free=free if learned else 0, prices=tuple(sorted(prices.items()))
        )

    def _observe(self, shape: Ask) -> None:
        """Count an arrival; learn and set prices when it is time. A pod without a GPU teaches nothing."""
        self._since_price += 1
        if shape.gpus:
            self._counts[shape] = self._counts.get(shape, 0) + 1
            self._arrived += 1
        if self._arrived < self._learn_at and (self._since_price < PRICE_PODS or not self._basis.counts):
            return
        largest = {m: s.largest for m, s in self._models.items()}
        found = self.news(self._counts, self._basis, self._since_price, largest)
        assert found is not None
        if found.learned:
            self._counts = faded(self._counts, self._arrived)
            self._arrived = sum(self._counts.values())
            self._set_basis(Basis(tuple(sorted(self._counts.items())), found.stock, found.free))
        self._since_price, self._prices = 0, dict(found.prices)

    def _free(self) -> int:
        return sum(m.free for m in self._models.values())

    def _stock(self, counts: Iterable[Ask]) -> tuple[tuple[int, int], ...]:
        """Open residuals on nodes with CPU and memory for the smallest share pod seen."""
        shared = [s for s in counts if s.gpus == 1 and s.gpu_milli < WHOLE]
        cpu = min((s.cpu_milli for s in shared), default=0)
        memory = min((s.memory_bytes for s in shared), default=0)
        stock: dict[int, int] = {}
        for mine in self._models.values():
            for key, equal in mine.classes.items():
                if key[1] >= cpu and key[2] >= memory:
                    for r in key[4]:
                        stock[r] = stock.get(r, 0) + len(equal.members)
        return tuple(sorted(stock.items()))

    def _set_basis(self, basis: Basis) -> None:
        self._basis = basis
        self._mix = learn(basis) if basis.counts else None
        self._curves: dict[str, ModelCurves] = {}
        self._lanes: dict[tuple[int, int, int, int, str], _Lane] = {}
        self._learn_at = learn_at(basis)

    def _top(self, shape: Ask, model: str) -> tuple[int, int, Key] | None:
        """The cheapest live class of this model for the shape."""
        where = (shape[0], shape[1], shape[2], shape[3], model)
        lane = self._lanes.get(where)
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                self._lanes.clear()
            lane = self._lanes[where] = _Lane()
        mine = self._models[model]
        if lane.seen < mine.base + len(mine.log):
            self._refresh(lane, shape, model, mine)
        heap, live = lane.heap, mine.classes
        while heap and heap[0][2] not in live:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _refresh(self, lane: _Lane, shape: Ask, model: str, mine: _Model) -> None:
        end = mine.base + len(mine.log)
        many = len(mine.classes)
        if lane.seen < mine.base or end - lane.seen > many or len(lane.heap) > 2 * many + STALE_MIN:
            lane.heap, fresh = [], list(mine.classes)
        else:
            fresh = mine.log[lane.seen - mine.base :]
        lane.seen = end
        if self._mix and model not in self._curves:
            self._curves[model] = model_curves(self._mix, model)
        mix, curves, live, heap = self._mix, self._curves.get(model), mine.classes, lane.heap
        for key in fresh:
            if key in live and key[1] >= shape[0] and key[3] + len(key[4]) >= shape[2]:
                found = cost(shape, key, mix, curves)
                if found is not None:
                    heapq.heappush(heap, (found[0], found[1], key))

    def _enter(self, node: _Node) -> None:
        self._nodes[node.name] = node
        mine = self._models.setdefault(node.model, _Model())
        mine.enter(node.key, node.name)
        mine.free += sum(node.devices)
        mine.largest = mine.largest.with_node(node.cpu, node.memory, len(node.devices))

    @staticmethod
    def _devices(node: _Node, shape: Ask, residual: int) -> tuple[int, ...]:
        if not shape.gpus:
            return ()
        if residual == SPREAD:
            fit = sorted((r, i) for i, r in enumerate(node.devices) if r >= shape.gpu_milli)
            return tuple(sorted(i for _, i in fit[: shape.gpus]))
        return tuple([i for i, r in enumerate(node.devices) if r == residual][: shape.gpus])

    def _change(self, node: _Node, placement: Placement, sign: int) -> None:
        shape, mine = placement.shape, self._models[node.model]
        node.cpu += sign * shape.cpu_milli
        node.memory += sign * shape.memory_bytes
        for d in placement.devices:
            node.devices[d] += sign * shape.gpu_milli
        mine.free += sign * shape.gpu_milli * len(placement.devices)
        mine.leave(node.key, node.name)
        node.key = node.state()
        mine.enter(node.key, node.name)
