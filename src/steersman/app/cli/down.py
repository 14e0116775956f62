"""`steer down`: remove jobs and services, and wait until they are gone."""

from typing import Annotated

import typer

from steersman.app.cli import load
from steersman.app.cli.options import Home, Json, Wait, connect, patient, settings_of
from steersman.app.cli.say import note, say, say_json
from steersman.app.cli.watch import watch
from steersman.app.client import NoServerError, path
from steersman.app.wire import DownRequest, NamesView

app = typer.Typer(add_completion=False)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME…]", help="Jobs and services.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="Everything declared in the home.")]


@app.command()
def down(
    names: Names = None,
    *,
    everything: All = False,
    wait: Wait = True,
    json: Json = False,
    home: Home = None,
) -> int:
    """Remove jobs and services: end their runs, forget their declarations, and wait until they are gone.

    A service's replicas answer what they have taken; the gateway ends with the last service. Logs
    and artifacts stay. All of the names are known, or nothing happens.
    """
    request = DownRequest(names=tuple(names or ()), all=everything)
    try:
        client = connect(home)
    except NoServerError:
        if not everything or names or load("offline").declared(settings_of(home)):
            raise
        note("no control plane runs, and none is needed")
        _say(NamesView(names=()), wait=wait, as_json=json)
        return 0
    with client:
        answer = client.post(path("down"), request, NamesView)
        if wait and answer.names:
            watch(patient(client, home), answer.names, lambda rows: not rows, quiet=json)
    _say(answer, wait=wait, as_json=json)
    return 0


def _say(answer: NamesView, *, wait: bool, as_json: bool) -> None:
    if as_json:
        say_json(answer)
    elif not answer.names:
        say("nothing is declared")
    else:
        say(f"{', '.join(answer.names)}: {'gone' if wait else 'told to end'}")
