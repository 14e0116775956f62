"""States, plans and whole lives as bytes, to compare: `python -m tests.properties.fingerprint`."""

import hashlib

import msgspec
from tests.properties.strategies import Story, played

from steersman.model.codec import encode_event
from steersman.model.decisions import Plan
from steersman.model.snapshot import Snapshot

_encoder = msgspec.json.Encoder()


def plan_bytes(plan: Plan) -> bytes:
    """A plan as bytes, in the order of its fields."""
    return _encoder.encode(plan)


def state_bytes(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes: base tables by key, and every index in its own order."""
    indexes = snapshot.indexes
    return _encoder.encode(
        [
            [snapshot.position, snapshot.observed_at, snapshot.now_ms, snapshot.epoch, snapshot.policy],
            snapshot.workloads.sorted_items(),
            snapshot.runs.sorted_items(),
            snapshot.nodes.sorted_items(),
            [snapshot.services.sorted_items(), snapshot.gateway, snapshot.keys],
            [snapshot.pools, snapshot.spot],
            [
                list(seq)
                for seq in (
                    indexes.attention,
                    indexes.victims,
                    indexes.timers,
                    indexes.held,
                    indexes.live,
                    indexes.foreseen,
                    indexes.parts,
                    indexes.choosers,
                    indexes.ends,
                    indexes.kept,
                )
            ],
            [(key, list(seq)) for key, seq in indexes.pending.items()],
            [(key, list(seq)) for key, seq in indexes.capacity.items()],
            list(indexes.sizes.items()),
            indexes.dependents.sorted_items(),
        ]
    )


def main() -> None:
    """Print one digest over several lives: events, plans, states."""
    digest = hashlib.sha256()
    for seed in range(12):
        home = played(Story(seed, 20))
        for record in home.log:
            digest.update(repr(encode_event(record.event)).encode())
        for cycle in home.cycles:
            digest.update(plan_bytes(cycle.plan))
            digest.update(state_bytes(cycle.after))
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
