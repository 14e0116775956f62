"""One document of kind fleet to a typed fleet: nodes with their devices, counted nodes written out.

A fleet is declared whole. The number of nodes and devices is checked before anything is written out, so that
a `count` cannot fill the memory.
"""

from collections.abc import Mapping

from steersman.model.devices import modes_of
from steersman.model.fleet import DEFAULT_SITE, LEASE_MS_DEFAULT, Cluster, Fleet, Market, Node
from steersman.model.ids import DeviceId, NodeId
from steersman.model.pools import RESERVED_NAMES
from steersman.model.resources import Device, SharingMode
from steersman.model.units import Amount
from steersman.spec import keys_common, keys_fleet
from steersman.spec.accelerators import Kinds
from steersman.spec.nodes import MapNode
from steersman.spec.place import Place
from steersman.spec.sections import Fields, Key
from steersman.spec.values import NAME_RULE

DEVICES_MAX = 1_000_000
"""The most devices of one fleet."""
NAME_CHARS_MAX = 63


def read_fleet(node: MapNode, place: Place, default_name: str) -> Fleet:
    """The fleet that a document declares. Raises SpecError."""
    fields = Fields(keys_fleet.FLEET_SECTION, node, place)
    written, clusters = fields.get_or(keys_fleet.NODES, ()), fields.get_or(keys_fleet.CLUSTERS, ())
    if not written and not clusters:
        raise place.at(keys_fleet.NODES.name).error(
            fields.line_of(keys_fleet.NODES),
            "a fleet has at least one node or cluster",
            "declare a node: name, cpus, memory; or a cluster: name, infra, address",
        )
    _check_sizes(written, place)
    nodes: dict[NodeId, Node] = {}
    for each in written:
        for made in _nodes(each):
            if made.id in nodes:
                message = f"two nodes are called {made.id!r}"
                raise each.place.at("name").error(
                    each.line_of(keys_fleet.NODE_NAME), message, "rename one of them"
                )
            nodes[made.id] = made
    _check_pools(written, nodes)
    return Fleet(
        name=fields.get_or(keys_common.NAME_KEY, default_name),
        nodes=tuple(nodes[name] for name in sorted(nodes)),
        clusters=_clusters(clusters, nodes),
    )


def _clusters(written: tuple[Fields, ...], nodes: Mapping[NodeId, Node]) -> tuple[Cluster, ...]:
    """By name. A pool is either declared nodes or one cluster's: their prices are nobody else's."""
    found: dict[str, Cluster] = {}
    pools = {node.pool for node in nodes.values() if node.pool}
    for fields in written:
        made = _cluster(fields)
        if made.name in found:
            raise fields.place.at("name").error(
                fields.line_of(keys_fleet.CLUSTER_NAME),
                f"two clusters are called {made.name!r}",
                "rename one of them",
            )
        if made.pool and made.pool in pools:
            raise fields.place.at("pool").error(
                fields.line_of(keys_fleet.POOL),
                f"the pool {made.pool!r} is another entry's",
                "give the cluster a pool of its own",
            )
        pools.add(made.pool)
        found[made.name] = made
    return tuple(found[name] for name in sorted(found))


def _cluster(fields: Fields) -> Cluster:
    market: Market = "spot" if fields.get(keys_fleet.NODE_SPOT) else "on-demand"
    return Cluster(
        name=fields.require(keys_fleet.CLUSTER_NAME),
        driver=fields.require(keys_fleet.CLUSTER_INFRA),
        address=fields.require(keys_fleet.ADDRESS),
        token=fields.get_or(keys_fleet.TOKEN, ""),
        allow_open=fields.get_or(keys_fleet.ALLOW_OPEN, False),
        python=fields.get_or(keys_fleet.PYTHON, ""),
        runtime_env=fields.get_or(keys_fleet.RUNTIME_ENV_KEY, "{}"),
        node_dir=fields.get_or(keys_fleet.NODE_DIR, ""),
        shared_dir=fields.get_or(keys_fleet.SHARED_DIR, ""),
        lease_ms=fields.get_or(keys_fleet.LEASE, LEASE_MS_DEFAULT),
        site=fields.get_or(keys_fleet.SITE, DEFAULT_SITE),
        zone=fields.get_or(keys_fleet.ZONE, ""),
        pool=_pool(fields, keys_fleet.CLUSTER_NAME),
        market=market,
        price_usd_micro_per_hour=fields.get(keys_fleet.NODE_PRICE),
    )


def _check_pools(written: tuple[Fields, ...], nodes: dict[NodeId, Node]) -> None:
    """The nodes of a pool are alike in what is paid for them; what spot cannot be chosen for is said."""
    first: dict[str, Node] = {}
    dear = [
        node.price_usd_micro_per_hour
        for node in nodes.values()
        if node.market != "spot" and node.price_usd_micro_per_hour is not None
    ]
    for each in written:
        node = nodes[NodeId(_ids(each)[0])]
        if not node.pool:
            continue
        like = first.setdefault(node.pool, node)
        if _terms(like) != _terms(node):
            raise each.place.at(keys_fleet.POOL.name).error(
                each.line_of(keys_fleet.POOL),
                f"the pool {node.pool!r} has nodes that differ in zone, `use_spot` or price",
                "give them pools of their own",
            )
        price = node.price_usd_micro_per_hour
        if like is not node or node.market != "spot":
            continue
        if price is None:
            each.place.at(keys_fleet.NODE_PRICE.name).warn(
                each.line,
                f"the price of the spot pool {node.pool!r} is not known, "
                "so `spot_policy: auto` does not use it",
            )
        elif dear and price >= min(dear):
            each.place.at(keys_fleet.NODE_PRICE.name).warn(
                each.line_of(keys_fleet.NODE_PRICE),
                f"the spot pool {node.pool!r} costs no less than on-demand, so `spot_policy: auto` "
                "does not use it",
            )


