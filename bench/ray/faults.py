"""What is broken on a cluster with work on it, and how it is mended.

A fault tells which runs it has ended for certain (`gone`), and leaves behind what a person or an operator
would do (`mend`): a head is started again at once, another node once the work is back elsewhere. A link that
was cut for longer than Ray waits has its node started anew, for Ray has given it up.
"""

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.ray.cluster import Node
from tests.ray.processes import command, tree

from bench.ray.world import SERVICE, World, kill, spelled, wait
from steersman.app.wire import Row
from steersman.ports import run_dir

SHORT_CUT_SECONDS = (1.0, 6.0)
"""Shorter than any lease, and than Ray waits by itself."""
SEEN_SECONDS_MAX = 90.0

KINDS = {
    "worker": 10,
    "replica": 5,
    "raylet": 7,
    "node": 7,
    "cut": 4,
    "cut-short": 5,
    "head": 4,
    "dashboard": 3,
    "plane": 7,
    "bridge": 4,
    "fence": 4,
}
"""How many of each are among 60."""


class Done(NamedTuple):
    """A fault that was made. `mend_first`: before the work can be back; else `mend` comes after that."""

    what: str
    at: float
    gone: frozenset[str] = frozenset()
    mend: Callable[[], None] = lambda: None
    mend_first: bool = False


