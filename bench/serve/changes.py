"""What is lost while a server changes under load: rollouts, and scale-downs from two replicas to one.

Theory: the generator sends at half of what one replica holds, as it is configured for the changes (with two
replicas in turn one has to carry it), from before the first change until after the last, with its
latency from the intended time, so that a stall is seen by all that were due in it. A change is over when the
server itself says so. Scaling up again between two scale-downs is under the same load and its losses count
too, as they would for a user. A server that changes slowly does as many as fit in `seconds`, and the table
says how many that were.
"""

import contextlib
import signal
import time
from collections.abc import Iterator

import msgspec

from bench.serve import load
from bench.serve.measure import Lengths, highest_rate
from bench.serve.servers import Running, Wanted

SETTLE_SECONDS = 0.5
LOAD_SECONDS_MAX = 600.0


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of change cost."""

    server: str
    change: str
    done: int
    asked: int
    seconds: float
    rate: float
    requests: int
    lost: int
    refused: int
    worst_ms: float
    p99_ms: float


class Under:
    """A load that goes on until it is read."""

    def __init__(self, server: Running, rate: float) -> None:
        drain_ms = load.TIMEOUT_MS  # each request gets its full time to be answered
        self._process = load.start(server.target, rate, LOAD_SECONDS_MAX, drain_ms=drain_ms)

    def stop(self) -> load.Load:
        """Ends the sending; the report."""
        self._process.send_signal(signal.SIGTERM)
        return load.finish(self._process, 0)

    def kill(self) -> None:
        """Whatever happened, nothing of it is left."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _load(server: Running, rate: float) -> Iterator[Under]:
    under = Under(server, rate)
    try:
        time.sleep(SETTLE_SECONDS)
        yield under
    finally:
        under.kill()


def _change(server: Running, replicas: int, version: int) -> None:
    assert server.kind.change is not None
    server.kind.change(server, Wanted(replicas=replicas, version=str(version)))


def losses(server: Running, change: str, rate: float, asked: int, seconds: float) -> Losses:
    """Of one kind of change under that rate, from two replicas on."""
    began, done = time.monotonic(), 0
    with _load(server, rate) as under:
        while done < asked and time.monotonic() - began < seconds:
            if change == "rollout":
                _change(server, 2, done + 2)
            else:
                _change(server, 1, 1)
                _change(server, 2, 1)
            done += 1
        time.sleep(SETTLE_SECONDS)
        result = under.stop()
    return Losses(
        server=server.kind.name,
        change=change,
        done=done,
        asked=asked,
        seconds=time.monotonic() - began,
        rate=rate,
        requests=result.requests,
        lost=result.lost,
        refused=result.refused,
        worst_ms=max(result.max_ms, result.max_error_ms),
        p99_ms=result.p99_ms,
    )


def measure(server: Running, first: float, asked: int, seconds: float) -> list[Losses]:
    """Scale-downs, then rollouts, each at most that many and that long. Two replicas stand before each. The
    rate that one replica holds is looked for from `first`, a second."""
    _change(server, 1, 1)
    rate = max(highest_rate(server, first, Lengths()) / 2, 1.0)
    _change(server, 2, 1)
    return [losses(server, change, rate, asked, seconds) for change in ("scale-down", "rollout")]
