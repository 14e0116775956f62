"""What every problem's benchmark is made of: cases that run apart, and a report of what they came to.

Theory of operation. A problem lists its cases (a list and a seed, a trace and a cold start, …) of the traces
that are there; each runs in any process, for it shares nothing with the others, and the report takes the
results in the order of the cases, so that it does not tell how many processors there were. Nothing is kept
on disk between runs. A trace that is not there is named, and what it would have told is not measured.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
TABLE_COLUMNS = 150
OURS = "Steersman"
NO_TRACES = (
    "no traces: nothing was measured; "
    "hint: STEERSMAN_TRACES names the folder that holds open/p1_packing and so on (docs/guides/replay.md)"
)

C = TypeVar("C")
R = TypeVar("R")


class Report(NamedTuple):
    """Figures and SVG pictures by name; `rows`: what the tables show, for programs."""

    figures: Mapping[str, float]
    tables: Sequence[Table]
    rows: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, str]


class Cases(NamedTuple, Generic[C]):
    """What there is to run, and the files that are not there."""

    cases: Sequence[C]
    missing: Sequence[str] = ()


class Problem(NamedTuple, Generic[C, R]):
    """One benchmark. `folder`: its part of the traces. `cases` is asked for all of it or for a short part."""

    name: str
    folder: str
    cases: Callable[[Path, bool], Cases[C]]
    run: Callable[[C], R]
    report: Callable[[Sequence[R]], Report]


def traces(folder: str) -> Path | None:
    """The folder of one problem's traces, when it is there."""
    named = os.environ.get("STEERSMAN_TRACES")
    base = Path(named) if named else ROOT.parent / "shared" / "traces"
    return next((path for path in (base / "open" / folder, base / folder) if path.is_dir()), None)


def there(files: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Those that exist, and the names of those that do not."""
    return [one for one in files if one.is_file()], [one.name for one in files if not one.is_file()]


def console() -> Console:
    """Where the tables go: beside the figures on stdout."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else TABLE_COLUMNS)


def measured(problem: Problem[C, R], *, short: bool) -> dict[str, float]:
    """The figures of one problem, after its tables on stderr; none without traces."""
    folder = traces(problem.folder)
    if folder is None:
        sys.stderr.write(f"{problem.name}: {NO_TRACES}\n")
        return {}
    asked = problem.cases(folder, short)
    if not asked.cases:
        sys.stderr.write(f"{problem.name}: {NO_TRACES}; not there: {', '.join(asked.missing)}\n")
        return {}
    with ProcessPoolExecutor() as pool:
        report = problem.report(list(pool.map(problem.run, asked.cases)))
    for table in report.tables:
        console().print(table)
    return dict(report.figures)