def plan(count: int, chance: random.Random) -> list[str]:
    """Kinds in their proportion, in some order."""
    whole = [kind for kind, times in KINDS.items() for _ in range(times)]
    chosen = [kind for _ in range(count // len(whole)) for kind in whole]
    if rest := count % len(whole):
        step = len(whole) / rest
        chosen += [whole[int(number * step)] for number in range(rest)]
    chance.shuffle(chosen)
    return chosen


class Faults:
    """Each method breaks one thing of the world's."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world, self._cluster, self._chance = world, world.cluster, chance

    def make(self, kind: str) -> Done:
        """Break something of that kind."""
        maker: Callable[[], Done] = getattr(self, kind.replace("-", "_"))
        return maker()

    def _some_node(self) -> Node:
        """One with work on it, if there is one, and not the head."""
        nodes = self._cluster.nodes[1:]
        return self._chance.choice([node for node in nodes if self._world.running(node)] or nodes)

    def worker(self) -> Done:
        """The actor's process of one rank."""
        node, row = self._rank(lambda row: not row.name.startswith("short"))
        shim = self._started(row)["shim_pid"]
        (pid,) = [pid for pid in hosts(node) if pipes(pid) & pipes(shim)]
        at = time.monotonic()
        self._cluster.kill_worker(node, pid)
        return Done(f"worker of {row.run} on {node.name}", at, frozenset({row.run or ""}))

    def replica(self) -> Done:
        """The serving process of one replica, not its shim."""
        _, row = self._rank(lambda row: row.service == SERVICE)
        pid, at = self._started(row)["pid"], time.monotonic()
        kill(pid)
        return Done(f"program of {row.run}", at, frozenset({row.run or ""}))

    def _rank(self, holds: Callable[[Row], bool]) -> tuple[Node, Row]:
        """A run on the cluster and the node of its rank 0."""
        found = [
            (node, row)
            for node in self._cluster.nodes
            for _, row in sorted(self._world.running(node).items())
            if holds(row) and spelled(node) in row.nodes[0]
        ]
        return self._chance.choice(found)

    def _started(self, row: Row) -> dict[str, int]:
        """The processes of a run's rank 0."""
        path = self._world.home / run_dir.RUNS / str(row.run) / "0" / run_dir.STARTED
        found: dict[str, int] = json.loads(path.read_text())
        return found

    def _strike(self, nodes: Sequence[Node], strike: Callable[[], object]) -> tuple[float, frozenset[str]]:
        """When it was done, and the runs there: also those of which the control plane did not know yet that
        they ran, and those that were placed there in that moment."""
        before = [run for node in nodes for run in self._world.placed(node)]
        at = time.monotonic()
        strike()
        after = [run for node in nodes for run in self._world.placed(node)]
        return at, frozenset((*before, *after))

    def raylet(self) -> Done:
        """The raylet alone: what hangs on it ends itself."""
        node = self._some_node()
        at, gone = self._strike([node], lambda: self._cluster.kill_raylet(node))
        return Done(f"raylet of {node.name}", at, gone, lambda: self._again(node))

    def node(self) -> Done:
        """All processes of a node at once."""
        node = self._some_node()
        at, gone = self._strike([node], lambda: self._cluster.kill(node))
        return Done(f"node {node.name}", at, gone, lambda: self._again(node))

    def cut(self) -> Done:
        """A link, until all is back without that node."""
        node = self._some_node()
        at, gone = self._strike([node], lambda: self._cluster.cut(node))

        def mend() -> None:
            self._cluster.heal(node)
            self._again(node)

        return Done(f"link of {node.name}", at, gone, mend)

    def cut_short(self) -> Done:
        """A link, for a moment: nothing ends."""
        node, seconds = self._chance.choice(self._cluster.nodes), self._chance.uniform(*SHORT_CUT_SECONDS)
        at = time.monotonic()
        self._cluster.cut(node)
        time.sleep(seconds)
        self._cluster.heal(node)

        def mend() -> None:
            if (
                node is not self._cluster.head and not node.alive
            ):  # with short limits Ray may have given it up
                self._again(node)

        return Done(f"link of {node.name} for {seconds:.1f} s", at, mend=mend)

    def head(self) -> Done:
        """The head's machine; it comes back at once with what its store has."""
        head = self._cluster.head
        at, gone = self._strike([head], lambda: self._cluster.kill(head))
        return Done("head", at, gone, self._head_again, mend_first=True)

    def dashboard(self) -> Done:
        """The dashboard, which takes the head with it."""
        at, gone = self._strike([self._cluster.head], self._cluster.kill_dashboard)
        process = self._cluster.head.process
        assert process is not None, "it was started"
        process.wait(SEEN_SECONDS_MAX)
        return Done("dashboard, and so the head", at, gone, self._head_again, mend_first=True)

    def head_without_store(self) -> Done:
        """The head of a cluster that keeps nothing: the nodes are started anew on the cluster that comes."""
        head = self._cluster.head
        at, gone = self._strike(self._cluster.nodes, lambda: self._cluster.kill(head))

        def mend() -> None:
            for node in self._cluster.nodes[1:]:
                self._cluster.kill(node)
            for node in self._cluster.nodes:
                self._cluster.start_again(node)

        return Done("head without a store", at, gone, mend, mend_first=True)

    def plane(self) -> Done:
        """The control plane; its machine starts it again."""
        at = time.monotonic()
        kill(self._world.plane())
        return Done("control plane", at, mend=self._world.serve, mend_first=True)

    def bridge(self) -> Done:
        """The control plane's client of Ray."""
        at = time.monotonic()
        for pid in bridges(self._world):
            kill(pid)
        return Done("bridge", at)

    def fence(self) -> Done:
        """The actor that every effect passes through."""
        at = time.monotonic()
        for pid in self._cluster.head.pids("ray::FenceActor"):
            kill(pid)
        return Done("fence", at)

    def _head_again(self) -> None:
        self._cluster.start_again(self._cluster.head)

    def _again(self, node: Node) -> None:
        """The node, and until the control plane knows it."""
        self._cluster.start_again(node)
        count = len(self._cluster.nodes)
        wait(lambda: self._world.nodes_seen() >= count, SEEN_SECONDS_MAX)


def pipes(pid: int) -> set[str]:
    """The pipes that a process holds an end of, but for its standard ones."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if int(entry.name) > 2 and (name := os.readlink(entry)).startswith("pipe:"):  # noqa: PTH115 - no path
                    found.add(name)
    return found


def hosts(node: Node) -> Sequence[int]:
    """The actors' processes of ranks on a node."""
    root = node.process
    return [] if root is None else [pid for pid in tree(root.pid) if "ray::HostActor" in command(pid)]


def bridges(world: World) -> list[int]:
    """The bridges of the world's control plane."""
    return [pid for pid in tree(world.plane()) if "/cluster/bridge.py" in command(pid)]
