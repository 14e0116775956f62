"""What Steersman costs on top of Ray, beside plain Ray in the same run.

    python -m bench.run --only ray.overhead [--short]

job start     from the request until the program's first statement, on one cluster of two nodes: Ray's Jobs
              API and Steersman in turn, each JOBS times, the first of each not counted
serving       the tabular model of `bench.serve` on a cluster of one node against Ray Serve's own
              high-throughput mode: requests a CPU-second of the whole tree (for Steersman: Ray's head and
              dashboard, bridge, control plane, gateway and replicas); both in turn, ROUNDS times, and of the
              ratios the one in the middle
changes       CHANGES scale-downs and rollouts under load: of both at half of what one replica of Ray Serve
              holds; scale-downs of Steersman also at half of what its own holds (`own_half`)

Theory: both ways of starting a job make a process of Ray's that starts the program; the Jobs API's supervisor
is on the head, Steersman's on the node it chose, through reservation, fence and shim. Times are wall times of
one machine's clock.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from tests.ray.cluster import RayCluster, Shape

from bench.ray.server import ON_RAY, RAY
from bench.ray.world import PROGRAM, World, wait
from bench.serve import changes, environments, kinds, load, models, servers
from bench.serve.changes import Losses
from bench.serve.measure import FIRST_SHARE, SHORT, Lengths, highest_rate, saturated
from bench.serve.servers import Kind, Running

JOBS, JOBS_SHORT = 16, 4
ROUNDS = 3
LENGTHS = Lengths(warm=5.0, saturation=10.0)
"""Longer than between servers on one machine: Ray goes on starting for seconds after it answers."""
CHANGES = 20
CHANGES_SECONDS = 60.0
START_SECONDS_MAX = 60.0
FAST = "ray serve fast"


def note(words: str) -> None:
    """Progress, on stderr."""
    print(words, file=sys.stderr, flush=True)


# ---- job start --------------------------------------------------------------------------------------------


def stamped(file: Path) -> int:
    """When a program began, in nanoseconds since the epoch."""
    assert wait(lambda: file.exists() and bool(file.read_text()), START_SECONDS_MAX), (
        f"{file.name} never began"
    )
    return int(file.read_text())


@contextmanager
def jobs_api(cluster: RayCluster) -> Iterator["subprocess.Popen[str]"]:
    """The client of Ray's Jobs API, connected."""
    command = [*cluster.run_in_head, str(RAY / "python"), str(PROGRAM / "jobs_api.py"), cluster.dashboard]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=cluster.environ()
    ) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n", "the Jobs API does not answer"
            yield client
        finally:
            client.kill()


def by_jobs_api(client: "subprocess.Popen[str]", file: Path) -> float:
    """Milliseconds until the program began."""
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"python {PROGRAM / 'stamp.py'} {file}\n")
    client.stdin.flush()
    asked = int(client.stdout.readline())
    return (stamped(file) - asked) / 1e6


def by_steersman(world: World, name: str, file: Path) -> float:
    """The same, of a job that is declared."""
    text = world.job(name, f"python {PROGRAM / 'stamp.py'} {file}", cpus=0.25, workdir=None)
    asked = time.time_ns()
    world.up(text)
    began = stamped(file)

    def settled() -> bool:
        status = world.look()
        return status is not None and all(row.settled for row in status.workloads)

    assert wait(settled, START_SECONDS_MAX), f"{name} did not end"
    return (began - asked) / 1e6


def job_starts(count: int) -> dict[str, list[float]]:
    """Milliseconds of both, in turn."""
    found: dict[str, list[float]] = {"jobs_api": [], "steersman": []}
    with closing(RayCluster(RAY)) as cluster:
        cluster.start(Shape(2), Shape(2))
        world = World(cluster, PROGRAM.parents[2] / "src")
        try:
            world.join()
            with jobs_api(cluster) as client:
                for number in range(count):
                    ours = by_steersman(world, f"start-{number}", world.folder / f"ours-{number}")
                    theirs = by_jobs_api(client, world.folder / f"theirs-{number}")
                    note(f"job {number}: steersman {ours:.0f} ms, Jobs API {theirs:.0f} ms")
                    found["steersman"].append(ours)
                    found["jobs_api"].append(theirs)
            world.finish()
        finally:
            world.remove()
    return {name: values[1:] for name, values in found.items()}


