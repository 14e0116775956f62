"""What must hold of a home on a cluster that faults went over, told from the outside.

The journal is held against what the programs wrote and what the cluster has, by the checkers of the simulated
fleet (`sim.checkers`) and a few of its own: what was acknowledged is kept, no two programs for one rank at
one time, nothing left when all is removed, and every training with the weights of one that was not disturbed.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.ray.asking import ask
from tests.ray.cluster import RayCluster

from bench.home import ROOT
from bench.ray.world import STEPS, TRAINING, World
from steersman.model.events import Event, RankExited, ServiceDeclared, WorkloadDeclared
from steersman.sim.checkers import Evidence, Life, violations

CALM_SECONDS_MAX = 300.0


def calm_weights(ray: Path, folder: Path, steps: int = STEPS) -> str:
    """The digest of the weights of a training that nobody disturbed, by the interpreter of the cluster."""
    (folder / "run").mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEERSMAN_")}
    own = {
        "PYTHONPATH": str(ROOT / "src"),
        "STEPS": str(steps),
        "STEERSMAN_RUN_ID": "calm.1",
        "STEERSMAN_RUN_DIR": str(folder / "run"),
        "STEERSMAN_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "STEERSMAN_OUTPUT_DIR": str(folder / "output"),
        "STEERSMAN_CHECKPOINT_INTERVAL_MS": "2000",
    }
    command = [str(ray / "python"), str(TRAINING / "train.py")]
    done = subprocess.run(
        command, env={**kept, **own}, capture_output=True, text=True, timeout=CALM_SECONDS_MAX
    )
    assert done.returncode == 0, done.stderr
    return weights(folder / "output" / "metrics.json")


def weights(metrics: Path) -> str:
    """The digest of a training's weights, by what it wrote of itself."""
    found: dict[str, str] = json.loads(metrics.read_text())
    return found["weights_sha256"]


def unlike(calm: str, trained: Mapping[str, str]) -> list[str]:
    """Trainings that ended with other weights."""
    return [f"weights of {name}: {found[:12]}" for name, found in sorted(trained.items()) if found != calm]


def unkept(history: Sequence[tuple[int, Event]], acknowledged: Sequence[tuple[str, int]]) -> list[str]:
    """What was acknowledged at a position and does not stand at or before it."""
    declared: dict[str, int] = {}
    for position, event in history:
        if isinstance(event, WorkloadDeclared | ServiceDeclared):
            spec = event.workload if isinstance(event, WorkloadDeclared) else event.service
            declared.setdefault(spec.name, position)
    end = history[-1][0] if history else 0
    return [
        f"acknowledged: {name} at {position}"
        for name, position in acknowledged
        if position > end or declared.get(name, position + 1) > position
    ]


def excused(lives: Sequence[Life], gone: frozenset[str]) -> tuple[Life, ...]:
    """Nobody knows how a program that was hurt ended: its last words may have been lost with its node."""
    return tuple(
        Life(key=life.key, starts=life.starts, live=life.live) if life.key.run in gone else life
        for life in lives
    )


def left_on(cluster: RayCluster) -> list[str]:
    """What a home that has removed everything left on its cluster; its fence may stay."""
    found = ask(cluster, "left")
    actors = [name for name in found["actors"] if not name.endswith(".fence")]
    return [f"orphan: actor {name}" for name in actors] + [
        f"orphan: placement group {name}" for name in found["groups"]
    ]


def verdict(world: World, gone: frozenset[str]) -> tuple[list[str], Counter[str]]:
    """Everything that does not hold, and what was counted; `gone` are runs that faults have hurt. The plane
    must have ended, after `down --all`."""
    processes = world.processes()
    orphans = [f"orphan: process {pid} of {key or 'a shim'}" for pid, key in sorted(processes.items())]
    orphans += left_on(world.cluster)
    history, found = world.history()
    lives = world.lives(frozenset(processes.values()))
    doubles = world.beats.doubles()
    doubles += [f"double: {life.key} began {life.starts} times" for life in lives if life.starts > 1]
    broken = violations(Evidence(history=history, lives=excused(lives, gone)))
    lost = unkept(history, world.acknowledged)
    exits = [event for _, event in history if isinstance(event, RankExited)]
    counts = Counter(
        programs=sum(life.starts for life in lives),
        runs=len({life.key.run for life in lives}),
        events=len(history),
        acknowledged=len(world.acknowledged),
        lost_ranks=sum(1 for event in exits if event.cause == "lost"),
        orphans=len(orphans),
        doubles=len(doubles),
        lost_events=len(lost) + sum(1 for item in broken if item.startswith("no_lost_exits")),
    )
    return found + orphans + doubles + broken + lost, counts
