"""`steer status`: everything at a glance, once or live; or one job or service, whole."""

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from steersman.app.cli import load, table
from steersman.app.cli.changes import say_last_words, say_warnings
from steersman.app.cli.options import Home, Json, connect, patient
from steersman.app.cli.patient import PatientClient
from steersman.app.cli.say import note, say, say_json
from steersman.app.cli.shown import show_table
from steersman.app.client import Client, path
from steersman.app.wire import ClusterView, RevisionView, ServiceView, StatusView, WorkloadView
from steersman.model.errors import SteersmanError

WAIT_MS = 1_000

Query = Mapping[str, str | int | None]

app = typer.Typer(add_completion=False)

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it until Ctrl-C.")]


One = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="Only this job or service, whole.", show_default=False)
]
Everything = Annotated[
    bool, typer.Option("--all", help="Replicas and the gateway too, as the jobs they are.")
]


@app.command()
def status(
    name: One = None,
    *,
    watch: Watch = False,
    everything: Everything = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Show everything at a glance: of services replicas, requests and latency, of jobs runs and progress.

    With a NAME: that job alone, with its ranks and where its artifacts lie, or that service, with its
    revisions and replicas. Rates and percentiles are of the last 10 seconds, of one service of the last 60.
    """
    with connect(home) as client:
        if name is not None:
            _one(_look(client, name), as_json=json)
            return 0
        query = {"all": "true"} if everything else {}
        found = client.get(path("status"), StatusView, query)
        if json and not watch:
            say_json(found)
        elif watch and sys.stdout.isatty() and not json:
            _live(patient(client, home), found, query)
        elif watch:
            _repeat(patient(client, home), found, query, as_json=json)
        else:
            _once(found)
    return 0


def _look(client: Client, name: str) -> WorkloadView | ServiceView:
    try:
        return client.get(path("workloads", name), WorkloadView)
    except SteersmanError as error:
        if error.code != "is-service":
            raise
    return client.get(path("services", name), ServiceView)


def _one(found: WorkloadView | ServiceView, *, as_json: bool) -> None:
    if as_json:
        say_json(found)
    elif isinstance(found, ServiceView):
        _service(found)
    else:
        _job(found)


def _service(found: ServiceView) -> None:
    if found.gateway is not None and found.gateway.warning:
        say_warnings([found.gateway.warning])
    show_table(table.SERVICE_HEAD, table.service_rows([found.row]), "")
    say_last_words(found.row)
    if found.row.fix:
        note(f"hint: {found.row.fix}")
    for revision in found.revisions:
        say("\n".join(_revision_lines(revision)))
    if found.cpu_seconds_per_1000 is not None:
        say(f"  {found.cpu_seconds_per_1000:.3g} CPU-seconds per thousand predictions, the gateway included")
    if found.row.cold_start_ms is not None:
        say(f"  a cold start took {found.row.cold_start_ms / 1000:.2f} s")
    for replica in found.replicas:
        on = f" on {', '.join(replica.nodes)}" if replica.nodes else ""
        run = f", run {replica.run}" if replica.run else ""
        why = f": {replica.reason}" if replica.state in {"waiting", "backoff"} else ""
        say(f"  {replica.name} (revision {replica.revision}) {replica.state}{on}{run}{why}")


def _revision_lines(found: RevisionView) -> Iterator[str]:
    ended = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.requests.items()))
    if found.revision == 0:
        yield f"  before any replica: {found.queue} waiting" + (f"; ended: {ended}" if ended else "")
        return
    model = f", model {found.model_digest}" if found.model_digest else ""
    yield f"  revision {found.revision} {found.state}{model}: {ended or 'no request yet'}"
    if found.p50_ms is None:
        return
    number, ms = table.number, " ms"
    yield (
        f"    p50 {number(found.p50_ms)}, p95 {number(found.p95_ms)}, p99 {number(found.p99_ms, ms)}; "
        f"on average {number(found.waited_ms_mean, ms)} waiting, {number(found.model_ms_mean, ms)} model, "
        f"{number(found.rest_ms_mean, ms)} the rest"
    )
    yield (
        f"    batches of {number(found.batch_rows_mean)} rows, {found.ongoing} under way, "
        f"{found.retried} retried, {number(found.cpu_seconds_per_1000)} CPU-seconds per thousand"
    )


def _job(found: WorkloadView) -> None:
    show_table(table.STATUS_HEAD, table.status_rows([found.row]), "")
    run = found.run or found.last_run
    for rank in () if run is None else run.ranks:
        say(f"  rank {rank.rank} on {rank.node}: {rank.state}" + (f", {rank.limits}" if rank.limits else ""))
    for item in found.artifacts:
        say(f"  artifact {item.name}: {item.path}")


def _once(found: StatusView) -> None:
    if not found.healthy:
        note(f"warning: the control plane has a problem: {found.problem}")
    if found.gateway is not None and found.gateway.warning:
        say_warnings([found.gateway.warning])
    if found.services:
        show_table(table.SERVICE_HEAD, table.service_rows(found.services), "")
    if found.workloads or not found.services:
        nothing = "nothing is declared; begin with `steer up FILE`"
        show_table(table.STATUS_HEAD, table.status_rows(found.workloads), nothing)
    for cluster in found.clusters:
        say(cluster_line(cluster))
        if cluster.hint:
            note(f"hint: {cluster.hint}")


def cluster_line(cluster: ClusterView) -> str:
    """``cluster gpu (ray, 10.0.0.5:6379): 3 nodes``."""
    what = cluster.problem or f"{cluster.nodes} node{'' if cluster.nodes == 1 else 's'}"
    known = what if cluster.seen_ms is not None else "is being connected to"
    return f"cluster {cluster.name} ({cluster.infra}, {cluster.address}): {known}"


def _live(client: PatientClient, found: StatusView, query: Query) -> None:
    terminal = load("terminal")
    with terminal.live() as update:
        while True:
            problem = "" if found.healthy else f"the control plane has a problem: {found.problem}"
            problem = problem or (found.gateway.warning if found.gateway is not None else "")
            tables = [terminal.table(table.STATUS_HEAD, table.status_rows(found.workloads), problem)]
            if found.services:
                services = table.service_rows(found.services)
                tables.insert(0, terminal.table(table.SERVICE_HEAD, services))
            update(terminal.stacked(tables))
            found = _next(client, found, query)


def _repeat(client: PatientClient, found: StatusView, query: Query, *, as_json: bool) -> None:
    while True:
        if as_json:
            say_json(found)
        else:
            _once(found)
        position = found.position
        while found.position == position:
            found = _next(client, found, query)


def _next(client: PatientClient, found: StatusView, query: Query) -> StatusView:
    return client.get(path("status"), StatusView, {**query, "after": found.position, "wait_ms": WAIT_MS})
