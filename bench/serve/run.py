"""Every server with every model, one after another, and the comparison.

    python -m bench.serve.run                        all of it, 20 minutes at most on two cores
    python -m bench.serve.run --short                the tabular model, two servers, no changes: two minutes
    python -m bench.serve.run --only bentoml --only steersman --model minilm
    python -m bench.serve.run --without steersman    the peers alone
    python -m bench.serve.run --unbatched            peers also without batching, as rows of their own
    python -m bench.serve.run --json                 one JSON document on stdout instead of tables

Theory: one server stands at a time. On two cores the server's tree may use both and the generator, pinned to
the last one, shares it: the same for everybody, and shown (gen. cores). Figures that do not depend on that
are per CPU-second of the tree. A server that cannot be installed, does not start or answers wrongly is left
out, said on stderr, and ends the run with 1. What is measured is told in `measure` and `changes`.

Where the time goes, in full: installing 100 s the first time, then none; 21 servers started and measured at
about 30 s each, 11 min; changes of three servers, two kinds of CHANGES_SECONDS each at most and the rate to
look for, 6 min.
"""

import argparse
import itertools
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.serve import changes, environments, kinds, load, models, servers, table
from bench.serve.changes import Losses
from bench.serve.measure import SHORT, Figures, Lengths
from bench.serve.measure import measure as measure_server
from bench.serve.servers import Kind
from bench.serve.steersman_server import STEERSMAN

KINDS: tuple[Kind, ...] = (*kinds.KINDS, STEERSMAN)
SHORT_KINDS = ("mlserver", "steersman")
CHANGES = 20
CHANGES_SECONDS = 40.0
"""Of each kind of change and server."""
CHANGED_MODEL = "tabular"
RESULTS = Path(__file__).resolve().parent.parent / "results"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    kinds: tuple[Kind, ...] = KINDS
    models: tuple[str, ...] = tuple(models.BUILDERS)
    lengths: Lengths = Lengths()
    changes: int = CHANGES
    unbatched: bool = False


class Report(msgspec.Struct, kw_only=True):
    """What was measured, and who was left out."""

    figures: list[Figures] = []
    losses: list[Losses] = []
    left_out: list[str] = []
    seconds: dict[str, float] = {}


def note(words: str) -> None:
    """Progress, on stderr."""
    print(words, file=sys.stderr, flush=True)


def _install(plan: Plan, report: Report) -> tuple[Kind, ...]:
    """Those whose environments stand."""
    missing: set[str] = set()
    for name in dict.fromkeys(kind.environment for kind in plan.kinds if kind.environment):
        try:
            took = environments.install(name)
        except environments.NotInstalledError as error:
            report.left_out.append(str(error))
            missing.add(name)
        else:
            note(f"installed {name} in {took:.0f} s" if took else f"{name} is installed")
    return tuple(kind for kind in plan.kinds if kind.environment not in missing)


def _built(plan: Plan, folder: Path, report: Report) -> Iterator[models.Model]:
    for name in plan.models:
        try:
            yield models.BUILDERS[name](folder)
        except models.NotBuiltError as error:
            report.left_out.append(str(error))


def _variants(plan: Plan, kind: Kind) -> Iterator[tuple[Kind, int]]:
    yield kind, servers.BATCH
    if plan.unbatched and kind.environment is not None:
        yield msgspec.structs.replace(kind, name=f"{kind.name} ×1"), 1


def _one(kind: Kind, model: models.Model, batch: int, plan: Plan, report: Report) -> None:
    began = time.monotonic()
    with servers.running(kind, model, batch) as server:
        peers = table.best(report.figures, model.name, lambda one: one.max_rate)
        peer_rate = peers / 2 if kind is STEERSMAN else 0.0
        figures = measure_server(server, plan.lengths, time.monotonic() - began, peer_rate)
        report.figures.append(figures)
        note(
            f"{model.name:8} {kind.name:15} {figures.per_cpu_second:>9,.0f} req/CPU-s, "
            f"max {figures.max_rate:,.0f}/s, p99 at half {figures.half_p99_ms:.1f} ms "
            f"({time.monotonic() - began:.0f} s)"
        )
        if plan.changes and kind.change is not None and model.name == CHANGED_MODEL and batch > 1:
            report.losses += changes.measure(server, figures.max_rate / 2, plan.changes, CHANGES_SECONDS)
            note(f"{model.name:8} {kind.name:15} changes done ({time.monotonic() - began:.0f} s)")


def compare(plan: Plan) -> Report:
    """All of the plan."""
    report, began = Report(), time.monotonic()
    load.build()
    installed = _install(plan, report)
    report.seconds["install"] = time.monotonic() - began
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as name:
        for model in _built(plan, Path(name), report):
            for kind, batch in itertools.chain.from_iterable(_variants(plan, each) for each in installed):
                try:
                    _one(kind, model, batch, plan, report)
                except servers.ServerFailedError as error:
                    note(f"{model.name:8} {error}")
                    report.left_out.append(f"{model.name}: {str(error).splitlines()[0]}")
    report.seconds["all"] = time.monotonic() - began
    return report


def save(report: Report) -> Path:
    """Keep the figures with what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = RESULTS / f"{at}-serve.json"
    cores = {"servers": servers.SERVER_CORES, "generator": sorted(load.GENERATOR_CORES)}
    machine = {"system": platform.platform(), "python": platform.python_version(), "cores": cores}
    document = {"at": at, "machine": machine, "pins": environments.PINS, **msgspec.to_builtins(report)}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def measure(short: bool = False) -> dict[str, float]:
    """Steersman's ratios by name, for bench.run and its floors."""
    report = compare(_short() if short else Plan())
    table.show(report.figures, report.losses)
    return table.floors(report.figures, report.losses)


def _short() -> Plan:
    kinds = tuple(kind for kind in KINDS if kind.name in SHORT_KINDS)
    return Plan(kinds=kinds, models=("tabular",), lengths=SHORT, changes=0)


def plan_of(chosen: argparse.Namespace) -> Plan:
    """The plan that the command line asks for."""
    plan = _short() if chosen.short else Plan()
    only = chosen.only or [kind.name for kind in plan.kinds]
    kinds = tuple(kind for kind in KINDS if kind.name in only and kind.name not in chosen.without)
    return msgspec.structs.replace(
        plan,
        kinds=kinds,
        models=tuple(chosen.model) or plan.models,
        changes=plan.changes if chosen.changes is None else chosen.changes,
        unbatched=chosen.unbatched,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    names = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", action="append", default=[], choices=names, metavar="SERVER")
    parser.add_argument("--without", action="append", default=[], choices=names, metavar="SERVER")
    parser.add_argument("--model", action="append", default=[], choices=tuple(models.BUILDERS))
    parser.add_argument("--changes", type=int, metavar="N", help=f"of each kind; {CHANGES}")
    parser.add_argument("--unbatched", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers and folders are ended
    report = compare(plan_of(chosen))
    if chosen.json:
        floors = table.floors(report.figures, report.losses)
        print(json.dumps({**msgspec.to_builtins(report), "floors": floors}))
    else:
        table.show(report.figures, report.losses)
        print(
            f"kept in {save(report).relative_to(RESULTS.parent.parent)}; took {report.seconds['all']:.0f} s"
        )
    for words in report.left_out:
        note(f"left out: {words}")
    return 1 if report.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
