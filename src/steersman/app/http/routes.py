"""The routes: names and types of the control API, and nothing else. `Control` does the work."""

from typing import Annotated

from litestar import MediaType, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import Body, PathParameter, QueryParameter

from steersman.app.audit import Filter
from steersman.app.control import Control
from steersman.app.metrics import CONTENT_TYPE, Exposition
from steersman.app.policies import PolicyRequest, PolicyView
from steersman.app.wire import (
    API_PREFIX,
    EVENTS_MAX,
    WAIT_MS_MAX,
    DoctorView,
    DownRequest,
    EventsView,
    KeyRequest,
    KeysView,
    LiveView,
    LogView,
    NamesView,
    NewKeyView,
    PlanView,
    ServiceView,
    StatusView,
    Submission,
    UpView,
    WorkloadView,
)
from steersman.explain.workload import Explanation

NAME_CHARS_MAX = 128
EVENTS_DEFAULT = 100

Name = Annotated[str, PathParameter(max_length=NAME_CHARS_MAX)]
Position = Annotated[int, QueryParameter(ge=0, le=2**62)]


@get("/livez", summary="Whether the server lives; the only open route.", sync_to_thread=False)
def livez() -> LiveView:
    """Says nothing else."""
    return LiveView()


@get("/metrics", media_type=MediaType.TEXT, summary="Prometheus text.", sync_to_thread=False)
def metrics(exposition: NamedDependency[Exposition]) -> Response[bytes]:
    """Figures of this moment."""
    return Response(exposition.text(), media_type=CONTENT_TYPE)


@post("/up", status_code=200, summary="Declare jobs and services, all or none.")
async def up(data: Annotated[Submission, Body()], control: NamedDependency[Control]) -> UpView:
    """Returns when the declaration is durable."""
    return await control.up(data)


@post("/plan", status_code=200, summary="What would be decided; changes nothing.")
async def plan(data: Annotated[Submission, Body()], control: NamedDependency[Control]) -> PlanView:
    """The live path, without its effects."""
    return await control.plan(data)


@post("/workloads/{name:str}/stop", status_code=200, summary="End the run, keep the declaration.")
async def stop(name: Name, control: NamedDependency[Control]) -> NamesView:
    """Returns when the request is durable."""
    return await control.stop(name)


@post("/down", status_code=200, summary="Remove jobs and services.")
async def down(data: Annotated[DownRequest, Body()], control: NamedDependency[Control]) -> NamesView:
    """Returns when the request is durable; the runs end in their own time."""
    return await control.down(data)


@post("/nodes/{name:str}/lost", status_code=200, summary="A node or a cluster will not come back.")
async def lost(name: Name, control: NamedDependency[Control]) -> NamesView:
    """Returns when it is durable; what ran there begins elsewhere."""
    return await control.lost(name)


@get("/status", summary="All jobs, services and nodes.")
async def status(
    control: NamedDependency[Control],
    after: Annotated[int | None, QueryParameter(ge=0, le=2**62)] = None,
    wait_ms: Annotated[int, QueryParameter(ge=0, le=WAIT_MS_MAX)] = 0,
    everything: Annotated[bool, QueryParameter(name="all")] = False,
) -> StatusView:
    """With `after`, waits for news up to `wait_ms`; with `all` also replicas and the gateway as jobs."""
    return await control.status(after, wait_ms, owned=everything)


@get("/workloads/{name:str}", summary="Everything about one job.", sync_to_thread=False)
def workload(name: Name, control: NamedDependency[Control]) -> WorkloadView:
    """Its declaration, runs and artifacts."""
    return control.workload(name)


@get("/services/{name:str}", summary="Everything about one service.")
async def service(name: Name, control: NamedDependency[Control]) -> ServiceView:
    """Its declaration, revisions with their figures, and replicas."""
    return await control.service(name)


@get("/keys", summary="The API keys that callers of services have.", sync_to_thread=False)
def list_keys(control: NamedDependency[Control]) -> KeysView:
    """What is known of each; the keys themselves are not."""
    return control.keys()


@post("/keys", status_code=200, summary="Make an API key.")
async def create_key(data: Annotated[KeyRequest, Body()], control: NamedDependency[Control]) -> NewKeyView:
    """The answer holds the key, this once."""
    return await control.create_key(data)


@post("/keys/{name:str}/revoke", status_code=200, summary="End an API key.")
async def revoke_key(name: Name, control: NamedDependency[Control]) -> NamesView:
    """Returns when it is durable; the gateway follows within a fraction of a second."""
    return await control.revoke_key(name)


@get("/policy", summary="The numbers that the deciders obey.", sync_to_thread=False)
def policy(control: NamedDependency[Control]) -> PolicyView:
    """All of them, with those that were never set."""
    return control.policy()


@post("/policy", status_code=200, summary="Obey another policy.")
async def set_policy(data: Annotated[PolicyRequest, Body()], control: NamedDependency[Control]) -> PolicyView:
    """Returns when it is durable. What is not written has its default."""
    return await control.set_policy(data)


@get("/explain/{name:str}", summary="Why it stands where it does, and what happened.")
async def explain(name: Name, control: NamedDependency[Control]) -> Explanation:
    """Sentences, refusals, what is in the way, and the moments of its life."""
    return await control.explain(name)


@get("/events", summary="The audit: what the journal holds.")
async def events(
    control: NamedDependency[Control],
    after: Position = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=EVENTS_MAX)] = EVENTS_DEFAULT,
    kind: Annotated[str, QueryParameter(name="type", max_length=NAME_CHARS_MAX)] = "",
    subject: Annotated[str, QueryParameter(max_length=NAME_CHARS_MAX)] = "",
) -> EventsView:
    """In order; `next_after` tells where to go on."""
    wanted = Filter(types=(kind,) if kind else (), subject=subject)
    return await control.events(wanted, after, limit)


@get("/logs/{name:str}", summary="A piece of a run's output.")
async def logs(
    name: Name,
    control: NamedDependency[Control],
    rank: Annotated[int, QueryParameter(ge=0, le=100_000)] = 0,
    run: Annotated[str | None, QueryParameter(max_length=NAME_CHARS_MAX)] = None,
    offset: Annotated[str, QueryParameter(max_length=64)] = "",
) -> LogView:
    """The last run when none is named; poll with `next_offset` to follow."""
    return await control.log(name, rank, run, offset)


@get("/doctor", summary="What could stand in the way.")
async def doctor(control: NamedDependency[Control]) -> DoctorView:
    """The same checks as `steer doctor`."""
    return await control.doctor()


def router() -> Router:
    """The one router."""
    api = Router(
        path=API_PREFIX,
        route_handlers=[
            up,
            plan,
            stop,
            lost,
            down,
            status,
            workload,
            service,
            explain,
            events,
            logs,
            doctor,
            list_keys,
            create_key,
            revoke_key,
            policy,
            set_policy,
        ],
    )
    return Router(path="/", route_handlers=[livez, metrics, api])
