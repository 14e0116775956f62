"""A home under chaos: the planes that are killed, and what must hold at the end.

The home itself, its client and its accounts are those of `bench.home`.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.chaos_plane import SERVING
from bench.home import ROOT, Home
from steersman.model.errors import ConflictError, SteersmanError
from steersman.model.events import RankExited
from steersman.ports import run_dir
from steersman.sim.checkers import Evidence, violations

SERVE_SECONDS_MAX = 30.0
CONVERGE_SECONDS_MAX = 45.0
CONVERGE_SECONDS_PLANTED = 6.0
"""With a planted bug it may never converge, and need not be waited for."""
POLL_SECONDS = 0.02
FLEET = """\
kind: fleet
name: chaos
nodes:
  - name: local
    cpus: 2
    memory: 4GB
"""
PROGRAM = r"""
K="$STEERSMAN_RUN_ID/$STEERSMAN_NODE_RANK $STEERSMAN_NONCE"
leave() { trap '' TERM; echo "end $K $1" >> "$LEDGER"; exit $1; }
trap 'leave 75' TERM
echo "start $K" >> "$LEDGER"
i=0
while [ $i -lt TICKS ]; do
  sleep 0.05; i=$((i+1))
  [ $i -eq 2 ] && [ -n "$SAVES" ] && {
    s="$STEERSMAN_CHECKPOINT_DIR/step-000000000001"; d="$STEERSMAN_CHECKPOINT_DIR/.new"
    m='{"step":1,"at_ms":7,"save_ms":40,"run":"%s","files":{}}'
    [ -e "$s" ] || { mkdir -p "$d"; printf "$m" "$STEERSMAN_RUN_ID" > "$d/manifest.json"; mv "$d" "$s"; }
  }
