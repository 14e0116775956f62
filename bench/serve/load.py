"""The load generator of load.c: built once, run, read. It can prove itself.

    python -m bench.serve.load --self-check

Theory: the generator is C, so that it costs little of the two cores it shares with what it measures; what it
does and counts is told in load.c. The self-check drives it against a small server here that does as it is
told: answers in several framings, refuses, fails and hangs up in known numbers, and once stands still for
STALL_MS. In the open loop the stall must show in p99; in the closed loop, which sees it once a connection, it
must not, or the check would prove nothing.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from bench.serve.environments import FOLDER

SOURCE = Path(__file__).with_name("load.c")
BUILT = FOLDER / "built"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
CONNECTIONS = 32
TIMEOUT_MS = 10_000
DRAIN_MS = 2_000
EXTRA_SECONDS_MAX = 20.0
GENERATOR_CORES = {max(os.sched_getaffinity(0))}
"""It keeps to the last core, so that it is at most one neighbour to the server's processes. Where it may, it
goes first there: a generator that waits for a core measures itself."""
STALL_MS = 200
CHECK_RATE = 1_000.0
CHECK_SECONDS = 2.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of the generator saw. Percentiles are -1 when nothing was recorded."""

    requests: int
    seconds: float
    rate: float
    achieved_per_s: float
    outcomes: dict[str, int]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    max_error_ms: float
    own_late_ms_max: float
    connects: int
    answer_bytes: int
    cpu_seconds: float
    histogram_us: tuple[tuple[int, int], ...]

    @property
    def ok(self) -> int:
        """Requests answered with 2xx."""
        return self.outcomes["ok"]

    @property
    def lost(self) -> int:
        """Requests without a reply, or with one that nobody planned."""
        return sum(self.outcomes[name] for name in ("server_error", "client_error", "reset", "timeout"))

    @property
    def refused(self) -> int:
        """Requests refused with 429 or 503."""
        return self.outcomes["refused"]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go and what is in them. `bodies` are files, sent in rotation."""

    port: int
    path: str
    bodies: tuple[Path, ...]
    content_type: str = "application/json"


def build() -> Path:
    """The generator's program, compiled when its source changed."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = BUILT / f"load-{digest}"
    if not program.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        new = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", *FLAGS, "-o", str(new), str(SOURCE)], check=True)
        new.rename(program)
    return program


def _command(target: Target, rate: float, seconds: float, connections: int, drain_ms: int) -> list[str]:
    chosen = {
        "port": target.port,
        "path": target.path,
        "type": target.content_type,
        "rate": rate,
        "seconds": seconds,
        "connections": connections,
        "timeout-ms": TIMEOUT_MS,
        "drain-ms": drain_ms,
    }
    bodies = [word for body in target.bodies for word in ("--body", str(body))]
    return [
        str(build()),
        *(word for name, value in chosen.items() for word in (f"--{name}", str(value))),
        *bodies,
    ]


def start(
    target: Target, rate: float, seconds: float, *, connections: int = CONNECTIONS, drain_ms: int = DRAIN_MS
) -> subprocess.Popen[bytes]:
    """A generator under way; `rate` 0 is the closed loop. SIGTERM makes it end early and report."""
    process = subprocess.Popen(_command(target, rate, seconds, connections, drain_ms), stdout=subprocess.PIPE)
    with contextlib.suppress(ProcessLookupError):  # it refused its arguments; finish says so
        os.sched_setaffinity(process.pid, GENERATOR_CORES)
        with contextlib.suppress(OSError):  # not root: then own_late_ms_max tells how late it was
            os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(1))
    return process


def finish(process: subprocess.Popen[bytes], seconds: float) -> Load:
    """Its report, at most EXTRA_SECONDS_MAX after those seconds."""
    try:
        out, _ = process.communicate(timeout=seconds + EXTRA_SECONDS_MAX)
    finally:
        process.kill()
    if process.returncode != 0:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    return msgspec.json.decode(out, type=Load)


def run(
    target: Target, rate: float, seconds: float, *, connections: int = CONNECTIONS, drain_ms: int = DRAIN_MS
) -> Load:
    """One run, waited for."""
    return finish(start(target, rate, seconds, connections=connections, drain_ms=drain_ms), seconds)


