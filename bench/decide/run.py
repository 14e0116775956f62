"""All problems, with what Steersman comes to beside its baselines and bounds.

    python -m bench.decide.run                   all of it: 20 to 30 minutes of CPU time
    python -m bench.decide.run --short           fewer seeds, shorter spans: does everything measure?
    python -m bench.decide.run --only packing
    python -m bench.decide.run --json            one document on stdout

Theory: each problem is a module with its cases, which run apart, and a report of what they came to: tables on
stderr, a picture in the folder of --pictures, and figures by name that are held to bench/floors.toml. All
problems share one pool of processes. The traces are public and are no part of this repository:
STEERSMAN_TRACES names their folder (docs/guides/replay.md tells its layout).

Exit code: 0 when every floor that was measured holds (in full, every floor of the problems asked for must be
measured), 1 when not, 2 when there was nothing to measure or a trace cannot be read.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from bench.decide.problem import NO_TRACES, Problem, Report, console, traces
from bench.run import FLOORS, RESULTS, Line, Size, failures, judge, read_floors
from steersman.model.errors import TraceError

MODULES: Mapping[str, str] = {
    "packing": "packing",
    "engine": "engine",
    "jobs": "jobs",
    "autoscale": "autoscale",
    "spot-job": "spot_job",
}


class Done(NamedTuple):
    """A problem that was measured, and its figures against their floors."""

    name: str
    report: Report
    lines: Sequence[Line]


class _Here(Executor):
    """Runs in this process, when it is asked to use one."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Done when it returns."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def measured(names: Sequence[str], *, short: bool, processes: int) -> Iterator[Done]:
    """Each problem of which there are traces, in order, as soon as its last case has run."""
    problems: dict[str, Problem[Any, Any]] = {
        name: import_module(f"bench.decide.{MODULES[name]}").PROBLEM for name in names
    }
    floors = read_floors(FLOORS.read_text(encoding="utf-8"))
    with ProcessPoolExecutor(processes) if processes > 1 else _Here() as pool:
        running = {}
        for name, problem in problems.items():
            folder = traces(problem.folder)
            cases, missing = problem.cases(folder, short) if folder else ([], [problem.folder])
            if missing:
                sys.stderr.write(f"{name}: not there, and not measured: {', '.join(missing)}\n")
            if cases:
                running[name] = [pool.submit(problem.run, case) for case in cases]
        for name, futures in running.items():
            report = problems[name].report([future.result() for future in futures])
            bench = f"decide.{MODULES[name]}"
            yield Done(name, report, judge(bench, floors[bench], report.figures))


def show(done: Done) -> None:
    """The tables, and the floors with what was reached."""
    shown = Table(title=f"{done.name}: what must be reached, and what we would like")
    for head in ("figure", "value", "reach", "stretch", ""):
        shown.add_column(head, justify="left" if head in ("figure", "") else "right")
    for line in done.lines:
        if line.verdict:
            stretch = "" if line.stretch is None else f"{line.stretch:,g}"
            value = "–" if line.value is None else f"{line.value:,.4g}"
            shown.add_row(line.figure, value, line.floor, stretch, line.verdict)
    for table in (*done.report.tables, shown):
        console().print(table)


def draw(done: Done, folder: Path) -> list[Path]:
    """The pictures as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg" for name in done.report.pictures]
    for path, svg in zip(paths, done.report.pictures.values(), strict=True):
        path.write_text(svg, encoding="utf-8")
    return paths


def document(found: Sequence[Done], *, short: bool, seconds: float) -> dict[str, Any]:
    """For programs: figures, the rows of the tables, the floors."""
    return {
        "size": "short" if short else "full",
        "seconds": round(seconds, 1),
        "problems": {
            done.name: {
                "figures": done.report.figures,
                "rows": done.report.rows,
                "floors": [
                    {"figure": line.figure, "value": line.value, "floor": line.floor}
                    | {"stretch": line.stretch, "verdict": line.verdict}
                    for line in done.lines
                    if line.verdict
                ],
            }
            for done in found
        },
    }


def run(chosen: argparse.Namespace) -> int:
    """Measure, show, draw, judge."""
    began, found = time.monotonic(), list[Done]()
    for done in measured(chosen.only or list(MODULES), short=chosen.short, processes=chosen.processes):
        show(done)
        found.append(done)
        for path in draw(done, chosen.pictures):
            sys.stderr.write(f"drawn: {path}\n")
    if not found:
        sys.stderr.write(f"error: {NO_TRACES}\n")
        return 2
    seconds = time.monotonic() - began
    if chosen.json:
        sys.stdout.write(json.dumps(document(found, short=chosen.short, seconds=seconds)) + "\n")
    else:
        for done in found:
            for name, value in done.report.figures.items():
                sys.stdout.write(f"{name:60}{value:>14,.4f}\n")
    sys.stderr.write(f"{verdict(found, short=chosen.short)}; {seconds:.0f} s\n")
    return int(missed(found, short=chosen.short) > 0)


def missed(found: Sequence[Done], *, short: bool) -> int:
    """Floors that are missed; in full also those that were not measured."""
    size: Size = "short" if short else "full"
    return sum(failures(done.lines, size) for done in found)


def verdict(found: Sequence[Done], *, short: bool) -> str:
    """In words, with the floors that were not measured by name."""
    lines = [line for done in found for line in done.lines]
    unmeasured = [line.figure for line in lines if line.verdict == "not measured"]
    words = f"{count} floors missed" if (count := missed(found, short=short)) else "no floor missed"
    return f"{words}; {len(unmeasured)} not measured: {', '.join(unmeasured)}" if unmeasured else words


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", action="append", default=[], choices=tuple(MODULES))
    parser.add_argument("--pictures", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    chosen = parser.parse_args(arguments)
    try:
        return run(chosen)
    except TraceError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
