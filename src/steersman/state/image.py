"""A snapshot as bytes and back: a disposable cache that spares a restart the fold from the beginning.

Only the base tables are kept; the indexes are rebuilt. An image is read by the very build that wrote it and
by no other, so it needs no versions: another build folds the journal.
"""

import msgspec

from steersman.model.durations import Durations, Learned, Tally
from steersman.model.ids import NodeId, RunId
from steersman.model.packing import Ask, Basis, Packing
from steersman.model.policy import Policy
from steersman.model.pools import PoolState, SpotHistory
from steersman.model.queue import QueueState
from steersman.model.service import ApiKey, Gateway
from steersman.model.snapshot import ClusterState, NodeState, Run, ServiceState, Snapshot, WorkloadState
from steersman.model.table import Table
from steersman.state.derive import rebuild


class _Learned(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    classes: list[tuple[str, Tally]]
    ends: tuple[int, ...]
    exposed_milli: tuple[int, ...]
    stints: int


class _Image(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    position: int
    observed_at: int
    now_ms: int
    home_id: str
    epoch: int
    policy: Policy
    fleet_name: str | None
    clusters: tuple[ClusterState, ...]
    workloads: list[WorkloadState]
    runs: list[Run]
    nodes: list[NodeState]
    services: list[ServiceState]
    pools: tuple[PoolState, ...]
    spot: SpotHistory
    queues: list[QueueState]
    gateway: Gateway | None
    keys: tuple[ApiKey, ...]
    counts: list[tuple[Ask, int]]
    arrived: int
    basis: Basis
    prices: tuple[tuple[str, int], ...]
    since_price: int
    learned: _Learned
    used: _Learned | None
    turned_ms: int
    turned_at: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Image)


def encode_image(snapshot: Snapshot) -> bytes:
    """The base tables, in order of their keys."""
    return _encoder.encode(
        _Image(
            position=snapshot.position,
            observed_at=snapshot.observed_at,
            now_ms=snapshot.now_ms,
            home_id=snapshot.home_id,
            epoch=snapshot.epoch,
            policy=snapshot.policy,
            fleet_name=snapshot.fleet_name,
            clusters=snapshot.clusters,
            workloads=[state for _, state in snapshot.workloads.sorted_items()],
            runs=[run for _, run in snapshot.runs.sorted_items()],
            nodes=[node for _, node in snapshot.nodes.sorted_items()],
            services=[service for _, service in snapshot.services.sorted_items()],
            pools=snapshot.pools,
            spot=snapshot.spot,
            queues=list(snapshot.queues.values()),
            gateway=snapshot.gateway,
            keys=snapshot.keys,
            counts=sorted(snapshot.packing.counts.items()),
            arrived=snapshot.packing.arrived,
            basis=snapshot.packing.basis,
            prices=snapshot.packing.prices,
            since_price=snapshot.packing.since_price,
            learned=_learned(snapshot.durations.learned),
            used=None
            if snapshot.durations.used is snapshot.durations.learned
            else _learned(snapshot.durations.used),
            turned_ms=snapshot.durations.turned_ms,
            turned_at=snapshot.durations.turned_at,
        )
    )


def _learned(learned: Learned) -> _Learned:
    classes = learned.classes.sorted_items()
    return _Learned(
        classes=classes, ends=learned.ends, exposed_milli=learned.exposed_milli, stints=learned.stints
    )


def _relearned(image: _Learned) -> Learned:
    return Learned(Table.of(image.classes), image.ends, image.exposed_milli, image.stints)


def decode_image(data: bytes) -> Snapshot | None:
    """The snapshot, or None when the bytes are not an image of this build."""
    try:
        image = _decoder.decode(data)
    except msgspec.DecodeError:
        return None
    learned = _relearned(image.learned)
    tables = Snapshot(
        position=image.position,
        observed_at=image.observed_at,
        now_ms=image.now_ms,
        home_id=image.home_id,
        epoch=image.epoch,
        policy=image.policy,
        fleet_name=image.fleet_name,
        clusters=image.clusters,
        workloads=Table.of((state.spec.name, state) for state in image.workloads),
        runs=Table.of((RunId(run.id), run) for run in image.runs),
        nodes=Table.of((NodeId(state.node.id), state) for state in image.nodes),
        services=Table.of((state.spec.name, state) for state in image.services),
        pools=image.pools,
        spot=image.spot,
        queues={state.spec.name: state for state in image.queues},
        gateway=image.gateway,
        keys=image.keys,
        packing=Packing(
            counts=dict(image.counts),
            arrived=image.arrived,
            basis=image.basis,
            prices=image.prices,
            since_price=image.since_price,
        ),
        durations=Durations(
            learned=learned,
            used=learned if image.used is None else _relearned(image.used),
            turned_ms=image.turned_ms,
            turned_at=image.turned_at,
        ),
    )
    return msgspec.structs.replace(tables, indexes=rebuild(tables))