# --- the self-check ---

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"
BAD = b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"
TORN = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
MIXED = (PLAIN, CHUNKED, CLOSING, BUSY, BROKEN, BAD, TORN, b"")
MIXED_OUTCOMES = {"ok": 3, "refused": 1, "client_error": 1, "server_error": 1, "reset": 2}


class _Server(asyncio.Protocol):
    """Answers the n-th request with `answer(n)`; hangs up after one that is not whole."""

    def __init__(self, answer: Callable[[int], bytes], count: list[int]) -> None:
        self._answer, self._count, self._seen = answer, count, b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self._seen = b""
        answer = self._answer(self._count[0])
        self._count[0] += 1
        assert self._transport is not None
        self._transport.write(answer)
        if answer in (CLOSING, TORN, b""):
            self._transport.close()


@contextlib.contextmanager
def _serving(answer: Callable[[int], bytes]) -> Iterator[tuple[int, list[int]]]:
    """The server in a thread: its port, and the count of requests it has seen."""
    loop, count = asyncio.new_event_loop(), [0]
    server = loop.run_until_complete(loop.create_server(lambda: _Server(answer, count), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1], count
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


def _stalling(at: int) -> Callable[[int], bytes]:
    def answer(number: int) -> bytes:
        if number == at:
            time.sleep(STALL_MS / 1_000)
        return PLAIN

    return answer


def _expect(found: object, wanted: object, what: str) -> None:
    print(f"{'ok  ' if found == wanted else 'FAIL'} {what}: {found}")
    if found != wanted:
        raise SystemExit(f"the load generator is wrong: {what} should be {wanted}")


def _check_outcomes(body: Path) -> None:
    with _serving(lambda number: MIXED[number % len(MIXED)]) as (port, count):
        load = run(Target(port=port, path="/x", bodies=(body,)), 400, 1.0)
    _expect(count[0], load.requests, "requests that the server saw")
    rounds = load.requests // len(MIXED)
    seen = {name: load.outcomes[name] // rounds for name in MIXED_OUTCOMES}
    _expect(load.requests, 400, "requests sent in 1 s at 400/s")
    _expect(seen, MIXED_OUTCOMES, f"outcomes in a round of {len(MIXED)}")


def _check_stall(body: Path) -> None:
    with _serving(_stalling(500)) as (port, _):
        load = run(Target(port=port, path="/x", bodies=(body,)), CHECK_RATE, CHECK_SECONDS)
    print(f"     open loop: p50 {load.p50_ms} ms, p99 {load.p99_ms} ms, max {load.max_ms} ms")
    _expect(load.ok, int(CHECK_RATE * CHECK_SECONDS), "answered at 1,000/s with a stall")
    _expect(load.p99_ms > STALL_MS * 0.75, True, "the open loop's p99 shows the stall")
    with _serving(_stalling(5_000)) as (port, _):
        load = run(Target(port=port, path="/x", bodies=(body,)), 0, CHECK_SECONDS)
    print(f"     closed loop: {load.achieved_per_s:.0f}/s, p99 {load.p99_ms} ms, max {load.max_ms} ms")
    _expect(load.max_ms >= STALL_MS, True, "the closed loop saw the stall")
    _expect(load.p99_ms < STALL_MS / 2, True, "the closed loop's p99 hides it")


def _check_lost(body: Path) -> None:
    with _serving(lambda _number: PLAIN) as (port, _):
        pass
    load = run(Target(port=port, path="/x", bodies=(body,)), 100, 1.0)
    _expect(load.ok, 0, "answers where nobody listens")
    _expect(load.lost + load.outcomes["unsent"], 100, "requests lost where nobody listens")
    with _serving(lambda _number: b"HTTP/1.1 200 OK\r\n") as (port, _):
        load = run(Target(port=port, path="/x", bodies=(body,)), 100, 1.0, drain_ms=100)
    _expect(load.outcomes["timeout"], CONNECTIONS, "requests under way at a server that never ends an answer")
    _expect(load.outcomes["unsent"], 100 - CONNECTIONS, "requests that found no connection there")


def self_check() -> None:
    """Every promise of the generator once; ends the process with words when one is broken."""
    with tempfile.TemporaryDirectory(prefix="bench-load-") as name:
        body = Path(name) / "body"
        body.write_bytes(b"x" * 100)
        for check in (_check_outcomes, _check_stall, _check_lost):
            check(body)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--self-check", action="store_true", required=True)
    parser.parse_args(arguments)
    self_check()
    return 0


if __name__ == "__main__":
    sys.exit(main())
