"""`steer policy`: the numbers that the deciders obey, and how to change them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from steersman.app.cli.changes import say_changes
from steersman.app.cli.files import read_text
from steersman.app.cli.options import Home, Json, connect
from steersman.app.cli.say import say, say_json
from steersman.app.cli.shown import show_table
from steersman.app.client import path
from steersman.app.policies import PolicyRequest, PolicyView, shown
from steersman.model.policy import Policy
from steersman.spec.policies import NOTES, parse_policy

HEAD = ("KEY", "VALUE", "DEFAULT", "MEANING")

app = typer.Typer(add_completion=False, help="Show and set the home's policy.", no_args_is_help=True)

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="YAML or JSON, as for `steer replay --journal --policy`.", show_default=False
    ),
]


@app.command("show")
def show(*, json: Json = False, home: Home = None) -> int:
    """Show every key, with its default beside a value that differs from it."""
    with connect(home) as client:
        found = client.get(path("policy"), PolicyView)
    if json:
        say_json(found.policy)
    else:
        show_table(HEAD, _rows(found.policy), "")
    return 0


@app.command("set")
def set_policy(file: File, *, json: Json = False, home: Home = None) -> int:
    """Obey the policy of a file from now on; what is not written there gets its default."""
    text = read_text(file)
    parse_policy(text, str(file))  # said here, with the file's name, also while no control plane runs
    with connect(home) as client:
        found = client.post(path("policy"), PolicyRequest(text=text, source=str(file)), PolicyView)
    if json:
        say_json(found)
    else:
        say("~ policy" if found.changes else "= policy: unchanged")
        say_changes(found.changes)
    return 0


def _rows(policy: Policy) -> Sequence[tuple[str, ...]]:
    rows, default = [], Policy()
    for name in Policy.__struct_fields__:
        value, usual = shown(getattr(policy, name)), shown(getattr(default, name))
        rows.append((name, value, "" if value == usual else usual, NOTES[name]))
    return rows
