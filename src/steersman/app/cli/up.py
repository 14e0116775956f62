"""`steer up`: declare, show what changes, and wait until it is so."""

import os
from collections.abc import Mapping

import msgspec
import typer

from steersman.app.background import ensure_server
from steersman.app.cli import load, table
from steersman.app.cli.changes import say_declared, say_warnings
from steersman.app.cli.files import collect
from steersman.app.cli.options import Files, Home, Json, Wait, patient, settings_of
from steersman.app.cli.say import note, say, say_json
from steersman.app.cli.watch import watch
from steersman.app.client import Client, NoServerError, find_server, path
from steersman.app.server_file import ServerFile
from steersman.app.settings import Settings
from steersman.app.wire import Row, Submission, UpView

FAILED = 1
BAD_ENDS = frozenset({"failed", "stopped"})

app = typer.Typer(add_completion=False)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `up --json` prints: what was declared, and how it stands."""

    declared: UpView
    workloads: tuple[Row, ...]


@app.command()
def up(files: Files, *, wait: Wait = True, json: Json = False, home: Home = None) -> int:
    """Declare workloads and keep them so.

    All of it is accepted or none. Starts the control plane in the background if none runs. Waits until every
    workload is final or held with a reason; the work goes on whether or not anyone waits. Exits 1 when one of
    them failed.
    """
    submission = collect(files)
    settings = settings_of(home)
    server = _server(submission, settings)
    with Client(settings.home, server) as client:
        declared = client.post(path("up"), submission, UpView)
        say_warnings(declared.warnings)
        if not json:
            say_declared(declared.workloads, declared.fleet)
        names = [each.name for each in declared.workloads]
        rows = watch(patient(client, home), names, _settled, quiet=json) if wait and names else {}
    if json:
        say_json(Outcome(declared=declared, workloads=tuple(rows.values())))
    else:
        _say_ends(rows)
    return FAILED if any(row.phase in BAD_ENDS for row in rows.values()) else 0


def _server(submission: Submission, settings: Settings) -> ServerFile:
    """The home's control plane. A submission that would be refused does not start one."""
    try:
        return find_server(settings)
    except NoServerError:
        load("offline").plan(submission, settings)
        return ensure_server(settings, os.environ, note)


def _settled(rows: Mapping[str, Row]) -> bool:
    return all(row.settled for row in rows.values())


def _say_ends(rows: Mapping[str, Row]) -> None:
    for name, row in sorted(rows.items()):
        reason = f": {row.reason}" if row.reason and row.reason != row.phase else ""
        if row.phase in BAD_ENDS:
            say(f"{name} {row.phase}{reason}")
            rank = "" if row.rank is None else f" --rank {row.rank}"
            note(f"hint: steer explain {name}; steer logs {name}{rank}")
        elif row.phase == "succeeded":
            say(f"{name} succeeded")
        else:
            say(f"{name} is pending ({table.phase(row)}){reason}")
            note(f"hint: steer explain {name}")
