"""The servers that are compared: how each is started, spoken to, checked and ended.

Theory: a `Kind` says what a server is; `running` starts one for one model below the launcher, waits until it
answers the first row, checks every row against what the model says alone (a fast wrong answer is none), and
ends the whole tree by the pids below the launcher. Requests are one row each: the plain row for those who let
us choose, a batch of one for BentoML, the Open Inference Protocol for MLServer. All listen on loopback with
their telemetry off, and may use the same SERVER_CORES.
"""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from bench.serve import models
from bench.serve.load import Target

HERE = Path(__file__).resolve().parent
LAUNCH = HERE / "launch.py"
READY_SECONDS_MAX = 120.0
END_SECONDS_MAX = 30.0
CHANGE_SECONDS_MAX = 150.0
PROBE_SECONDS = 0.1
ANSWER_SECONDS_MAX = 30.0
TOLERANCE = 2e-3
BATCH = 64
SERVER_CORES = sorted(os.sched_getaffinity(0))[:2]
"""Two cores for every server, so that figures of larger machines compare; the generator has the last one."""
PRIVATE = {
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OTEL_SDK_DISABLED": "true",
    "DO_NOT_TRACK": "1",
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Json = Any


class ServerFailedError(Exception):
    """It did not start, or answers wrongly; the message says which."""


class NotUnderstoodError(ServerFailedError):
    """It is ready and refuses the request: waiting does not help."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where one server is to run."""

    model: models.Model
    folder: Path
    port: int
    batch: int


Prepare = Callable[[Site], tuple[list[str], dict[str, str]]]
"""Command and environment variables of a server."""


Begin = Callable[["Site"], int]
"""What is left to do once the process runs; the port it answers on. Raises ServerFailedError."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a change asks for: so many replicas of this version."""

    replicas: int
    version: str


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One server. `environment` None: the project's own. `lines`: it is steered by lines on its stdin.
    `change` deploys something else while it serves, and returns when the server says that it is done."""

    name: str
    prepare: Prepare
    environment: str | None = None
    path: str = "/predict"
    ask: Callable[[models.Row], Json] = dict
    read: Callable[[Json], Mapping[str, Any]] = dict
    lines: bool = False
    begin: Begin | None = None
    change: "Callable[[Running, Wanted], None] | None" = None


class Running:
    """One server that answers."""

    def __init__(self, kind: Kind, site: Site, process: subprocess.Popen[bytes]) -> None:
        self.kind, self.site, self.process = kind, site, process
        bodies = []
        for number, row in enumerate(site.model.rows):
            bodies.append(site.folder / f"body-{number}")
            bodies[-1].write_bytes(msgspec.json.encode(kind.ask(row)))
        self.target = Target(port=site.port, path=kind.path, bodies=tuple(bodies))

    def begin(self) -> None:
        """What is left to do after the start; the server may say its port only then."""
        if self.kind.begin is not None:
            self.target = msgspec.structs.replace(self.target, port=self.kind.begin(self.site))

    @property
    def pid(self) -> int:
        """The launcher's, whose tree is the server."""
        return self.process.pid

    def tell(self, words: Json, seconds: float) -> None:
        """One line in, one line out, for those that are steered so."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(words) + b"\n")
        self.process.stdin.flush()
        self._line(seconds)

    def _line(self, seconds: float) -> None:
        """Waits for the next JSON line of its stdout; others are chatter."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        for line in _lines(self.process.stdout, deadline):
            if line.startswith(b"{"):
                return
        raise ServerFailedError(f"{self.kind.name} said nothing within {seconds} s")

    def ask(self, body: Path) -> Json:
        """One request; the answer's JSON. Raises OSError or ServerFailedError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=ANSWER_SECONDS_MAX)
        with contextlib.closing(connection):
            headers = {"Content-Type": self.target.content_type}
            connection.request("POST", self.kind.path, body.read_bytes(), headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status in (400, 422):
            raise NotUnderstoodError(f"{self.kind.name} answers {answer.status}: {text[:300]!r}")
        if answer.status != 200:
            raise ServerFailedError(f"{self.kind.name} answers {answer.status}: {text[:300]!r}")
        return msgspec.json.decode(text)

    def wait_ready(self) -> None:
        """Until the first row is answered."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        if self.kind.lines:
            self._line(READY_SECONDS_MAX)
        why: Exception | None = None
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.ask(self.target.bodies[0])
            except NotUnderstoodError:
                raise
            except (OSError, http.client.HTTPException, ServerFailedError) as error:
                why = error
                time.sleep(PROBE_SECONDS)
            else:
                return
        log = (self.site.folder / "log").read_text(errors="replace")[-2_000:]
        raise ServerFailedError(f"{self.kind.name} does not get ready: {why}\n{log}")

    def check(self) -> None:
        """Every row's answer against the model's own."""
        expected = models.answers(self.site.model)
        for body, wanted in zip(self.target.bodies, expected, strict=True):
            found = self.kind.read(self.ask(body))
            for name, value in wanted.items():
                if not np.allclose(np.asarray(found[name]), value, atol=TOLERANCE):
                    raise ServerFailedError(f"{self.kind.name} answers {name} wrongly for {body.name}")


def _lines(stream: IO[bytes], deadline: float) -> Iterator[bytes]:
    """Lines of a pipe until a deadline."""
    os.set_blocking(stream.fileno(), False)
    text = b""
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            more = os.read(stream.fileno(), 65_536)
            if not more:
                return
            text += more
        *whole, text = text.split(b"\n")
        yield from whole
        time.sleep(0.005)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@contextlib.contextmanager
def running(kind: Kind, model: models.Model, batch: int = BATCH) -> Iterator[Running]:
    """A server that answers rightly, and its end. Raises ServerFailedError."""
    # Sockets below it: a path of a Unix socket may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="bs-", ignore_cleanup_errors=True) as name:
        site = Site(model=model, folder=Path(name), port=free_port(), batch=batch)
        command, variables = kind.prepare(site)
        with (site.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(LAUNCH), *command],
                env={**os.environ, **PRIVATE, **ONE_THREAD, **_names(site), **variables},
                cwd=site.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if kind.lines else log,
                stderr=log,
            )
        try:
            server = Running(kind, site, process)
            server.begin()
            server.wait_ready()
            server.check()
            yield server
        finally:
            process.terminate()
            process.wait(END_SECONDS_MAX)


def _names(site: Site) -> dict[str, str]:
    return {
        "BENCH_MODEL": str(site.model.path),
        "BENCH_PORT": str(site.port),
        "BENCH_BATCH": str(site.batch),
        "BENCH_FOLDER": str(site.folder),
        "BENCH_CORES": ",".join(map(str, SERVER_CORES)),
    }
