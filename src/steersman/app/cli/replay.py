"""`steer replay`: the deciders that decide live, over recorded history.

Each problem is a module of `sim.replay` with a record `Asked`, whose fields are the options that it takes,
and a function `replay`. It is loaded when it is asked for. An option that a problem does not take is
refused, and so is one that it cannot do without.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from steersman.app.cli.options import Home, Json, settings_of, takes
from steersman.app.cli.replay_policies import home_of, replay_policies
from steersman.app.cli.say import columns, note, say, say_json
from steersman.app.settings import check_home
from steersman.journal.sqlite import SqliteJournal
from steersman.model.decisions import Decision
from steersman.model.errors import ConflictError
from steersman.sim.replay.journal import redecide
from steersman.sim.replay.result import Progress, Replay, silent

app = typer.Typer(add_completion=False)


class Problem(NamedTuple):
    """A problem's module in `sim.replay`, and the option that files are for which come without one."""

    module: str
    files: str


PROBLEMS: Mapping[str, Problem] = {
    "packing": Problem("packing", "pods"),
    "jobs": Problem("jobs", "jobs"),
    "autoscale": Problem("autoscale", "requests"),
    "spot-job": Problem("spot_job", "zone"),
}
_OWN = ("problem", "files", "json", "journal", "policy", "html", "home")
DIFFERS = 1
WORDS_MAX = 5


def _file(words: str) -> Any:
    return typer.Option(metavar="FILE", help=words, show_default=False)


def _value(words: str, name: str | None = None) -> Any:
    return typer.Option(*([name] if name else []), help=words, show_default=False)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of `replay`. None: not given."""

    problem: Annotated[
        str, typer.Argument(metavar="PROBLEM", help=" | ".join(PROBLEMS), show_default=False)
    ] = ""
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="The traces.", show_default=False)
    ] = None
    journal: Annotated[
        Path | None,
        typer.Option(
            "--journal",
            metavar="FILE",
            help="A home, or its journal.db: decide it again.",
            show_default=False,
        ),
    ] = None
    policy: Annotated[
        list[Path] | None, _file("with a journal: run its history under this policy too; may be repeated")
    ] = None
    html: Annotated[Path | None, _file("with --policy: draw the comparison into this file")] = None
    nodes: Annotated[Path | None, _file("packing: the nodes")] = None
    pods: Annotated[Path | None, _file("packing: the pods")] = None
    jobs: Annotated[Path | None, _file("jobs: the jobs")] = None
    requests: Annotated[Path | None, _file("autoscale: the requests, or their rates")] = None
    zone: Annotated[list[Path] | None, _file("spot-job: a zone's availability; may be repeated")] = None
    seed: Annotated[int | None, _value("of all chance in the replay")] = None
    load: Annotated[
        float | None, _value("packing: how much arrives; jobs: how much there is to do; 1 is the capacity")
    ] = None
    vc: Annotated[str | None, _value("jobs: only this virtual cluster")] = None
    capacity: Annotated[float | None, _value("autoscale: work a second that a replica does")] = None
    slo_s: Annotated[float | None, _value("autoscale: the longest wait that keeps the objective")] = None
    cold_start_s: Annotated[float | None, _value("autoscale: from launch to ready")] = None
    min_replicas: Annotated[int | None, _value("autoscale: the fewest replicas")] = None
    budget: Annotated[float | None, _value("autoscale: share of requests that may wait longer")] = None
    from_: Annotated[str | None, _value("autoscale: from this time of the trace on", "--from")] = None
    to: Annotated[str | None, _value("autoscale: up to this time of the trace")] = None
    work_h: Annotated[float | None, _value("spot-job: hours of work")] = None
    deadline_h: Annotated[float | None, _value("spot-job: hours until it must be done")] = None
    overhead_h: Annotated[float | None, _value("spot-job: hours that a launch takes")] = None
    starts: Annotated[int | None, _value("spot-job: how many starts, evenly spaced")] = None
    price_spot: Annotated[float | None, _value("spot-job: USD an hour")] = None
    price_on_demand: Annotated[float | None, _value("spot-job: USD an hour")] = None
    json: Json = False
    home: Home = None


@app.command()
@takes(Asked)
def replay(asked: Asked) -> int:
    """Put a recorded trace before the deciders that decide live, and print what came of it.

    Without a problem, a home's own journal: whether they would decide as they did; exits 1 when not. With
    --policy, what other policies would have made of its history.
    """
    if asked.policy or asked.html is not None:
        return _side_by_side(asked)
    if asked.journal is not None or not asked.problem:
        return _again(asked, asked.journal or settings_of(asked.home).home)
    if asked.problem not in PROBLEMS:
        hint = f"the problems are {', '.join(PROBLEMS)}"
        raise ConflictError(f"there is no problem {asked.problem!r}", hint=hint)
    problem = PROBLEMS[asked.problem]
    module = import_module(f"steersman.sim.replay.{problem.module}")
    wanted = options(asked, module.Asked, problem.files)
    found: Replay = module.replay(wanted, _progress(asked))
    if asked.json:
        say_json(found)
    else:
        _say(found)
    return 0


def _side_by_side(asked: Asked) -> int:
    if asked.problem or asked.files:
        raise ConflictError(
            "--policy and --html are for a journal, not for a problem",
            hint="steer replay --journal FILE --policy FILE",
        )
    if not asked.policy:
        raise ConflictError("--html draws policies, and none is given", hint="give --policy FILE")
    journal = asked.journal or settings_of(asked.home).home
    return replay_policies(journal, asked.policy, asked.html, _progress(asked), as_json=asked.json)


def _again(asked: Asked, journal: Path) -> int:
    if asked.problem:
        raise ConflictError("a problem or a journal, not both", hint="steer replay --journal FOLDER")
    home = home_of(journal)
    check_home(home)
    with contextlib.closing(SqliteJournal.open_reader(home)) as reader:
        found = redecide(reader.read(), reader.head().position, _progress(asked))
    if asked.json:
        say_json(found)
        return DIFFERS if found.differing else 0
    say(f"{found.events:,} events, {found.cycles:,} cycles, {found.decisions:,} decisions")
    say(f"{found.differing:,} cycles would now decide otherwise")
    for one in found.differences:
        at = f"{one.observed_at:>8}"
        note(f"{at}  recorded {_words(one.recorded)}; now {_words(one.decided)}")
    if found.unrecorded:
        note(f"not compared: {found.unrecorded:,} cycles whose intent was never recorded")
    if found.unknown:
        note(f"not compared: {found.unknown:,} of an older build, which did not record what a cycle saw")
    return DIFFERS if found.differing else 0


def _words(decisions: Sequence[Decision]) -> str:
    made = [f"{_kind(item)} {item.workload}" for item in decisions]
    return ", ".join(made[:WORDS_MAX]) + ("…" if len(made) > WORDS_MAX else "") or "nothing"


def _kind(decision: Decision) -> str:
    """The stable name of a decision's type."""
    return str(type(decision).__struct_config__.tag)


