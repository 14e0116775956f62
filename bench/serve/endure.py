"""What Steersman itself promises of a service under change and under too much load.

    python -m bench.serve.endure                     1,000 changes under load, overload, apply to ready
    python -m bench.serve.endure --changes 20 --json

changes    rollouts and scale-downs in turn, at a constant rate of RATE requests a second: how many are lost
           (no reply, a reset, a 5xx other than 503), how many refused, and the longest wait of any
overload   ten times the rate that the service can do, with a latency objective declared: the 99th percentile
           of those who were let in, against the same without overload; memory; and how soon all is well again
start      from `steer up` to ready, the file of the model in the page cache

Theory: all on one home of its own, through the same API that `steer` uses (a `steer` process for every one of
a thousand changes would measure Python's start). The load is that of `load`: open loop, from the intended
time. The longest wait counts all of them, those that were sent in the middle of a change included.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.serve import load
from bench.serve.changes import Under
from bench.serve.models import BUILDERS
from bench.serve.servers import Running, Wanted, running
from bench.serve.steersman_server import SERVICE, STEERSMAN, declaration
from bench.serve.tree import pss_mib
from steersman.app.client import Client, find_server, path
from steersman.app.settings import Settings
from steersman.app.wire import Document, DownRequest, NamesView, ServiceView, Submission, UpView

CHANGES = 1_000
RATE = 1_200.0
LOOK_SECONDS = 0.005
CHANGE_SECONDS_MAX = 60.0
CPUS = 0.5
OBJECTIVE_MS = 20
OVERLOAD = 10
OVERLOAD_SECONDS = 8.0
CALM_SECONDS = 5.0
CALM_SHARE = 0.5
STARTS = 5


class Home:
    """The service's home as its API sees it."""

    def __init__(self, server: Running, client: Client) -> None:
        self.server, self.client = server, client

    def declare(self, text: bytes) -> None:
        """`steer up` of a text; does not wait."""
        document = Document(source="bench.yaml", text=text.decode(), folder=str(self.server.site.folder))
        self.client.post(path("up"), Submission(documents=(document,)), UpView)

    def want(self, wanted: Wanted, objective_ms: int | None = None) -> None:
        """Declare the service and wait until it is so, and nothing of the old is left."""
        text = declaration(self.server.site, wanted, CPUS)
        if objective_ms is not None:
            gateway, service = text.split(b"\n---\n")
            body = {**json.loads(service), "slo": {"latency_p99": f"{objective_ms}ms"}}
            text = b"\n---\n".join((gateway, msgspec.json.encode(body)))
        self.declare(text)
        deadline = time.monotonic() + CHANGE_SECONDS_MAX
        while not self._is_so(wanted):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the service is not as declared after {CHANGE_SECONDS_MAX} s")
            time.sleep(LOOK_SECONDS)

    def _is_so(self, wanted: Wanted) -> bool:
        found = self.client.get(path("services", SERVICE), ServiceView)
        row = found.row
        settled = row.settled and row.rolling is None and row.failed is None
        return settled and row.ready == row.target == len(found.replicas) == wanted.replicas


def measure_changes(home: Home, changes: int, rate: float) -> dict[str, float]:
    """Rollouts and scale-downs in turn, under load."""
    began, done = time.monotonic(), 0
    under = Under(home.server, rate)
    try:
        time.sleep(1)
        while done < changes:
            home.want(Wanted(replicas=1, version=str(done)))
            home.want(Wanted(replicas=2, version=str(done)))
            home.want(Wanted(replicas=1, version=str(done)))
            done += 2
        seen = under.stop()
    finally:
        under.kill()
    return {
        "changes_done": done,
        "changes_seconds": time.monotonic() - began,
        "changes_requests": seen.requests,
        "changes_lost": seen.lost + seen.outcomes["unsent"],
        "changes_refused_share": seen.refused / max(seen.requests, 1),
        "changes_p99_ms": seen.p99_ms,
        "changes_worst_ms": max(seen.max_ms, seen.max_error_ms),
    }


def measure_overload(home: Home) -> dict[str, float]:
    """Half of what it can do, then ten times all of it, then half again."""
    home.want(Wanted(replicas=1, version="overload"), OBJECTIVE_MS)
    target, root = home.server.target, home.server.pid
    most = load.run(target, 0, CALM_SECONDS).achieved_per_s
    calm = load.run(target, most * CALM_SHARE, CALM_SECONDS)
    before = pss_mib(root)
    flood = load.run(target, most * OVERLOAD, OVERLOAD_SECONDS, connections=512, drain_ms=500)
    after = pss_mib(root)
    recovered = _recovered(home, most * CALM_SHARE, calm.p99_ms)
    return {
        "overload_most_per_s": most,
        "overload_calm_p99_ms": calm.p99_ms,
        "overload_p99_ms": flood.p99_ms,
        "overload_p99_to_calm": flood.p99_ms / calm.p99_ms,
        "overload_answered_per_s": flood.ok / OVERLOAD_SECONDS,
        "overload_refused": flood.refused,
        "overload_lost": flood.outcomes["server_error"] + flood.outcomes["reset"],
        "overload_memory_growth_mib": after - before,
        "overload_recovered_s": recovered,
    }


def _recovered(home: Home, rate: float, calm_p99_ms: float) -> float:
    """Seconds until a second of the calm load is answered whole, at most twice as slowly as before."""
    began = time.monotonic()
    while time.monotonic() - began < CHANGE_SECONDS_MAX:
        started = time.monotonic()
        seen = load.run(home.server.target, rate, 1.0)
        if seen.ok == seen.requests and seen.p99_ms <= 2 * calm_p99_ms:
            return started - began
    return CHANGE_SECONDS_MAX


def measure_starts(home: Home) -> dict[str, float]:
    """A service more and a service less, several times."""
    took = []
    for number in range(STARTS):
        name = f"start-{number}"
        body = declaration(home.server.site, Wanted(replicas=1, version="0"), CPUS).split(b"\n---\n")[1]
        text = msgspec.json.encode({**json.loads(body), "name": name})
        began = time.monotonic()
        home.declare(text)
        while home.client.get(path("services", name), ServiceView).row.ready < 1:
            time.sleep(LOOK_SECONDS)
        took.append(time.monotonic() - began)
        home.client.post(path("down"), DownRequest(names=(name,)), NamesView)
    return {"start_s_p50": statistics.median(took), "start_s_max": max(took)}


@contextlib.contextmanager
def _home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="bench-endure-") as name:
        model = BUILDERS["tabular"](Path(name))
        with running(STEERSMAN, model) as server:
            settings = Settings(home=server.site.folder / "home")
            with Client(settings.home, find_server(settings)) as client:
                yield Home(server, client)


def measure(changes: int = CHANGES, rate: float = RATE, *, overload: bool = True) -> dict[str, float]:
    """All figures by name."""
    with _home() as home:
        figures = measure_starts(home)
        if overload:
            figures |= measure_overload(home)
    with _home() as home:
        return figures | measure_changes(home, changes, rate)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--changes", type=int, default=CHANGES)
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second under the changes")
    parser.add_argument("--no-overload", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.changes, chosen.rate, overload=not chosen.no_overload)
    if chosen.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32}{value:>14,.3f}")
    return 1 if figures["changes_lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
