"""What Steersman itself promises of a service under change and under too much load.

    python -m bench.serve.endure                     1,000 changes under load, overload, apply to ready
    python -m bench.serve.endure --changes 20 --json

changes    rollouts and scale-downs in turn, at a constant rate of RATE requests a second: how many are lost
           (no reply, a reset, a 5xx other than 503), how many refused, and the longest wait of any
overload   ten times the rate that a model of some milliseconds can do, with a latency objective declared:
the 99th
           percentile of those who were let in, to that without load; memory; how soon all is well again
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
from msgspec.structs import replace

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
SLOW = """import time


def work(item):
    until = time.thread_time() + 0.004
    while time.thread_time() < until:
        pass
    return item
"""
OBJECTIVE_SHARE = 1.2
"""The objective that is declared, to what 99 of 100 take without load: some room is left below 2."""
OVERLOAD = 10
OVERLOAD_SECONDS = 8.0
CALM_SECONDS = 5.0
UNLOADED_SHARE = 0.2
STARTS = 5


class Home:
    """The service's home as its API sees it."""

    def __init__(self, server: Running, client: Client) -> None:
        self.server, self.client = server, client

    def declare(self, text: bytes) -> None:
        """`steer up` of a text; does not wait."""
        document = Document(source="bench.yaml", text=text.decode(), folder=str(self.server.site.folder))
        self.client.post(path("up"), Submission(documents=(document,)), UpView)

    def want(self, wanted: Wanted) -> None:
        """Declare the service and wait until it is so, and nothing of the old is left."""
        self.declare(declaration(self.server.site, wanted, CPUS))
        deadline = time.monotonic() + CHANGE_SECONDS_MAX
        while not self._is_so(wanted):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the service is not as declared after {CHANGE_SECONDS_MAX} s")
            time.sleep(LOOK_SECONDS)

    def until_ready(self, name: str) -> None:
        """Wait until a service has a replica that answers."""
        deadline = time.monotonic() + CHANGE_SECONDS_MAX
        while self.client.get(path("services", name), ServiceView).row.ready < 1:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not ready after {CHANGE_SECONDS_MAX} s")
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
    """A model of a few milliseconds: unloaded, then ten times what it can do, then unloaded again."""
    folder = home.server.site.folder / "slow"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    body = folder / "body"
    body.write_text("1")
    target = replace(home.server.target, path="/predict/slow", bodies=(body,))
    home.declare(slow_service(None))
    home.until_ready("slow")
    most = load.run(target, 0, CALM_SECONDS).achieved_per_s
    unloaded = load.run(target, most * UNLOADED_SHARE, CALM_SECONDS)
    home.declare(slow_service(max(int(unloaded.p99_ms * OBJECTIVE_SHARE), 1)))
    load.run(target, most * UNLOADED_SHARE, 2.0)
    before = pss_mib(home.server.pid)
    flood = load.run(target, most * OVERLOAD, OVERLOAD_SECONDS, connections=256, drain_ms=500)
    after = pss_mib(home.server.pid)
    recovered = _recovered(target, most * UNLOADED_SHARE, unloaded.p99_ms)
    home.client.post(path("down"), DownRequest(names=("slow",)), NamesView)
    return {
        "overload_most_per_s": most,
        "overload_offered_per_s": flood.achieved_per_s,
        "overload_unloaded_p99_ms": unloaded.p99_ms,
        "overload_p99_ms": flood.p99_ms,
        "overload_p99_to_unloaded": flood.p99_ms / unloaded.p99_ms,
        "overload_answered_to_most": flood.ok / OVERLOAD_SECONDS / most,
        "overload_refused": flood.refused,
        "overload_lost": flood.outcomes["server_error"] + flood.outcomes["reset"] + flood.outcomes["timeout"],
        "overload_memory_growth_mib": after - before,
        "overload_recovered_s": recovered,
    }


def slow_service(objective_ms: int | None) -> bytes:
    """The declaration of a service whose model takes a few milliseconds of CPU a row."""
    body = {
        "kind": "service",
        "name": "slow",
        "workdir": "slow",
        "model": {"callable": "slow:work"},
        "service": {"replicas": 1},
        "resources": {"cpus": 1},
    }
    objective = {} if objective_ms is None else {"slo": {"latency_p99": f"{objective_ms}ms"}}
    return msgspec.json.encode(body | objective)


def _recovered(target: load.Target, rate: float, unloaded_p99_ms: float) -> float:
    """Seconds until a second of the calm load is answered whole, at most twice as slowly as before."""
    began = time.monotonic()
    while time.monotonic() - began < CHANGE_SECONDS_MAX:
        started = time.monotonic()
        seen = load.run(target, rate, 1.0)
        if seen.ok == seen.requests and seen.p99_ms <= 2 * unloaded_p99_ms:
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
        home.until_ready(name)
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
