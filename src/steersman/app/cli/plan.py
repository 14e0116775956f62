"""`steer plan`: what `up` would do, why, and nothing done."""

import typer

from steersman.app.cli import load
from steersman.app.cli.changes import say_declared, say_warnings
from steersman.app.cli.files import collect
from steersman.app.cli.options import Files, Home, Json, settings_of
from steersman.app.cli.say import note, say, say_json
from steersman.app.client import Client, NoServerError, find_server, path
from steersman.app.settings import Settings
from steersman.app.wire import PlanView, Submission

CHANGES = 1

app = typer.Typer(add_completion=False)


@app.command()
def plan(files: Files, *, json: Json = False, home: Home = None) -> int:
    """Show what `up` would declare and what would then be decided; changes nothing.

    Exits 0 when nothing would change, 1 when something would, 255 for an error.
    """
    found = _plan(collect(files), settings_of(home))
    say_warnings(found.warnings)
    if json:
        say_json(found)
    else:
        _say(found)
    return CHANGES if found.changed else 0


def _plan(submission: Submission, settings: Settings) -> PlanView:
    try:
        server = find_server(settings)
    except NoServerError:
        view: PlanView = load("offline").plan(submission, settings)
        return view
    with Client(settings.home, server) as client:
        return client.post(path("plan"), submission, PlanView)


def _say(found: PlanView) -> None:
    say_declared(found)
    if found.decisions:
        say("then decided:")
    for decision in found.decisions:
        say(f"    {decision.workload}: {decision.words}")
        if decision.fix:
            note(f"hint: {decision.fix}")
    if not found.changed:
        say("no change")