done
leave CODE
"""


def job(
    name: str,
    ledger: Path,
    *,
    ticks: int,
    code: int = 0,
    cpus: str = "1",
    priority: int = 0,
    saves: bool = False,
) -> str:
    """A declaration of a program that runs `ticks` times 50 ms and then exits with `code`."""
    program = PROGRAM.replace("TICKS", str(ticks)).replace("CODE", str(code))
    document = {
        "kind": "job",
        "name": name,
        "run": program,
        "priority": priority,
        "stop_duration": "10s",
        "resources": {"cpus": cpus, "memory": "64MB"},
        "envs": {"LEDGER": str(ledger), "SAVES": "1" if saves else ""},
        **({"checkpoint": {"interval": "auto"}} if saves else {}),
    }
    return msgspec.json.encode(document).decode()  # JSON is YAML


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """How long a plane took until it served, and the CPU time of it, in milliseconds."""

    wall_ms: float
    cpu_ms: float


class ChaosHome(Home):
    """One home and the plane that has it at present."""

    def __init__(self, planted: str = "") -> None:
        super().__init__()
        self.plane: subprocess.Popen[bytes] | None = None
        self._served = False
        self.begun: list[Begun] = []
        self._planted = planted
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STEERSMAN_")},
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
        }

    # Planes.

    def spawn(self, kill: str = ":0") -> None:
        """Start a plane; it may serve later."""
        argv = [sys.executable, "-m", "bench.chaos_plane", str(self.home), "--kill", kill]
        argv += ["--planted", self._planted] if self._planted else []
        with (self.folder / "plane.log").open("ab") as log:
            self._spawned_at, self._served = time.monotonic(), False
            self.plane = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=self._environ
            )

    def wait_serving(self, seconds: float = SERVE_SECONDS_MAX) -> bool:
        """Whether it serves before the time is up and before it is gone; how long that took is kept."""
        assert self.plane is not None
        assert self.plane.stdout is not None
        if self._served:
            return True
        ready, _, _ = select.select([self.plane.stdout], [], [], seconds)
        if not ready or self.plane.stdout.readline().strip() != SERVING.encode():
            return False
        self._served = True
        wall_ms = (time.monotonic() - self._spawned_at) * 1_000
        self.begun.append(Begun(wall_ms=wall_ms, cpu_ms=_cpu_ms(self.plane.pid)))
        return True

    def serve(self, kill: str = ":0") -> None:
        """Start a plane and wait for it."""
        self.spawn(kill)
        self.must_serve()

    def must_serve(self) -> None:
        """Wait for the plane that was started."""
        if not self.wait_serving():
            self._where()
            log = (self.folder / "plane.log").read_text(errors="replace")
            raise AssertionError(f"no plane serves {self.home}: {log[-4_000:]}")

    def _where(self) -> None:
        """Have a plane that does not come up write down where it stands."""
        if self.plane is not None and self.plane.poll() is None:
            self.plane.send_signal(signal.SIGUSR2)
            time.sleep(1)

    def kill(self) -> None:
        """SIGKILL the plane."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End the plane in an orderly way."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.plane is not None:
            self.plane.send_signal(number)
            self.plane.wait(timeout=SERVE_SECONDS_MAX)
            assert self.plane.stdout is not None
            self.plane.stdout.close()
            self.plane = None

    def arm(self) -> None:
        """From now on the plane counts arrivals at its boundary."""
        assert self.plane is not None
        self.plane.send_signal(signal.SIGUSR1)

    def dead(self) -> bool:
        """Whether the plane has ended by itself."""
        if self.plane is None:
            return True
        if self.plane.poll() is None:
            return False
        self._end(signal.SIGKILL)
        return True

    # The client.

    def surely(self, request: Callable[[], object]) -> None:
        """Ask until it was accepted, or there is nothing left to ask it of."""
        deadline = time.monotonic() + CONVERGE_SECONDS_MAX
        while True:
            try:
                request()
            except ConflictError:
                return
            except SteersmanError as error:
                if error.code in {"not-found", "conflict", "unknown-workload"}:
                    return
                if time.monotonic() > deadline:
                    raise
                if self.dead():
                    self.serve()
                time.sleep(POLL_SECONDS)
            else:
                return

    def starts(self) -> int:
        """How many programs have begun."""
        return self.ledger.read_text().count("start ")

    def settle(self) -> list[str]:
        """Wait until nothing is left to do; what is not settled when the time is up."""
        deadline = time.monotonic() + (CONVERGE_SECONDS_PLANTED if self._planted else CONVERGE_SECONDS_MAX)
        left = ["it was not looked at"]
        while time.monotonic() < deadline:
            if self.dead():
                self.serve()
            with contextlib.suppress(SteersmanError):
                left = self._unsettled()
            if not left:
                return []
            time.sleep(POLL_SECONDS)
        return left

    def _unsettled(self) -> list[str]:
        rows = [
            f"{row.name} is {row.phase} ({row.code})"
            for row in self.status().workloads
            if not row.settled or row.removing
        ]
        return rows + [f"{folder} is not forgotten" for folder in self._remembered()]

    def _remembered(self) -> list[str]:
        ranks = (self.home / run_dir.RUNS).glob("*/[0-9]*")
        return [
            f"{rank.parent.name}/{rank.name}" for rank in ranks if not (rank / run_dir.DISCARDED).exists()
        ]

    # The end.

    def verdict(self) -> tuple[list[str], Counter[str]]:
        """Everything that does not hold, and what was counted. The plane must have ended."""
        left = self.processes()
        found = [f"orphan: process {pid} of {key or 'a shim'} lives" for pid, key in sorted(left.items())]
        history, problems = self.history()
        found += problems
        lives = self.lives(frozenset(left.values()))
        found += violations(Evidence(history=history, lives=lives))
        exits = [event for _, event in history if isinstance(event, RankExited)]
        lost = [f"lost: {event.run}/{event.rank}" for event in exits if event.cause == "lost"]
        counts = Counter(
            programs=sum(life.starts for life in lives),
            ended=sum(1 for life in lives if life.exit_code is not None),
            events=len(history),
            orphans=len(left),
            doubles=sum(1 for life in lives if life.starts > 1),
            lost_exits=len(lost) + sum(1 for item in found if item.startswith("no_lost_exits")),
        )
        return found + lost, counts

    def remove(self) -> None:
        """End whatever is left of this home and take its folder away."""
        if self.plane is not None:
            self.kill()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().remove()


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000 / os.sysconf("SC_CLK_TCK")
