"""`steer up`: declare, show what changes, and wait until it is so."""

import os
import time
from collections.abc import Mapping

import msgspec
import typer

from steersman.app.background import ensure_server
from steersman.app.cli import load, table
from steersman.app.cli.changes import say_declared, say_last_words, say_warnings
from steersman.app.cli.files import collect
from steersman.app.cli.options import Files, Home, Json, Wait, patient, settings_of
from steersman.app.cli.patient import PatientClient
from steersman.app.cli.say import note, say, say_json
from steersman.app.cli.watch import WAIT_MS, Either, watch
from steersman.app.client import Client, NoServerError, find_server, path
from steersman.app.server_file import ServerFile
from steersman.app.settings import Settings
from steersman.app.wire import GatewayView, Row, ServiceRow, StatusView, Submission, UpView

FAILED = 1
GATEWAY_SECONDS_MAX = 5.0
"""How long to wait for the gateway to move; it looks for news many times a second."""
BAD_ENDS = frozenset({"failed", "stopped"})

app = typer.Typer(add_completion=False)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `up --json` prints: what was declared, and how it stands."""

    declared: UpView
    workloads: tuple[Row, ...]
    services: tuple[ServiceRow, ...] = ()
    gateway: GatewayView | None = None


@app.command()
def up(files: Files, *, wait: Wait = True, json: Json = False, home: Home = None) -> int:
    """Declare jobs and services, and keep them so.

    All of it is accepted or none. Starts the control plane in the background if none runs. Waits until every
    job is final, every service ready, or what is not held with a reason; the work goes on whether or not
    anyone waits. Exits 1 when a job or a rollout failed.
    """
    submission = collect(files)
    settings = settings_of(home)
    server = _server(submission, settings)
    with Client(settings.home, server) as client:
        declared = client.post(path("up"), submission, UpView)
        say_warnings(declared.warnings)
        if not json:
            say_declared(declared)
        names = [each.name for each in declared.workloads]
        waiting = patient(client, home)
        rows = watch(waiting, names, _settled, quiet=json) if wait and names else {}
        serves = declared.gateway is not None or any(isinstance(row, ServiceRow) for row in rows.values())
        gateway = _gateway(waiting) if wait and serves else None
    if gateway is not None and gateway.warning:
        say_warnings([gateway.warning])
    if json:
        jobs = tuple(row for row in rows.values() if isinstance(row, Row))
        services = tuple(row for row in rows.values() if isinstance(row, ServiceRow))
        say_json(Outcome(declared=declared, workloads=jobs, services=services, gateway=gateway))
    else:
        _say_ends(rows)
        if declared.gateway is not None and gateway is not None and gateway.listens_on:
            say(f"the gateway listens on {gateway.listens_on}")
    return FAILED if any(map(_failed, rows.values())) else 0


def _gateway(client: PatientClient) -> GatewayView | None:
    """The gateway once it has taken over what is declared, or as it is when that takes too long."""
    deadline = time.monotonic() + GATEWAY_SECONDS_MAX
    query: dict[str, str | int | None] = {}
    while True:
        found = client.get(path("status"), StatusView, query)
        if found.gateway is None or found.gateway.settled or time.monotonic() > deadline:
            return found.gateway
        query = {"after": found.position, "wait_ms": WAIT_MS}


def _server(submission: Submission, settings: Settings) -> ServerFile:
    """The home's control plane. A submission that would be refused does not start one."""
    try:
        return find_server(settings)
    except NoServerError:
        load("offline").plan(submission, settings)
        return ensure_server(settings, os.environ, note)


def _settled(rows: Mapping[str, Either]) -> bool:
    return all(row.settled for row in rows.values())


def _failed(row: Either) -> bool:
    """Whether a job failed, or a service does not come up as it was declared."""
    if isinstance(row, ServiceRow):
        return row.failed is not None or row.phase in {"failing", "stopped"}
    return row.phase in BAD_ENDS


def _say_ends(rows: Mapping[str, Either]) -> None:
    for name, row in sorted(rows.items()):
        if isinstance(row, ServiceRow):
            _say_service(row)
            continue
        reason = f": {row.reason}" if row.reason and row.reason != row.phase else ""
        if row.phase in BAD_ENDS:
            say(f"{name} {row.phase}{reason}")
            rank = "" if row.rank is None else f" --rank {row.rank}"
            logs = f"steer logs {name}{rank}"
            cure = f"{row.fix}; " if row.fix and logs not in row.fix else ""
            note(f"hint: {cure}steer explain {name}; {logs}")
        elif row.phase == "succeeded":
            say(f"{name} succeeded")
        else:
            say(f"{name} is pending ({table.phase(row)}){reason}")
            note(f"hint: steer explain {name}")


def _say_service(row: ServiceRow) -> None:
    name = row.name
    if _failed(row):
        say(f"{name} {table.service_line(row)}")
        say_last_words(row)
        note(f"hint: {row.fix or f'steer explain {name}; steer logs {row.replica or name}'}")
    elif (row.ready and row.url) or row.phase == "scaled-to-zero":
        say(f"{name} {table.service_line(row)}")
        if row.url:
            say(f"    {row.url}")
    else:
        say(f"{name} is pending: {table.service_line(row)}")
        note(f"hint: steer explain {name}")
