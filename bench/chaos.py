"""SIGKILL of the control plane, at random instants and at every boundary: what is orphaned, doubled or lost?

    python -m bench.chaos [--kills 500] [--seed 1] [--json] [--boundaries all|few|none] [--sim N]
                          [--planted BUG]

Real processes: the real server over a journal on disk and the local driver, real programs, a real client.

Random: homes in which a client keeps declaring short jobs of several priorities (so that some preempt
others), stopping and removing them, while the plane is killed again and again: 3 of 10 times at some instant
of its start, else within a second of serving. Boundaries: for each of up, preempt, stop and down, in a home
of its own, the plane kills itself at the first (and second) arrival at each boundary after the operation was
asked for. After every kill a new plane is started, and at the end everything must settle: see `chaos_home`.

Counted: processes that live without a record, programs begun twice under one run key, exit codes that are
not in the journal as the program meant them; and how long from the start of a plane until it serves: under
that storm of processes, in CPU time, and in a home of its own with nothing of ours beside it (``alone``).
`--planted` plants a bug that must be found: then the exit code is 1, as for any violation.
`--sim N` runs N seeds of the simulated storm as well.
"""

import argparse
import concurrent.futures
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from bench.chaos_home import CONVERGE_SECONDS_MAX, FLEET, Begun, ChaosHome, job
from bench.chaos_plane import ENGINE_BOUNDARIES, PLANTED
from steersman.hosting.claim import FAILPOINTS
from steersman.journal import MemoryJournal
from steersman.model.errors import SteersmanError
from steersman.sensors.runs import RunSensor
from steersman.sim.storm import storm

OPERATIONS = ("up", "preempt", "stop", "down")
PARALLEL_HOMES = 3
RANDOM_HOMES = 2
LIVE_WORKLOADS_MAX = 6
KILL_AT_START = 0.3
START_SECONDS = 1.0
SERVED_SECONDS = 0.8
OPERATION_SECONDS_MAX = 20.0
POLL_SECONDS = 0.01
DEAF_TICKS = 400
AFTERMATH_SECONDS = 0.2
QUIET_RESTARTS = 20
FEW = (
    ("up", "after-intent", 1), ("up", "start:ordered", 1), ("up", "after-begin", 1),
    ("preempt", "before-end", 1), ("stop", "stop:written", 1), ("down", "before-discard", 1),
)  # fmt: skip

