"""One cycle of the real core on a synthetic fleet: events folded, decided, intent encoded and folded.

`measure` builds a home by folding events (never by making up a snapshot): nodes of four kinds, ten times as
many workloads of twenty shapes, more than fit, so that a queue stands. Then, cycle by cycle, one per cent of
the workloads change: runs exit well or badly, checkpoints are saved, new workloads arrive, old ones go.
What is timed is the CPU time of the whole cycle: fold of the batch, decide, encoding of the intent, fold of
the intent. Run it alone: `python -m bench.cycle --nodes 10000`.
"""

import argparse
import gc
import json
import random
import time
from collections.abc import Iterator

from steersman.decide.cycle import Memo, decide
from steersman.model.codec import encode_event
from steersman.model.decisions import Start
from steersman.model.events import (
    CheckpointSaved,
    Decided,
    Event,
    FleetDeclared,
    HomeCreated,
    Observed,
    RankExited,
    RankStarted,
    RemoveRequested,
    WorkloadDeclared,
)
from steersman.model.fleet import Fleet, Node
from steersman.model.ids import DeviceId, NodeId, WorkloadName
from steersman.model.resources import Device, Resources
from steersman.model.snapshot import Phase, Snapshot
from steersman.model.workload import CheckpointPolicy, Job, Retry, Workload
from steersman.state.fold import fold

GIB = 1 << 30
CYCLE_MS = 1_000


def nodes_of(count: int) -> Fleet:
    """A fleet of CPU nodes of two sizes and of 8-device nodes of two kinds."""
    nodes = []
    for i in range(count):
        name = NodeId(f"node-{i:06d}")
        kind = i % 4
        accelerator = {2: "A100", 3: "H100"}.get(kind)
        devices = tuple(
            Device(id=DeviceId(f"{name}/{accelerator}-{d}"), kind=accelerator)
            for d in range(8)
            if accelerator
        )
        nodes.append(
            Node(
                id=name,
                cpu_milli=(32_000, 64_000, 96_000, 96_000)[kind],
                memory_bytes=(128, 512, 768, 1024)[kind] * GIB,
                devices=devices,
            )
        )
    return Fleet(name="synthetic", nodes=tuple(nodes))


