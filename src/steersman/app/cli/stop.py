"""`steer stop`: end a job's run or a service's replicas, keep the declaration."""

from collections.abc import Mapping

import typer

from steersman.app.cli.options import Home, Json, Name, Wait, connect, patient
from steersman.app.cli.say import say, say_json
from steersman.app.cli.watch import Either, watch
from steersman.app.client import path
from steersman.app.wire import NamesView

FINAL = frozenset({"succeeded", "failed", "stopped"})

app = typer.Typer(add_completion=False)


@app.command()
def stop(name: Name, *, wait: Wait = True, json: Json = False, home: Home = None) -> int:
    """End a job's run or a service's replicas, and keep the declaration.

    A run gets its notice and its grace, so that it can save a checkpoint; replicas answer what they have
    taken. `steer up` begins it anew.
    """
    with connect(home) as client:
        answer = client.post(path("workloads", name, "stop"), None, NamesView)
        rows = watch(patient(client, home), answer.names, _final, quiet=json) if wait else {}
    if json:
        say_json(tuple(rows.values()) if wait else answer)
    else:
        row = rows.get(name)
        say(f"{name}: {'told to stop' if not wait else 'gone' if row is None else row.phase}")
    return 0


def _final(rows: Mapping[str, Either]) -> bool:
    return all(row.phase in FINAL for row in rows.values())