Boundary = tuple[str, str, int]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one home came to."""

    what: str
    kills: int
    reached: bool
    violations: tuple[str, ...]
    counts: dict[str, int]
    begun: tuple[Begun, ...]


def _result(home: ChaosHome, what: str, kills: int, unsettled: Iterable[str], *, reached: bool) -> Result:
    home.close()
    found, counts = home.verdict()
    return Result(
        what=what,
        kills=kills,
        reached=reached,
        violations=tuple([f"unsettled: {item}" for item in unsettled] + found),
        counts=dict(counts),
        begun=tuple(home.begun),
    )


# ---- random instants --------------------------------------------------------------------------------------


class _Busy(threading.Thread):
    """A client that keeps asking for things, whoever serves."""

    def __init__(self, home: ChaosHome, seed: str) -> None:
        super().__init__()
        self._home, self._chance = home, random.Random(seed)
        self._count = 0
        self.over = threading.Event()
        self.asked: Counter[str] = Counter()

    def run(self) -> None:
        while not self.over.wait(self._chance.uniform(0.02, 0.15)):
            try:
                self._ask()
            except SteersmanError:
                self.asked["unanswered"] += 1

    def _ask(self) -> None:
        rows = self._home.status().workloads
        unsettled = [row for row in rows if not row.settled]
        kind = self._chance.choice(("up", "up", "up", "stop", "down"))
        if kind == "up" and len(unsettled) < LIVE_WORKLOADS_MAX:
            self._count += 1
            self._home.up(self._job(f"job-{self._count}"))
        elif kind == "stop" and unsettled:
            self._home.stop(self._chance.choice(unsettled).name)
        elif kind == "down" and rows:
            self._home.down(self._chance.choice(rows).name)
        else:
            return
        self.asked[kind] += 1

    def _job(self, name: str) -> str:
        chance = self._chance
        return job(
            name,
            self._home.ledger,
            ticks=chance.randint(1, 10),
            code=chance.choice((0, 0, 3, 7)),
            cpus=chance.choice(("1", "2")),
            priority=chance.choice((0, 0, 100)),
            saves=chance.random() < 0.7,
        )


def random_kills(kills: int, seed: str, planted: str = "") -> Result:
    """One home, one busy client, and that many kills."""
    home, chance = ChaosHome(planted), random.Random(f"{seed}/kills")
    client = _Busy(home, f"{seed}/client")
    try:
        home.serve()
        home.up(FLEET)
        client.start()
        for _ in range(kills):
            if chance.random() < KILL_AT_START:
                time.sleep(chance.uniform(0, START_SECONDS))
            else:
                home.must_serve()
                time.sleep(chance.uniform(0, SERVED_SECONDS))
            home.kill()
            home.spawn()
        home.must_serve()
        client.over.set()
        client.join()
        return _result(home, f"random {dict(client.asked)}", kills, home.settle(), reached=True)
    finally:
        client.over.set()
        home.remove()


# ---- boundaries -------------------------------------------------------------------------------------------


def at_boundary(boundary: Boundary, planted: str = "") -> Result:
    """One home: the operation, the kill at the boundary, the next plane, the end."""
    operation, name, nth = boundary
    home = ChaosHome(planted)
    try:
        home.serve(f"{name}:{nth}")
        home.up(FLEET)
        ask = _prepare(home, operation, long=planted == "deaf-stop")
        home.arm()
        try:
            ask()
        except SteersmanError:
            reached = True
        else:
            reached = _wait(home.dead, lambda: not home._unsettled())
            time.sleep(AFTERMATH_SECONDS)
        home.surely(ask)
        unsettled = home.settle()
        reached = reached or home.dead() or len(home.begun) > 1  # it may die of the last thing it does
        return _result(home, f"{operation} {name}:{nth}", int(reached), unsettled, reached=reached)
    finally:
        home.remove()


def _prepare(home: ChaosHome, operation: str, *, long: bool) -> Callable[[], object]:
    """Bring the home to where the operation can be asked for; the request."""
    # A checkpoint is seen at the sensor's next look, within two seconds: only then is there one to tune.
    ticks = DEAF_TICKS if long else 50 if operation == "up" else 16
    first = job("first", home.ledger, ticks=ticks, code=0, cpus="2", saves=True)
    if operation == "up":
        return lambda: home.up(first)
    home.up(first)
    assert _wait(lambda: home.starts() > 0), "the first program does not begin"
    if operation == "preempt":
        second = job("second", home.ledger, ticks=3, code=3, cpus="2", priority=100)
        time.sleep(0.15)  # longer than the policy protects a run from being preempted
        return lambda: home.up(second)
    return (lambda: home.stop("first")) if operation == "stop" else (lambda: home.down("first"))


def _wait(*any_of: Callable[[], bool]) -> bool:
    """Wait until one of them holds; whether it was the first."""
    deadline = time.monotonic() + OPERATION_SECONDS_MAX
    while time.monotonic() < deadline:
        for number, holds in enumerate(any_of):
            try:
                if holds():
                    return number == 0
            except SteersmanError:  # it is being killed at this moment
                continue
        time.sleep(POLL_SECONDS)
    return False


def boundaries(which: str) -> list[Boundary]:
    """Those to be killed at: every name, engine's at their first two arrivals, for every operation."""
    if which == "none":
        return []
    if which == "few":
        return list(FEW)
    names = [(name, nth) for name in ENGINE_BOUNDARIES for nth in (1, 2)] + [(name, 1) for name in FAILPOINTS]
    return [(operation, name, nth) for operation in OPERATIONS for name, nth in names]


# ---- alone ------------------------------------------------------------------------------------------------


def restarts(count: int) -> Result:
    """One home, one plane at a time, nothing else of ours beside it: how long until it serves again."""
    home = ChaosHome()
    try:
        home.serve()
        home.up(FLEET, job("first", home.ledger, ticks=20 * count, cpus="1"))
        assert _wait(lambda: home.starts() > 0), "the program does not begin"
        home.begun.clear()
        for _ in range(count):
            home.kill()
            home.serve()
        home.surely(lambda: home.down("first"))
        return _result(home, "alone", count, home.settle(), reached=True)
    finally:
        home.remove()


# ---- the whole --------------------------------------------------------------------------------------------


