"""What an idle control plane costs, and how quick the first touch is.

    python -m bench.resources [--seconds 20]

One `steer server` of a new home, left alone: its resident and proportional memory, and its CPU time as a
share of one core. The time of `import steersman` in a new interpreter, and whether that loads anything of a
third party. The wall and CPU time of a whole `steer status` process against that server.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

IDLE_SECONDS = 20.0
SETTLE_SECONDS = 4.0
IMPORTS = 5
STATUSES = 10
START_SECONDS_MAX = 60.0
MIB = 1 << 20
STEER = (sys.executable, "-P", "-m", "steersman.app.cli")
IMPORT = """
import sys, time
before = set(sys.modules); began = time.perf_counter(); import steersman
took = time.perf_counter() - began
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(took * 1000, ",".join(sorted(new - {"steersman"} - set(sys.stdlib_module_names))))
"""


@contextlib.contextmanager
def server(home: Path) -> Iterator[int]:
    """A server of its own on a home; its pid."""
    argv = [*STEER, "server", "--home", str(home), "--port", "0"]
    with (home.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not (home / "server.json").exists():
            assert process.poll() is None, (home.parent / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        sizes[name] = int(value.split()[0]) * 1024
    return round(sizes["Rss"] / MIB, 1), round(sizes["Pss"] / MIB, 1)


def idle(pid: int, seconds: float) -> dict[str, float]:
    """Memory and CPU share of a process that is left alone."""
    time.sleep(SETTLE_SECONDS)
    before, began = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
    rss, pss = memory_mib(pid)
    return {"idle_rss_mib": rss, "idle_pss_mib": pss, "idle_cpu_percent": round(share * 100, 2)}


def imports() -> dict[str, float]:
    """The best of a few imports, in a new interpreter each."""
    times, third_parties = [], set()
    for _ in range(IMPORTS):
        answer = subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True)
        took, _, names = answer.stdout.strip().partition(" ")
        times.append(float(took))
        third_parties |= {name for name in names.split(",") if name}
    return {"import_ms": round(min(times), 1), "import_third_parties": len(third_parties)}


def statuses(home: Path) -> dict[str, float]:
    """`steer status` as a user has it: a process from its start to its end."""
    walls, cpus = [], []
    for _ in range(STATUSES):
        began, before = time.perf_counter(), os.times()
        subprocess.run([*STEER, "status", "--home", str(home)], check=True, capture_output=True)
        after = os.times()
        walls.append((time.perf_counter() - began) * 1_000)
        cpus.append((after.children_user + after.children_system) * 1_000)
        cpus[-1] -= (before.children_user + before.children_system) * 1_000
    return {
        "status_ms_p50": _median(walls),
        "status_ms_min": round(min(walls), 1),
        "status_cpu_ms_p50": _median(cpus),
    }


def _median(values: Sequence[float]) -> float:
    return round(sorted(values)[len(values) // 2], 1)


def measure(seconds: float = IDLE_SECONDS) -> dict[str, float]:
    """All figures, by name."""
    with tempfile.TemporaryDirectory(prefix="bench-resources-") as name:
        home = Path(name) / "home"
        with server(home) as pid:
            figures = idle(pid, seconds)
            figures |= statuses(home)
    return {**figures, **imports()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=IDLE_SECONDS)
    print(json.dumps(measure(parser.parse_args().seconds)))


if __name__ == "__main__":
    main()
