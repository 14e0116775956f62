"""`steer status`: all workloads at a glance, once or live."""

import sys
from typing import Annotated

import typer

from steersman.app.cli import load, table
from steersman.app.cli.options import Home, Json, connect, patient
from steersman.app.cli.patient import PatientClient
from steersman.app.cli.say import note, say, say_json
from steersman.app.cli.shown import show_table
from steersman.app.client import path
from steersman.app.wire import StatusView, WorkloadView

WAIT_MS = 1_000

app = typer.Typer(add_completion=False)

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it until Ctrl-C.")]


One = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="Only this workload, whole.", show_default=False)
]


@app.command()
def status(name: One = None, *, watch: Watch = False, json: Json = False, home: Home = None) -> int:
    """Show all workloads at a glance: phase, run, progress, tries, and the reason in words.

    With a NAME: that workload alone, with its ranks and where its artifacts lie.
    """
    with connect(home) as client:
        if name is not None:
            _one(client.get(path("workloads", name), WorkloadView), as_json=json)
            return 0
        found = client.get(path("status"), StatusView)
        if json and not watch:
            say_json(found)
        elif watch and sys.stdout.isatty() and not json:
            _live(patient(client, home), found)
        elif watch:
            _repeat(patient(client, home), found, as_json=json)
        else:
            _once(found)
    return 0


def _one(found: WorkloadView, *, as_json: bool) -> None:
    if as_json:
        say_json(found)
        return
    show_table(table.STATUS_HEAD, table.status_rows([found.row]), "")
    run = found.run or found.last_run
    for rank in () if run is None else run.ranks:
        say(f"  rank {rank.rank} on {rank.node}: {rank.state}" + (f", {rank.limits}" if rank.limits else ""))
    for item in found.artifacts:
        say(f"  artifact {item.name}: {item.path}")


def _once(found: StatusView) -> None:
    if not found.healthy:
        note(f"warning: the control plane has a problem: {found.problem}")
    show_table(
        table.STATUS_HEAD,
        table.status_rows(found.workloads),
        "nothing is declared; begin with `steer up FILE`",
    )


def _live(client: PatientClient, found: StatusView) -> None:
    terminal = load("terminal")
    with terminal.live() as update:
        while True:
            problem = "" if found.healthy else f"the control plane has a problem: {found.problem}"
            update(terminal.table(table.STATUS_HEAD, table.status_rows(found.workloads), problem))
            found = _next(client, found)


def _repeat(client: PatientClient, found: StatusView, *, as_json: bool) -> None:
    while True:
        if as_json:
            say_json(found)
        else:
            _once(found)
        position = found.position
        while found.position == position:
            found = _next(client, found)


def _next(client: PatientClient, found: StatusView) -> StatusView:
    return client.get(path("status"), StatusView, {"after": found.position, "wait_ms": WAIT_MS})