class World:
    """A synthetic home: feeds events, remembers positions, plays the machines' part."""

    def __init__(self, nodes: int, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.snapshot = Snapshot()
        self.memo = Memo()
        self.made = 0
        self.now_ms = 1_700_000_000_000
        self.running: list[str] = []
        self._fold([HomeCreated(home_id="bench"), FleetDeclared(fleet=nodes_of(nodes))])

    def _fold(self, events: list[Event]) -> None:
        start = self.snapshot.position + 1
        self.snapshot = fold(self.snapshot, enumerate(events, start=start))

    def workload(self) -> WorkloadDeclared:
        rng = self.rng
        self.made += 1
        gpus = rng.choice((0, 0, 0, 1, 1, 2))
        resources = Resources(
            cpu_milli=rng.choice((1_000, 2_000, 4_000, 8_000)),
            memory_bytes=rng.choice((2, 4, 8)) * GIB,
            accelerators=((rng.choice(("A100", "H100")), gpus),) if gpus else (),
        )
        body = Job(
            run="train",
            num_nodes=rng.choice((1,) * 19 + (4,)),
            retry=Retry(on_events=("error", "interruption"), attempts_max=100),
            checkpoint=CheckpointPolicy(enabled=rng.random() < 0.5, interval_ms=60_000),
        )
        name = WorkloadName(f"job-{self.made:07d}")
        priority = rng.choice((0, 0, 0, 10, 100))
        return WorkloadDeclared(
            workload=Workload(name=name, body=body, resources=resources, priority=priority), digest="d"
        )

    def changes(self, count: int) -> list[Event]:
        """About so many workloads change: a third exit, a third save, a sixth arrive, a sixth go."""
        rng, snapshot = self.rng, self.snapshot
        events: list[Event] = []
        picked = rng.sample(self.running, min(len(self.running), count * 2 // 3))
        for i, name in enumerate(picked):
            state = snapshot.workloads.get(name)
            if state is None or state.run is None:
                continue
            run = snapshot.runs[state.run]
            if i % 2:
                events.append(
                    CheckpointSaved(
                        run=run.id, step=i + self.now_ms, at_ms=self.now_ms, save_ms=500, digest="d"
                    )
                )
                continue
            code = 1 if rng.random() < 0.2 else 0
            events += [
                RankExited(run=run.id, rank=rank, at_ms=self.now_ms, exit_code=code)
                for rank in range(len(run.ranks))
            ]
        events += [self.workload() for _ in range(count // 6)]
        oldest = self.made - len(snapshot.workloads)
        events += [
            RemoveRequested(workload=WorkloadName(f"job-{oldest + i + 1:07d}")) for i in range(count // 6)
        ]
        return events

    def cycle(self, events: list[Event]) -> tuple[float, int]:
        """One cycle on these events; its CPU seconds and the number of decisions."""
        self.now_ms += CYCLE_MS
        batch = [Observed(now_ms=self.now_ms), *events]
        began = time.process_time()
        self._fold(batch)
        plan = decide(self.snapshot, self.memo)
        at = self.snapshot.observed_at
        intent = Decided(observed_at=at, decisions=plan.decisions, packing=plan.packing)
        encode_event(intent)
        self._fold([intent])
        spent = time.process_time() - began
        started: list[Event] = [
            RankStarted(run=decision.run, rank=rank, pid=1, at_ms=self.now_ms)
            for decision in plan.decisions
            if isinstance(decision, Start)
            for rank in range(len(decision.placements))
        ]
        self._fold(started)
        return spent, len(plan.decisions)

    def settle(self, workloads: int) -> None:
        """Declare so many workloads and let the fleet fill."""
        for _ in self._batches(workloads, 4_000):
            self.cycle([self.workload() for _ in range(_)])
        while self.cycle([])[1]:
            pass
        self.refresh()

    def refresh(self) -> None:
        """Note which workloads run."""
        self.running = [
            name for name, state in self.snapshot.workloads.sorted_items() if state.phase is Phase.ACTIVE
        ]

    @staticmethod
    def _batches(total: int, size: int) -> Iterator[int]:
        while total > 0:
            yield min(size, total)
            total -= size


def measure(nodes: int = 10_000, cycles: int = 60, change_per_mille: int = 10) -> dict[str, float]:
    """CPU milliseconds of a cycle: median and 99th percentile; and what stood there."""
    world = World(nodes)
    workloads = nodes * 10
    world.settle(workloads)
    gc.collect()
    gc.freeze()
    gc.disable()
    spent, decided = [], 0
    for at in range(cycles):
        if at % 10 == 0:
            world.refresh()
        seconds, count = world.cycle(world.changes(workloads * change_per_mille // 1000))
        spent.append(seconds * 1000)
        decided += count
    gc.enable()
    spent.sort()
    return {
        "cycle_ms_p50": spent[len(spent) // 2],
        "cycle_ms_p99": spent[min(len(spent) * 99 // 100, len(spent) - 1)],
        "nodes": float(nodes),
        "workloads": float(len(world.snapshot.workloads)),
        "live_runs": float(len(world.snapshot.indexes.live)),
        "decisions_per_cycle": decided / cycles,
    }


def main() -> None:
    """Print the figures for one size, or the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 3_000, 10_000, 30_000])
    parser.add_argument("--cycles", type=int, default=60)
    parser.add_argument("--changes", type=int, help="changes a cycle, the same for every size")
    arguments = parser.parse_args()
    for nodes in arguments.nodes:
        share = 10 if arguments.changes is None else max(arguments.changes * 1000 // (nodes * 10), 1)
        print(json.dumps(measure(nodes, arguments.cycles, share)), flush=True)


if __name__ == "__main__":
    main()
