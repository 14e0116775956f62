"""Faults on a real Ray cluster under load: how long until all is back, and is anything doubled, left or lost?

    python -m bench.ray.chaos [--faults 60] [--seed 1] [--quick] [--planted BUG] [--json]

A head with a store and three nodes on this machine, each in a network namespace; on it beating jobs, a gang,
a service under a constant rate of requests, trainings and short jobs (`world`). One thing after another is
broken (`faults`): a worker, a replica's program, a raylet, a whole node, a link for long or for a moment, the
head, its dashboard, the control plane, the bridge, the fence. After each it is measured how long until
everything runs and answers again, on nodes that are there, and stays so. In the end all is removed, and
`judge` holds the journal against what the programs wrote and what the cluster has.

The last fault takes the head of a cluster that has no store: Ray loses everything, and Steersman begins it
anew on the cluster that comes in its place. Only there a request that the replicas died under, and that was
told so (502), is counted by itself; anywhere else it is lost, as is one without any answer.

With Ray's own time limits and Steersman's own lease; `--quick` shortens both, and proves less. `--planted`
runs a copy of the source with a bug in it that must be found: then the exit code is 1, as for any violation.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from tests.ray.cluster import QUICK, RayCluster, Shape

from bench.home import ROOT
from bench.ray import faults, judge
from bench.ray.faults import Done, Faults
from bench.ray.world import FIRED_SECONDS, Asking, Busy, World, wait

RAY = ROOT / ".venvs" / "ray" / "bin"
BACK_SECONDS_MAX = 90.0
GIVE_UP_SECONDS = 240.0
STAYS_SECONDS = 2.0
LOOK_SECONDS = 0.25
BETWEEN_SECONDS = (0.5, 3.0)
BEGIN_SECONDS_MAX = 180.0
QUICK_LEASE = "6s"
HEAD, NODES = Shape(1), (Shape(2), Shape(2), Shape(2))
"""What is placed together fills a node: so small that there is work on each."""
REFUSED = (429, 503)
TOLD_IT_DIED = 502
WITHOUT_STORE = "head-without-store"


class Bug(NamedTuple):
    """A text of a source file, what to put in its place, and the faults that show it, with that lease."""

    path: str
    old: str
    new: str
    kinds: tuple[str, ...]
    lease: str = QUICK_LEASE


PLANTED: Mapping[str, Bug] = {
    "no-lease": Bug(
        "dataplane/cluster/session.py",
        'if heard is False or (heard is None and not found["young"]):',
        "if True:",
        ("cut", "cut"),
        "25s",  # much longer than Ray takes to give a node up, so that only the lease is waited for
    ),
    "no-end": Bug(
        "dataplane/cluster/fence.py",
        "            self._end(handle, run, rank)\n        self._renewed.pop",
        "        self._renewed.pop",
        ("fence",),
    ),
    "wrong-code": Bug(
        "dataplane/cluster/mirror.py",
        "            files.write_bytes(self.folder / run_dir.EXIT, data)",
        "            data = data.replace(b'\"exit_code\":3', b'\"exit_code\":4')\n"
        "            files.write_bytes(self.folder / run_dir.EXIT, data)",
        ("bridge",) * 6,
    ),
}


class Back(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: seconds until all was back, None when it never was."""

    kind: str
    what: str
    at: float
    seconds: float | None
    lacked: tuple[str, ...]


class Trial(msgspec.Struct, kw_only=True):
    """What all faults came to; `documented` are statuses that a loss which is documented brings."""

    documented: tuple[int, ...] = ()
    backs: list[Back] = []
    violations: list[str] = []
    counts: Counter[str] = Counter()
    trainings: int = 0
    resumed: int = 0
    replies: list[tuple[float, int, float]] = []
    seconds: float = 0.0


def note(words: str) -> None:
    """Progress, on stderr."""
    print(words, file=sys.stderr, flush=True)