def simulated(seeds: int, first: int) -> Result:
    """Storms in the simulated world."""
    outcomes = [storm(seed, MemoryJournal(), RunSensor) for seed in range(first, first + seeds)]
    found = [f"seed {item.seed}: {problem}" for item in outcomes for problem in item.violations]
    counts = {"programs": sum(item.programs for item in outcomes), "events": sum(o.events for o in outcomes)}
    crashes = sum(item.crashes for item in outcomes)
    return Result(
        what=f"simulated, {seeds} seeds",
        kills=crashes,
        reached=True,
        violations=tuple(found),
        counts=counts,
        begun=(),
    )


def measure(kills: int = 500, seed: int = 1, which: str = "all") -> dict[str, float]:
    """The figures of all kills, by name."""
    return trial(kills, seed, which)[0]


def trial(
    kills: int = 500, seed: int = 1, which: str = "all", sim: int = 0, planted: str = ""
) -> tuple[dict[str, float], list[Result]]:
    """All kills; figures by name, and each home's result."""
    began = time.monotonic()
    homes = min(RANDOM_HOMES, kills)
    shares = [kills // homes + (number < kills % homes) for number in range(homes)] if homes else []
    results: list[Result] = []
    with concurrent.futures.ThreadPoolExecutor(PARALLEL_HOMES) as pool:
        waiting = [
            pool.submit(random_kills, share, f"{seed}/{number}", planted)
            for number, share in enumerate(shares)
        ]
        waiting += [pool.submit(at_boundary, boundary, planted) for boundary in boundaries(which)]
        results += [item.result() for item in waiting]
    alone = restarts(QUIET_RESTARTS if which == "all" else 2)
    results.append(alone)
    if sim:
        results.append(simulated(sim, seed))
    quiet = sorted(item.wall_ms for item in alone.begun)
    served = {
        "chaos_serving_alone_ms_p50": round(quiet[len(quiet) // 2]),
        "chaos_serving_alone_ms_max": round(quiet[-1]),
    }
    return {**_figures(results), **served, "chaos_seconds": round(time.monotonic() - began, 1)}, results


def _figures(results: Sequence[Result]) -> dict[str, float]:
    begun = [item for result in results for item in result.begun]
    walls = sorted(item.wall_ms for item in begun) or [0.0]
    cpus = sorted(item.cpu_ms for item in begun) or [0.0]
    at_boundaries = [
        result for result in results if ":" in result.what and not result.what.startswith(("random", "sim"))
    ]
    total: Counter[str] = Counter()
    for result in results:
        total.update(result.counts)
    return {
        "chaos_kills_random": sum(r.kills for r in results if r.what.startswith("random")),
        "chaos_boundaries": len(at_boundaries),
        "chaos_boundaries_reached": sum(1 for result in at_boundaries if result.reached),
        "chaos_programs": total["programs"],
        "chaos_events": total["events"],
        "chaos_orphans": total["orphans"],
        "chaos_doubles": total["doubles"],
        "chaos_lost_exits": total["lost_exits"],
        "chaos_violations": sum(len(result.violations) for result in results),
        "chaos_serving_ms_p50": round(walls[len(walls) // 2]),
        "chaos_serving_ms_p99": round(walls[len(walls) * 99 // 100]),
        "chaos_serving_ms_max": round(walls[-1]),
        "chaos_serving_cpu_ms_p50": round(cpus[len(cpus) // 2]),
        "chaos_serving_cpu_ms_max": round(cpus[-1]),
        "chaos_serving_over_2s": sum(1 for wall in walls if wall > 2_000),
        "chaos_starts": len(begun),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--boundaries", choices=("all", "few", "none"), default="all")
    parser.add_argument("--sim", type=int, default=0)
    parser.add_argument("--planted", choices=PLANTED, default="")
    options = parser.parse_args()
    figures, results = trial(options.kills, options.seed, options.boundaries, options.sim, options.planted)
    bad = [result for result in results if result.violations]
    if options.json:
        unreached = [result.what for result in results if not result.reached]
        found = {result.what: list(result.violations) for result in bad}
        print(json.dumps({"figures": figures, "violations": found, "not_reached": unreached}))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value:g}")
        for result in bad:
            print(f"\n{result.what}", *result.violations, sep="\n  ")
    return 1 if bad else 0


if __name__ == "__main__":
    assert CONVERGE_SECONDS_MAX > OPERATION_SECONDS_MAX
    sys.exit(main())
