"""`steer down`: remove workloads and wait until they are gone."""

from typing import Annotated

import typer

from steersman.app.cli.options import Home, Json, Wait, connect
from steersman.app.cli.say import say, say_json
from steersman.app.cli.watch import watch
from steersman.app.client import path
from steersman.app.wire import DownRequest, NamesView

app = typer.Typer(add_completion=False)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME…]", help="The workloads.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All workloads of the home.")]


@app.command()
def down(
    names: Names = None,
    *,
    everything: All = False,
    wait: Wait = True,
    json: Json = False,
    home: Home = None,
) -> int:
    """Remove workloads: end their runs, forget their declarations, and wait until they are gone.

    Logs and artifacts stay. All of the names are known, or nothing happens.
    """
    with connect(home) as client:
        request = DownRequest(names=tuple(names or ()), all=everything)
        answer = client.post(path("down"), request, NamesView)
        if wait and answer.names:
            watch(client, answer.names, lambda rows: not rows, quiet=json)
    if json:
        say_json(answer)
    elif not answer.names:
        say("nothing is declared")
    else:
        say(f"{', '.join(answer.names)}: {'gone' if wait else 'told to end'}")
    return 0