def until_back(world: World, gone: frozenset[str], at: float) -> tuple[float | None, tuple[str, ...]]:
    """Seconds from `at` until nothing lacks, and stays so; and the last that lacked before."""
    since: float | None = None
    lacked: tuple[str, ...] = ()
    while time.monotonic() - at < GIVE_UP_SECONDS:
        found = world.lacks(gone)
        now = time.monotonic()
        if found:
            since, lacked = None, tuple(found)
        elif since is None:
            since = now
        elif now - since >= STAYS_SECONDS:
            return since - at, lacked
        time.sleep(LOOK_SECONDS)
    return None, lacked


def one(world: World, made: Done, kind: str, trial: Trial) -> None:
    """See to it that all is back after one fault."""
    if made.mend_first:
        made.mend()
    seconds, lacked = until_back(world, made.gone, made.at)
    trial.backs.append(Back(kind=kind, what=made.what, at=made.at, seconds=seconds, lacked=lacked))
    words = "NEVER" if seconds is None else f"{seconds:.1f} s"
    note(f"{len(trial.backs):3}  {made.what}: back after {words}  ({'; '.join(lacked)[:150]})")
    if not made.mend_first:
        made.mend()


def storm(world: World, kinds: Sequence[str], seed: int, calm: str) -> Trial:
    """All faults of one world, from its beginning to its end."""
    began, trial, chance = time.monotonic(), Trial(), random.Random(seed)
    world.begin()
    up = wait(lambda: not world.lacks(frozenset()), BEGIN_SECONDS_MAX)
    assert up, world.lacks(frozenset())
    busy, asking = Busy(world, f"{seed}/busy"), Asking(world)
    maker, gone = Faults(world, chance), frozenset[str]()
    for thread in (busy, asking):
        thread.start()
    try:
        for kind in kinds:
            time.sleep(chance.uniform(*BETWEEN_SECONDS))
            made = maker.make(kind)
            gone |= made.gone
            one(world, made, kind, trial)
            if trial.backs[-1].seconds is None:
                break  # what follows would only tell the same
        busy.over.set()
        busy.join()
        wait(lambda: world.settled(world.trainings), GIVE_UP_SECONDS)
        trained = world.trained()
        asking.over.set()
        asking.join()
        world.finish()
    finally:
        busy.over.set()
        asking.over.set()
    trial.violations, trial.counts = judge.verdict(world, gone)
    trial.violations += busy.wrong + judge.unlike(calm, {name: found for name, (found, _) in trained.items()})
    trial.trainings = len(trained)
    trial.resumed = sum(runs > 1 for _, runs in trained.values())
    trial.counts["shorts"] = sum(busy.ended.values())
    trial.replies = asking.replies
    trial.seconds = time.monotonic() - began
    return trial


def whole(count: int, seed: int, *, quick: bool, bug: Bug | None, keep: bool = False) -> list[Trial]:
    """The storm, and the head without a store. With a bug, only what shows it."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-ray-"))
    source, trials = ROOT / "src", []
    lease = bug.lease if bug else QUICK_LEASE if quick else ""
    try:
        if bug is not None:
            source = planted(bug, folder)
        calm = judge.calm_weights(RAY, folder / "calm")
        kinds = list(bug.kinds) if bug else faults.plan(count - 1, random.Random(f"{seed}/plan"))
        for with_store, some in ((True, kinds), (False, [WITHOUT_STORE])):
            if bug and not with_store:
                continue
            cluster = RayCluster(RAY, store=with_store)
            world = None
            try:
                cluster.start(HEAD, *NODES, environ=QUICK if quick else None)
                world = World(cluster, source, lease)
                trials.append(storm(world, some, seed, calm))
                trials[-1].documented = () if with_store else (TOLD_IT_DIED,)
            finally:
                cluster.close()
                if world is not None and not keep:
                    world.remove()  # after the cluster: its nodes write there
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return trials


def planted(bug: Bug, folder: Path) -> Path:
    """A copy of the source with the bug in it."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    path = source / "steersman" / bug.path
    text = path.read_text()
    assert text.count(bug.old) == 1, f"{bug.path} has changed: plant the bug anew"
    path.write_text(text.replace(bug.old, bug.new))
    return source


