"""What Steersman costs on top of Ray, beside plain Ray in the same run.

    python -m bench.ray.overhead [--short] [--json]

job start     from the request until the program's first statement, on one cluster of two nodes: Ray's Jobs
              API and Steersman in turn, each JOBS times, the first of each not counted
serving       the tabular model of `bench.serve` on a cluster of one node against Ray Serve's own
              high-throughput mode: requests a CPU-second of the whole tree (for Steersman: Ray's head and
              dashboard, bridge, control plane, gateway and replicas)
changes       CHANGES scale-downs and rollouts under load: of both at half of what one replica of Ray Serve
              holds; scale-downs of Steersman also at half of what its own holds (`own_half`)

Theory: both ways of starting a job make a process of Ray's that starts the program; the Jobs API's supervisor
is on the head, Steersman's on the node it chose, through reservation, fence and shim. Times are wall times of
one machine's clock.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from tests.ray.cluster import RayCluster, Shape

from bench.ray.server import ON_RAY, RAY
from bench.ray.world import PROGRAM, World, wait
from bench.serve import changes, environments, kinds, load, models, servers
from bench.serve.changes import Losses
from bench.serve.measure import SHORT, Figures, Lengths
from bench.serve.measure import measure as measure_server
from bench.serve.servers import Kind

JOBS, JOBS_SHORT = 16, 4
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
    """One server: its figures, and what its changes cost."""

    figures: Figures
    losses: list[Losses]


def served(kind: Kind, model: models.Model, lengths: Lengths, count: int, rate: float = 0.0) -> Served:
    """One server, from its start to its end. `rate` of the changes; else at half of what a replica holds."""
    began = time.monotonic()
    with servers.running(kind, model) as server:
        figures = measure_server(server, lengths, time.monotonic() - began)
        note(f"{kind.name}: {figures.per_cpu_second:,.0f} req/CPU-s, holds {figures.max_rate:,.0f}/s")
        losses: list[Losses] = []
        if count:
            losses = changes.measure(server, figures.max_rate / 2, count, CHANGES_SECONDS)
            if rate:
                own = msgspec.structs.replace(losses[0], change="own-half")
                at_rate = [
                    changes.losses(server, change, rate, count, CHANGES_SECONDS)
                    for change in ("scale-down", "rollout")
                ]
                losses = [*at_rate, own]
            for each in losses:
                note(
                    f"{kind.name}: {each.done} {each.change}s, {each.lost} lost, worst {each.worst_ms:.0f} ms"
                )
    return Served(figures=figures, losses=losses)


def compared(short: bool) -> dict[str, Served]:
    """Ray Serve and Steersman on Ray."""
    environments.install("ray_serve")
    load.build()
    fast = next(kind for kind in kinds.KINDS if kind.name == FAST)
    with tempfile.TemporaryDirectory(prefix="bench-ray-") as name:
        model = models.BUILDERS["tabular"](Path(name))
        lengths, count = (SHORT, 0) if short else (Lengths(), CHANGES)
        theirs = served(fast, model, lengths, count)
        rate = theirs.losses[0].rate if theirs.losses else 0.0
        return {FAST: theirs, ON_RAY.name: served(ON_RAY, model, lengths, count, rate)}


# ---- the whole --------------------------------------------------------------------------------------------


def measure(short: int = 0) -> dict[str, float]:
    """Every figure by name."""
    starts = job_starts(JOBS_SHORT if short else JOBS)
    both = compared(bool(short))
    median = {name: statistics.median(values) for name, values in starts.items()}
    found = {f"{name}_start_ms_p50": round(value) for name, value in median.items()}
    found |= {f"{name}_start_ms_max": round(max(values)) for name, values in starts.items()}
    rates = {name: one.figures.per_cpu_second for name, one in both.items()}
    figures: dict[str, float] = {
        **found,
        "start_to_jobs_api": round(median["steersman"] / median["jobs_api"], 2),
        "ray_serve_per_cpu_s": round(rates[FAST]),
        "steersman_per_cpu_s": round(rates[ON_RAY.name]),
        "per_cpu_to_ray_serve": round(rates[ON_RAY.name] / rates[FAST], 2),
        "ray_serve_max_rate": round(both[FAST].figures.max_rate),
        "steersman_max_rate": round(both[ON_RAY.name].figures.max_rate),
    }
    for words, name in (("ray_serve", FAST), ("steersman", ON_RAY.name)):
        for each in both[name].losses:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.short)
    if chosen.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:34} {value:,g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