def _terms(node: Node) -> tuple[str, str, str, int | None]:
    return node.site, node.zone, node.market, node.price_usd_micro_per_hour


def _check_sizes(written: tuple[Fields, ...], place: Place) -> None:
    count = devices = 0
    for each in written:
        repeat = each.get_or(keys_fleet.COUNT, 1)
        count += repeat
        devices += repeat * sum(number for _, number in each.get_or(keys_fleet.NODE_ACCELERATORS, ()))
        if count > keys_fleet.FLEET_COUNT_MAX or devices > DEVICES_MAX:
            raise place.at(keys_fleet.NODES.name).error(
                each.line,
                f"a fleet has at most {keys_fleet.FLEET_COUNT_MAX:,} nodes and {DEVICES_MAX:,} accelerators",
                "declare fewer",
            )


def _ids(fields: Fields) -> list[str]:
    name, count = fields.require(keys_fleet.NODE_NAME), fields.get(keys_fleet.COUNT)
    return [name] if count is None else [f"{name}-{index}" for index in range(count)]


def _pool(fields: Fields, name: Key[str] = keys_fleet.NODE_NAME) -> str:
    """The pool as named; else those of one entry are one, when anybody may ask what they cost."""
    pool = fields.get(keys_fleet.POOL)
    if pool in RESERVED_NAMES:
        raise fields.place.at(keys_fleet.POOL.name).error(
            fields.line_of(keys_fleet.POOL), f"no pool can be called {pool!r}", "choose another name"
        )
    asked_of = fields.get(keys_fleet.NODE_SPOT) or fields.get(keys_fleet.NODE_PRICE) is not None
    return pool or (fields.require(name) if asked_of else "")


def _nodes(fields: Fields) -> list[Node]:
    ids = _ids(fields)
    if len(ids[-1]) > NAME_CHARS_MAX:
        raise fields.place.at("name").error(
            fields.line_of(keys_fleet.NODE_NAME), f"with its number, {ids[-1]!r} is too long", NAME_RULE
        )
    driver, site = fields.get_or(keys_fleet.NODE_INFRA, "local"), fields.get_or(keys_fleet.SITE, DEFAULT_SITE)
    cpu_milli, memory_bytes = _exact(fields, keys_fleet.NODE_CPUS), _exact(fields, keys_fleet.NODE_MEMORY)
    kinds, labels = fields.get_or(keys_fleet.NODE_ACCELERATORS, ()), fields.get_or(keys_fleet.NODE_LABELS, ())
    sharing = {kind: _sharing(fields, kind) for kind, _ in kinds}
    zone, pool = fields.get_or(keys_fleet.ZONE, ""), _pool(fields)
    market: Market = "spot" if fields.get(keys_fleet.NODE_SPOT) else "on-demand"
    price = fields.get(keys_fleet.NODE_PRICE)
    return [
        Node(
            id=NodeId(node_id),
            driver=driver,
            site=site,
            cpu_milli=cpu_milli,
            memory_bytes=memory_bytes,
            devices=_devices(node_id, kinds, sharing),
            labels=labels,
            zone=zone,
            pool=pool,
            market=market,
            price_usd_micro_per_hour=price,
        )
        for node_id in ids
    ]


def _sharing(fields: Fields, kind: str) -> tuple[SharingMode, ...]:
    """How devices of a kind on a node may be shared."""
    possible, written = modes_of(kind), fields.get(keys_fleet.NODE_SHARING)
    if written is None:
        return tuple(mode for mode in possible if mode == "time-slice")
    for mode in written:
        if mode not in possible:
            raise fields.place.at(keys_fleet.NODE_SHARING.name).error(
                fields.line_of(keys_fleet.NODE_SHARING),
                f"{kind} cannot be shared by {mode}",
                f"it can by {' and '.join(possible)}" if possible else "it is handed out whole: leave it out",
            )
    return tuple(mode for mode in possible if mode in written)


def _devices(
    node_id: str, kinds: Kinds, sharing: Mapping[str, tuple[SharingMode, ...]]
) -> tuple[Device, ...]:
    return tuple(
        Device(id=DeviceId(f"{node_id}/{kind}-{index}"), kind=kind, sharing=sharing[kind])
        for kind, number in kinds
        for index in range(number)
    )


def _exact(fields: Fields, key: Key[Amount]) -> int:
    amount = fields.require(key)
    if not amount.exact:
        raise fields.place.at(key.name).error(
            fields.line_of(key), "a node has one amount, not a range", "write one number"
        )
    return amount.least
