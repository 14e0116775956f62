"""What a name that a person typed stands for: a job, a service, a replica, the gateway.

A replica is called after its service, with its number: ``digits.3``. ``gateway`` is the gateway, unless
somebody declared a job or a service of that name. What Steersman runs itself can be looked at like any job;
it is not ended by its own name, for its service would only have it again.
"""

import re

from steersman.app.declare import nearest
from steersman.app.views import is_owned
from steersman.model.errors import ConflictError
from steersman.model.ids import WorkloadName
from steersman.model.service import GATEWAY_NAME
from steersman.model.snapshot import ServiceState, Snapshot, WorkloadState

GATEWAY_ALIAS = "gateway"

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LOOKED_AT = re.compile(rf"{_NAME}(?:\.[0-9]{{1,18}})?|{re.escape(GATEWAY_NAME)}")
_RUN = re.compile(rf"(?:{_NAME}(?:\.[0-9]{{1,18}})?|{re.escape(GATEWAY_NAME)})\.[0-9]{{1,18}}")


def full_name(snapshot: Snapshot, name: str) -> str:
    """The name that was meant. Raises ConflictError for what cannot be one."""
    if _LOOKED_AT.fullmatch(name) is None:
        raise ConflictError(
            f"{name[:64]!r} is not the name of a workload",
            hint="names are lower-case letters, digits and `-`; a replica's is like digits.3",
            code="bad-name",
        )
    taken = snapshot.workloads.get(name) is not None or snapshot.services.get(name) is not None
    return GATEWAY_NAME if name == GATEWAY_ALIAS and not taken else name


def find(snapshot: Snapshot, name: str) -> WorkloadState | ServiceState:
    """What has that name. Raises ConflictError."""
    whole = full_name(snapshot, name)
    found = snapshot.services.get(whole) or snapshot.workloads.get(whole)
    if found is None:
        raise ConflictError(
            f"there is no workload called {name!r}",
            hint=nearest(name, declared_names(snapshot)),
            code="unknown-workload",
        )
    return found


def find_job(snapshot: Snapshot, name: str) -> WorkloadState:
    """The job of that name, replicas and the gateway included. Raises ConflictError."""
    found = find(snapshot, name)
    if isinstance(found, ServiceState):
        raise ConflictError(f"{name!r} is a service", hint=f"steer status {name}", code="is-service")
    return found


def find_service(snapshot: Snapshot, name: str) -> ServiceState:
    """The service of that name. Raises ConflictError."""
    found = find(snapshot, name)
    if not isinstance(found, ServiceState):
        raise ConflictError(f"{name!r} is not a service", hint=f"steer status {name}", code="unknown-service")
    return found


def find_declared(snapshot: Snapshot, name: str) -> WorkloadState | ServiceState:
    """What a person declared under that name, and may end. Raises ConflictError."""
    found = find(snapshot, name)
    if isinstance(found, ServiceState) or not is_owned(found):
        return found
    if found.service is None:
        raise ConflictError(
            "the gateway runs for as long as there is a service",
            hint="steer down SERVICE for each of them ends it too",
            code="is-gateway",
        )
    raise ConflictError(
        f"{name!r} is a replica of the service {found.service!r}, which would have another in its place",
        hint=f"steer stop {found.service} ends all of them; to have fewer, declare fewer replicas",
        code="is-replica",
    )


def declared_names(snapshot: Snapshot) -> list[WorkloadName]:
    """Everything that people declared, in order: jobs and services, no replica."""
    jobs = [state.spec.name for _, state in snapshot.workloads.sorted_items() if not is_owned(state)]
    return sorted([*jobs, *(state.spec.name for _, state in snapshot.services.sorted_items())])


def check_run(run: str) -> None:
    """Refuse what is no run's identifier. Raises ConflictError."""
    if _RUN.fullmatch(run) is None:
        raise ConflictError(
            f"{run[:64]!r} is not the name of a run",
            hint="runs are called like digits.42; steer audit --subject NAME tells them",
            code="bad-name",
        )
