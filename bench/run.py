"""Every benchmark against its floor.

    python -m bench.run                 all of them, in full
    python -m bench.run --short         all of them, small: does everything measure?
    python -m bench.run --only cycle    one of them; may be repeated

Theory: each module of this folder that is named in floors.toml has a `measure(**arguments)` that returns
figures by name, units last. It runs in a process of its own, one after another, so that no benchmark pays for
the heap of the one before. A figure that misses its floor, a floor whose figure was not measured (in full; a
short run may leave some out, and says so) and a benchmark that fails end the run with 1. Figures without a
floor are shown, for they explain the others.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
FLOORS = HERE / "floors.toml"
RESULTS = HERE / "results"
BENCH_SECONDS_MAX = 1_800

Size = Literal["full", "short"]
Verdict = Literal["pass", "target missed", "FAIL", "not measured", ""]


class Floor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a figure must keep to. Exactly one of `at_most` and `at_least` is given.

    `target`: what should be kept to and is out of reach, as the provenance explains; the floor is then what
    was reached, and holds it there.
    """

    at_most: float | None = None
    at_least: float | None = None
    target: float | None = None
    stretch: float
    provenance: str

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("a floor has either at_most or at_least")

    @property
    def words(self) -> str:
        """Like ``≤ 250``, and the target if that is another."""
        sign, bound = ("≥", self.at_least) if self.at_most is None else ("≤", self.at_most)
        return f"{sign} {bound:,g}" + ("" if self.target is None else f" (target {self.target:,g})")

    def verdict(self, value: float) -> Verdict:
        """How the value stands to it; not a number never keeps to it."""
        if not self._keeps(value, self.at_least, self.at_most):
            return "FAIL"
        if self.target is None:
            return "pass"
        aim = (self.target, None) if self.at_most is None else (None, self.target)
        return "pass" if self._keeps(value, *aim) else "target missed"

    @staticmethod
    def _keeps(value: float, at_least: float | None, at_most: float | None) -> bool:
        if at_most is not None:
            return value <= at_most
        return at_least is not None and value >= at_least


class Bench(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One module: arguments of its `measure`, and the floors of its figures."""

    full: dict[str, float | int]
    short: dict[str, float | int]
    floors: dict[str, Floor]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One figure judged."""

    bench: str
    figure: str
    value: float | None
    floor: str = ""
    stretch: float | None = None
    verdict: Verdict = ""
    provenance: str = ""


def read_floors(text: str) -> dict[str, Bench]:
    """floors.toml, checked: a misspelt key is an error."""
    return msgspec.convert(tomllib.loads(text), dict[str, Bench])


def judge(name: str, bench: Bench, figures: Mapping[str, float]) -> list[Line]:
    """Every figure and every floor of one benchmark: floors first, in the order of the file."""
    lines = []
    for figure, floor in bench.floors.items():
        value = figures.get(figure)
        verdict: Verdict = "not measured" if value is None else floor.verdict(value)
        lines.append(
            Line(
                bench=name,
                figure=figure,
                value=value,
                floor=floor.words,
                stretch=floor.stretch,
                verdict=verdict,
                provenance=floor.provenance,
            )
        )
    rest = [figure for figure in figures if figure not in bench.floors]
    return [*lines, *(Line(bench=name, figure=figure, value=figures[figure]) for figure in rest)]


def failures(lines: Sequence[Line], size: Size) -> int:
    """How many floors are missed or, in full, were not measured; in short that is told, and no miss.

    A benchmark without any figure has failed, also in short.
    """
    measured = {line.bench for line in lines if line.value is not None}
    return sum(
        line.verdict == "FAIL"
        or (line.verdict == "not measured" and (size == "full" or line.bench not in measured))
        for line in lines
    )


def measured(name: str, size: Size) -> dict[str, float]:
    """The figures of one benchmark, from a process of its own; none when it failed."""
    command = [sys.executable, "-m", "bench.run", "--measure", name, "--size", size]
    run = subprocess.run(
        command, cwd=HERE.parent, stdout=subprocess.PIPE, timeout=BENCH_SECONDS_MAX, check=False
    )
    if run.returncode != 0:
        print(f"bench {name} failed with exit code {run.returncode}", file=sys.stderr)
        return {}
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=dict[str, float])


def show(lines: Sequence[Line]) -> None:
    """The table on stdout."""
    table = Table("bench", "figure", "value", "floor", "stretch", "", "provenance")
    for line in lines:
        table.add_row(
            line.bench,
            line.figure,
            "–" if line.value is None else f"{line.value:,.3f}".rstrip("0").rstrip("."),
            line.floor,
            "" if line.stretch is None else f"{line.stretch:,g}",
            line.verdict,
            line.provenance,
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def save(lines: Sequence[Line], size: Size) -> Path:
    """Keep the figures with what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = RESULTS / f"{at}-{size}.json"
    report = {
        "at": at,
        "size": size,
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "lines": msgspec.to_builtins(lines),
    }
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def run(names: Sequence[str], size: Size) -> int:
    """Measure, judge, show, keep; 1 when a floor is missed."""
    benches = read_floors(FLOORS.read_text(encoding="utf-8"))
    unknown = sorted(set(names) - set(benches))
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; hint: {', '.join(benches)}", file=sys.stderr)
        return 2
    lines: list[Line] = []
    for name in names or benches:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        lines += judge(name, benches[name], measured(name, size))
    show(lines)
    print(f"kept in {save(lines, size).relative_to(HERE.parent)}")
    missed, unmeasured = failures(lines, size), sum(line.verdict == "not measured" for line in lines)
    if unmeasured and not missed:
        print(f"every floor that was measured holds; {unmeasured} were not measured")
    else:
        print(f"{missed} floors missed" if missed else "every floor holds")
    return 1 if missed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=("full", "short"), default="full", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.measure is not None:
        bench = read_floors(FLOORS.read_text(encoding="utf-8"))[chosen.measure]
        figures = import_module(f"bench.{chosen.measure}").measure(**getattr(bench, chosen.size))
        print(json.dumps(figures))
        return 0
    return run(chosen.only, "short" if chosen.short else "full")


if __name__ == "__main__":
    sys.exit(main())
