"""`steer queue`: what waits, in the order in which it is considered, and for what."""

import typer

from steersman.app.cli import table
from steersman.app.cli.options import Home, Json, connect
from steersman.app.cli.say import say_json
from steersman.app.cli.shown import show_table
from steersman.app.client import path
from steersman.app.wire import StatusView

app = typer.Typer(add_completion=False)


@app.command()
def queue(*, json: Json = False, home: Home = None) -> int:
    """Show the declared queues, and what waits and for what: jobs, and replicas of services."""
    with connect(home) as client:
        found = client.get(path("status"), StatusView, {"all": "true"})
    if json:
        say_json({"waiting": table.queue_order(found.workloads), "queues": found.queues})
    else:
        if found.queues:
            show_table(table.QUEUES_HEAD, table.queues_rows(found.queues), "")
        show_table(table.QUEUE_HEAD, table.queue_rows(found.workloads), "nothing waits")
    return 0