def _progress(asked: Asked) -> Progress:
    return silent if asked.json or not sys.stderr.isatty() else _tell


def options(asked: Asked, record: Any, files: str) -> Any:
    """What was given, as the record of a problem. Raises ConflictError."""
    given = {
        field.name: getattr(asked, field.name)
        for field in fields(asked)
        if field.name not in _OWN and getattr(asked, field.name) not in (None, [])
    }
    if asked.files:
        if files in given:
            raise ConflictError("files with and without an option", hint=f"put {_flag(files)} before each")
        given[files] = asked.files
    taken = {field.name: field for field in msgspec.structs.fields(record)}
    hint = f"it takes {', '.join(_flag(name) for name in taken)}"
    strange = [name for name in given if name not in taken]
    if strange:
        raise ConflictError(f"{asked.problem} takes no {_flag(strange[0])}", hint=hint)
    missing = [name for name, field in taken.items() if field.required and name not in given]
    if missing:
        raise ConflictError(f"{asked.problem} needs {_flag(missing[0])}", hint=hint)
    return record(**{name: _one_or_all(asked, value, taken[name].type) for name, value in given.items()})


def _one_or_all(asked: Asked, value: Any, kind: Any) -> Any:
    if not isinstance(value, list):
        return value
    if kind is not Path:
        return tuple(value)
    if len(value) > 1:
        raise ConflictError(f"{asked.problem} replays one file at a time", hint="give one")
    return value[0]


def _flag(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def _tell(share: float, words: str) -> None:
    note(f"{share:4.0%} {words}")


def _say(found: Replay) -> None:
    for policy, metrics in found.policies.items():
        plain = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
        say(columns(("POLICY", *plain), [(policy, *(_number(value) for value in plain.values()))]))
        for name, table in metrics.items():
            if isinstance(table, Mapping):
                _say_table(name, table)
    for reason, count in found.dropped.items():
        if count:
            note(f"counted: {count:,} × {reason}")


def _say_table(name: str, table: Mapping[str, Mapping[str, Any]]) -> None:
    heads = tuple(dict.fromkeys(head for row in table.values() for head in row))
    say(
        columns(
            (name.upper(), *heads),
            [(part, *(_number(row.get(head)) for head in heads)) for part, row in table.items()],
        )
    )


def _number(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