# ---- serving ----------------------------------------------------------------------------------------------


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One server: requests a CPU-second, round by round; the highest rate that it holds; its changes."""

    per_cpu_second: list[float]
    max_rate: float
    losses: list[Losses]


def round_of(kind: Kind, model: models.Model, lengths: Lengths) -> float:
    """Requests a CPU-second of one server, from its start to its end."""
    with servers.running(kind, model) as server:
        found = saturated(server, lengths).per_cpu_second
    note(f"{kind.name}: {found:,.0f} req/CPU-s")
    return found


def changed(server: Running, max_rate: float, count: int, rate: float) -> list[Losses]:
    """What changes cost at half of what the server holds; if `rate` is given also at that, and first."""
    losses = changes.measure(server, max_rate / 2, count, CHANGES_SECONDS)
    if rate:
        own = msgspec.structs.replace(losses[0], change="own-half")
        kinds_of = ("scale-down", "rollout")
        at_rate = [changes.losses(server, change, rate, count, CHANGES_SECONDS) for change in kinds_of]
        losses = [*at_rate, own]
    for each in losses:
        words = f"{each.done} {each.change}s, {each.lost} lost, worst {each.worst_ms:.0f} ms"
        note(f"{server.kind.name}: {words}")
    return losses


def served(kind: Kind, model: models.Model, lengths: Lengths, count: int, rate: float = 0.0) -> Served:
    """The first round of one server, the rate that it holds, and `count` of each of its changes."""
    with servers.running(kind, model) as server:
        full = saturated(server, lengths)
        max_rate = highest_rate(server, full.load.achieved_per_s * FIRST_SHARE, lengths)
        note(f"{kind.name}: {full.per_cpu_second:,.0f} req/CPU-s, holds {max_rate:,.0f}/s")
        losses = changed(server, max_rate, count, rate) if count else []
    return Served(per_cpu_second=[full.per_cpu_second], max_rate=max_rate, losses=losses)


def compared(short: bool) -> dict[str, Served]:
    """Ray Serve and Steersman on Ray, in turn."""
    environments.install("ray_serve")
    load.build()
    fast = next(kind for kind in kinds.KINDS if kind.name == FAST)
    with tempfile.TemporaryDirectory(prefix="bench-ray-") as name:
        model = models.BUILDERS["tabular"](Path(name))
        lengths, count = (SHORT, 0) if short else (LENGTHS, CHANGES)
        theirs = served(fast, model, lengths, count)
        ours = served(ON_RAY, model, lengths, count, theirs.losses[0].rate if theirs.losses else 0.0)
        for _ in range(0 if short else ROUNDS - 1):
            theirs.per_cpu_second.append(round_of(fast, model, lengths))
            ours.per_cpu_second.append(round_of(ON_RAY, model, lengths))
    return {FAST: theirs, ON_RAY.name: ours}


# ---- the whole --------------------------------------------------------------------------------------------


def measure(short: int = 0) -> dict[str, float]:
    """Every figure by name."""
    starts = job_starts(JOBS_SHORT if short else JOBS)
    both = compared(bool(short))
    median = {name: statistics.median(values) for name, values in starts.items()}
    found = {f"{name}_start_ms_p50": round(value) for name, value in median.items()}
    found |= {f"{name}_start_ms_max": round(max(values)) for name, values in starts.items()}
    theirs, ours = both[FAST], both[ON_RAY.name]
    ratios = [our / their for our, their in zip(ours.per_cpu_second, theirs.per_cpu_second, strict=True)]
    figures: dict[str, float] = {
        **found,
        "start_to_jobs_api": round(median["steersman"] / median["jobs_api"], 2),
        "ray_serve_per_cpu_s": round(statistics.median(theirs.per_cpu_second)),
        "steersman_per_cpu_s": round(statistics.median(ours.per_cpu_second)),
        "per_cpu_to_ray_serve": round(statistics.median(ratios), 2),
        "per_cpu_to_ray_serve_min": round(min(ratios), 2),
        "per_cpu_to_ray_serve_max": round(max(ratios), 2),
        "ray_serve_max_rate": round(theirs.max_rate),
        "steersman_max_rate": round(ours.max_rate),
    }
    for words, one in (("ray_serve", theirs), ("steersman", ours)):
        for each in one.losses:
            change = each.change.replace("-", "_")
            figures |= {
                f"{words}_{change}s": each.done,
                f"{words}_{change}_rate": round(each.rate),
                f"{words}_{change}_requests": each.requests,
                f"{words}_{change}_lost": each.lost,
                f"{words}_{change}_refused": each.refused,
                f"{words}_{change}_worst_ms": round(each.worst_ms, 1),
                f"{words}_{change}_p99_ms": round(each.p99_ms, 1),
            }
    return figures
