"""Packing pods on nodes with shared GPUs: a recorded list of pods arrives until all is more than full.

Theory of operation. The protocol is that of FGD (Weng et al., "Beware of Fragmentation", USENIX ATC 2023), on
the openb trace of Alibaba: the pods of the list arrive in an order drawn by seed, then pods drawn from the
list, with replacement, until `load` times the GPU capacity has arrived. Each is tried once and none leaves.
The pods that fit say how much of the cluster the packer can use before what is left lies in pieces that no
pod can take. The order is the protocol's own, so the times in the file are read and checked, and not used.

Draws are made of `Random.random()`, whose sequence Python promises to keep from version to version.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from steersman.decide.pack import NodeState, Packer, State
from steersman.decide.pack_stock import WHOLE
from steersman.model.errors import TraceError
from steersman.model.packing import Ask
from steersman.sim.replay.result import Progress, Replay
from steersman.sim.replay.tables import Read, amount, check_new, head_of, read_table, whole, word

MIB = 1 << 20
GPUS_MAX = 1024
"""Of one node, and of one pod: far beyond any machine; more is a mistake in the file."""
LOAD_MAX = 20.0
"""Times the capacity; what arrives beyond the first few finds nothing free."""
DRAWS_MAX = 20_000_000
"""Arrivals at most, for lists in which hardly a pod asks for a GPU."""
TELL_EVERY = 500
MARKS_PERCENT = (100, 130)
"""Shares of the capacity at whose arrival the allocation is told: those of the published curves."""
NODE_COLUMNS: Mapping[str, Read] = {
    "sn": word,
    "cpu_milli": whole,
    "memory_mib": whole,
    "gpu": whole,
    "model": str,
}
POD_COLUMNS: Mapping[str, Read] = {
    "name": word,
    "cpu_milli": whole,
    "memory_mib": whole,
    "num_gpu": whole,
    "gpu_milli": whole,
}
OVER = "shares above a whole GPU (read as a whole one)"
NO_GPU = "shares of a GPU without a GPU (read as none)"
UNKNOWN = "names of GPU models that no node has"
BEYOND = "pods of the list that come after the load is reached"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options. `load`: how much GPU demand arrives, 1 is the capacity."""

    nodes: Path
    pods: Path
    seed: int = 42
    load: float = 1.3


class Cluster(NamedTuple):
    """The nodes by name, and thousandths of GPUs that they have in all."""

    nodes: tuple[NodeState, ...]
    capacity: int


def replay(asked: Asked, progress: Progress) -> Replay:
    """Raises TraceError."""
    if not 0 < asked.load <= LOAD_MAX:
        raise TraceError(
            f"--load {asked.load:g} is not between 0 and {LOAD_MAX:g}",
            hint="1.3 lets 130 % of the GPU capacity arrive, as the published curves do",
        )
    cluster = read_nodes(asked.nodes)
    pods, dropped = read_pods(asked.pods, {node.model for node in cluster.nodes})
    order = arrivals(pods, cluster.capacity, asked.seed, asked.load)
    dropped[BEYOND] = max(0, len(pods) - len(order))
    return Replay(
        problem="packing",
        files=(str(asked.nodes), str(asked.pods)),
        dropped=dict(dropped),
        policies={"steersman": packed(cluster, order, progress)},
    )


def read_nodes(path: Path) -> Cluster:
    """The nodes of a file, all of them free. Raises TraceError."""
    found, names = [], set[str]()
    for line, (name, cpu, memory_mib, gpus, model) in read_table(path, NODE_COLUMNS):
        check_new(path, line, name, names)
        _check_gpus(path, line, gpus)
        if gpus and not model:
            raise TraceError(f"{path.name}:{line}: GPUs without a model", hint="name it in the column model")
        found.append(NodeState(name, model, cpu, memory_mib * MIB, (WHOLE,) * gpus))
    capacity = sum(sum(node.devices) for node in found)
    if not capacity:
        raise TraceError(f"{path.name}: no node has a GPU", hint="packing is measured in GPUs")
    return Cluster(tuple(sorted(found)), capacity)


