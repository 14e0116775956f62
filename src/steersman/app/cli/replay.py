"""`steer replay`: the live deciders over recorded history.

Each problem is a module of `sim.replay` with one function `replay`, loaded when it is asked for. The options that
it takes are the parameters of that function; one that it does not take is refused, and so is one that is missing.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from steersman.app.cli.options import Json, takes
from steersman.app.cli.say import columns, note, say, say_json
from steersman.model.errors import ConflictError
from steersman.sim.replay.result import Replay, silent

app = typer.Typer(add_completion=False)


class Problem(NamedTuple):
    """A problem's module in `sim.replay`, and the option that files without one are given to."""

    module: str
    files: str


PROBLEMS: Mapping[str, Problem] = {}

File = Annotated[Path | None, typer.Option(metavar="FILE", show_default=False)]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of `replay`. None: not given."""

    problem: Annotated[str, typer.Argument(metavar="PROBLEM", help=", ".join(PROBLEMS))]
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="The traces.", show_default=False)
    ] = None
    json: Json = False


@app.command()
@takes(Asked)
def replay(asked: Asked) -> int:
    """Put a recorded trace before the deciders that decide live, and print what came of it."""
    problem = PROBLEMS.get(asked.problem)
    if problem is None:
        raise ConflictError(
            f"there is no problem {asked.problem!r}", hint=f"the problems are {', '.join(PROBLEMS)}"
        )
    work: Callable[..., Replay] = import_module(f"steersman.sim.replay.{problem.module}").replay
    quiet = asked.json or not sys.stderr.isatty()
    found = work(**_options(asked, problem, work), progress=silent if quiet else _tell)
    if asked.json:
        say_json(found)
    else:
        _say(found)
    return 0


def _options(asked: Asked, problem: Problem, work: Callable[..., Replay]) -> dict[str, Any]:
    """What was given, as arguments of the problem's function. Raises ConflictError."""
    taken = inspect.signature(work).parameters
    beside = ("problem", "files", "json")
    given = {
        field.name: getattr(asked, field.name) for field in fields(asked) if field.name not in beside
    }
    given = {name: value for name, value in given.items() if value not in (None, [])}
    if asked.files:
        many = "list" in str(taken[problem.files].annotation) or "tuple" in str(taken[problem.files].annotation)
        if problem.files in given or (len(asked.files) > 1 and not many):
            raise ConflictError("too many files", hint=f"give one, or say which is which: {_flag(problem.files)}")
        given[problem.files] = asked.files if many else asked.files[0]
    for name in given:
        if name not in taken:
            raise ConflictError(
                f"{_flag(name)} is not for {asked.problem}",
                hint=f"{asked.problem} takes {', '.join(_flag(each) for each in taken if each != 'progress')}",
            )
    for name, parameter in taken.items():
        if parameter.default is inspect.Parameter.empty and name not in given and name != "progress":
            raise ConflictError(f"{asked.problem} needs {_flag(name)}", hint="steer replay --help")
    return given


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
            note(f"not replayed: {count:,} {reason}")


def _say_table(name: str, table: Mapping[str, Mapping[str, Any]]) -> None:
    heads = list(dict.fromkeys(head for row in table.values() for head in row))
    rows = [(part, *(_number(row.get(head)) for head in heads)) for part, row in table.items()]
    say(columns((name.upper(), *heads), rows))


def _number(value: object) -> str:
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