def figures(trials: Sequence[Trial]) -> dict[str, float]:
    """All by name."""
    backs = [back for trial in trials for back in trial.backs]
    seconds = sorted(back.seconds for back in backs if back.seconds is not None) or [0.0]
    total: Counter[str] = Counter()
    for trial in trials:
        total.update(trial.counts)
    replies = [reply for trial in trials for reply in trial.replies]
    died = Counter(status in trial.documented for trial in trials for _, status, _ in trial.replies)[True]
    failed = sum(status not in (200, *REFUSED) for _, status, _ in replies)
    waits = sorted(seconds for _, status, seconds in replies if status == 200) or [0.0]
    return {
        "faults": len(backs),
        "back_seconds_p50": round(seconds[len(seconds) // 2], 1),
        "back_seconds_max": round(seconds[-1], 1),
        "not_back_in_time": sum(b.seconds is None or b.seconds > BACK_SECONDS_MAX for b in backs),
        **{name: total[name] for name in ("doubles", "orphans", "lost_events", "lost_ranks")},
        **{name: total[name] for name in ("programs", "acknowledged", "events", "shorts")},
        "violations": sum(len(trial.violations) for trial in trials),
        "trainings": sum(trial.trainings for trial in trials),
        "trainings_resumed": sum(trial.resumed for trial in trials),
        "requests": len(replies),
        "requests_refused": sum(status in REFUSED for _, status, _ in replies),
        "requests_lost": failed - died,
        "requests_died_with_the_cluster": died,
        "requests_ms_p99": round(waits[len(waits) * 99 // 100] * 1000, 1),
        "requests_seconds_max": round(waits[-1], 1),
        "minutes": round(sum(trial.seconds for trial in trials) / 60, 1),
    }


def show(trials: Sequence[Trial]) -> None:
    """A table by kind, the figures, and what does not hold."""
    kinds: dict[str, list[float]] = {}
    for back in (back for trial in trials for back in trial.backs):
        kinds.setdefault(back.kind, []).append(float("inf") if back.seconds is None else back.seconds)
    print(f"{'fault':20} {'times':>5} {'median s':>9} {'worst s':>8}")
    for kind, found in sorted(kinds.items()):
        ordered = sorted(found)
        print(f"{kind:20} {len(ordered):5} {ordered[len(ordered) // 2]:9.1f} {ordered[-1]:8.1f}")
    print()
    for name, value in figures(trials).items():
        print(f"{name:30} {value:g}")
    for trial in trials:
        for item in trial.violations:
            print(f"  {item}")
        for back in trial.backs:
            print(f"  {back.what}: {_requests(trial, back)}")


def _requests(trial: Trial, back: Back) -> str:
    """What became of the requests of that time, in a few words."""
    until = back.at + max(back.seconds or 0.0, FIRED_SECONDS)
    mine = [(status, took) for at, status, took in trial.replies if back.at - FIRED_SECONDS < at < until]
    count = Counter(status for status, _ in mine)
    slow = max((took for _, took in mine), default=0.0)
    return f"{dict(sorted(count.items()))}, slowest {slow:.1f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the home's folder")
    parser.add_argument("--planted", choices=sorted(PLANTED))
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    bug = PLANTED[chosen.planted] if chosen.planted else None
    trials = whole(
        chosen.faults, chosen.seed, quick=chosen.quick or bug is not None, bug=bug, keep=chosen.keep
    )
    found = figures(trials)
    if chosen.json:
        backs = [msgspec.to_builtins(back) for trial in trials for back in trial.backs]
        broken = [item for trial in trials for item in trial.violations]
        print(json.dumps({"figures": found, "faults": backs, "violations": broken}))
    else:
        show(trials)
    return 1 if found["violations"] or found["not_back_in_time"] or found["requests_lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