def read_pods(path: Path, models: set[str]) -> tuple[list[Ask], Counter[str]]:
    """The shapes of a file's pods, and what was not read as it stands, by reason. Raises TraceError."""
    found, names = [], set[str]()
    dropped = Counter({OVER: 0, NO_GPU: 0, UNKNOWN: 0})
    columns: dict[str, Read] = dict(POD_COLUMNS)
    optional: dict[str, Read] = {
        "gpu_spec": str,
        "creation_time": _time,
        "deletion_time": _time,
        "scheduled_time": _time,
    }
    head = head_of(path)
    columns |= {name: read for name, read in optional.items() if name in head}
    at = list(columns).index("gpu_spec") if "gpu_spec" in columns else None
    for line, values in read_table(path, columns):
        name, cpu, memory_mib, gpus, share = values[: len(POD_COLUMNS)]
        check_new(path, line, name, names)
        _check_gpus(path, line, gpus)
        if gpus and not share:
            raise TraceError(
                f"{path.name}:{line}: {gpus} GPUs and a share of 0", hint="gpu_milli is 1 to 1000"
            )
        wanted = {one for one in (values[at] if at is not None else "").split("|") if one}
        dropped[OVER] += gpus > 0 and share > WHOLE
        dropped[NO_GPU] += not gpus and share > 0
        dropped[UNKNOWN] += len(wanted - models)
        share = min(share, WHOLE) if gpus else 0
        found.append(Ask(cpu, memory_mib * MIB, gpus, share, tuple(sorted(wanted))))
    if not any(shape.gpus for shape in found):
        raise TraceError(f"{path.name}: no pod asks for a GPU", hint="packing is measured in GPUs")
    return found, dropped


def _time(text: str) -> float | None:
    return amount(text) if text else None


def _check_gpus(path: Path, line: int, gpus: int) -> None:
    if gpus > GPUS_MAX:
        raise TraceError(f"{path.name}:{line}: {gpus:,} GPUs", hint=f"at most {GPUS_MAX:,} on one node")


def arrivals(pods: Sequence[Ask], capacity: int, seed: int, load: float) -> list[Ask]:
    """The pods in the order in which they come. Raises TraceError when it takes too many to reach the load.

    As published, the one whose share would pass the load ends it, however many GPUs it asks for.
    """
    most, total = load * capacity, 0
    order: list[Ask] = []
    for pod in _drawn(pods, random.Random(seed)):  # noqa: S311 - a seed, not a secret
        if total + pod.gpu_milli > most:
            return order
        if len(order) >= DRAWS_MAX:
            break
        total += pod.gpus * pod.gpu_milli
        order.append(pod)
    raise TraceError(
        f"{DRAWS_MAX:,} pods ask for less than {load:g} times the GPUs",
        hint="give fewer nodes or a smaller load",
    )


def _drawn(pods: Sequence[Ask], dice: random.Random) -> Iterator[Ask]:
    """All of them in random order, then any of them without end."""
    left = list(pods)
    while left:
        at = math.floor(dice.random() * len(left))
        left[at], left[-1] = left[-1], left[at]
        yield left.pop()
    while True:
        yield pods[math.floor(dice.random() * len(pods))]


def packed(cluster: Cluster, order: Sequence[Ask], progress: Progress) -> dict[str, Any]:
    """The metrics of Steersman's packer."""
    packer = Packer(State(nodes=cluster.nodes))
    tally = Tally(cluster.capacity)
    for done, shape in enumerate(order):
        if done % TELL_EVERY == 0:
            progress(done / len(order), f"{done:,} of {len(order):,} pods")
        tally.count(shape, packer.place(shape) is not None)
    return tally.metrics()


class Tally:
    """What arrived and what was placed, in thousandths of a GPU."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._arrived = self._held = self._placements = self._failed = 0
        self._first_fail: int | None = None
        self._marks: dict[int, int] = {}

    def count(self, shape: Ask, placed: bool) -> None:
        """A pod was tried."""
        size = shape.gpus * shape.gpu_milli
        self._arrived += size
        if placed:
            self._placements += 1
            self._held += size
        else:
            self._failed += 1
            self._first_fail = self._held if self._first_fail is None else self._first_fail
        for mark in MARKS_PERCENT:
            if mark not in self._marks and self._arrived * 100 >= mark * self._capacity:
                self._marks[mark] = self._held

    def metrics(self) -> dict[str, Any]:
        """Percentages of the GPU capacity, and counts; a mark that was not reached is told as at the end."""
        at_marks = {
            f"alloc_pct_{mark}": self._percent(self._marks.get(mark, self._held)) for mark in MARKS_PERCENT
        }
        return {
            **at_marks,
            "first_fail_pct": self._percent(self._held if self._first_fail is None else self._first_fail),
            "placements": self._placements,
            "failed": self._failed,
            "arrived_pct": self._percent(self._arrived),
            "allocated_gpus": self._held / WHOLE,
            "capacity_gpus": self._capacity / WHOLE,
        }

    def _percent(self, part: int) -> float:
        return 100 * part / self._capacity
