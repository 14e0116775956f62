"""Decisions on services held against what came in meanwhile: what still holds, and what does not."""

import pytest
from tests.scenarios.home import Home, fleet, node
from tests.scenarios.serving import Shop, replicas, served, service, up

from steersman.engine.validate import still_valid
from steersman.model.decisions import (
    Admit,
    Decision,
    FailRollout,
    Forget,
    Hold,
    Promote,
    Retire,
    Revise,
    Scale,
    Spawn,
)
from steersman.model.events import Event, RemoveRequested, StopRequested
from steersman.model.ids import WorkloadName
from steersman.model.reasons import Code, reason
from steersman.model.service import GATEWAY_NAME

NAME, GHOST = WorkloadName("digits"), WorkloadName("ghost")
WHY = reason(Code.SERVING)
REMOVED, STOPPED = RemoveRequested(workload=NAME), StopRequested(workload=NAME)
AGAIN = served(service(scaling=replicas(2)), restarts=False)


def spawn(name: str = "digits", replica: str = "digits.9") -> Spawn:
    made = Shop(fleet(node("n"))).serve(service()).decisions
    gateway = next(item for item in made if isinstance(item, Spawn))
    job = type(gateway.job)(
        name=WorkloadName(replica), body=gateway.job.body, resources=gateway.job.resources
    )
    return Spawn(workload=WorkloadName(name), revision=1, job=job, reason=WHY)


def scale(name: str = "digits") -> Scale:
    return Scale(workload=WorkloadName(name), desired=1, since_ms=0, target=1, reason=WHY)


TABLE: list[tuple[str, Decision, tuple[Event, ...], bool]] = [
    ("a replica more", spawn(), (), True),
    ("a name that is taken", spawn(replica="digits.1"), (), False),
    ("of a service that stops", spawn(), (STOPPED,), False),
    ("of a service that goes", spawn(), (REMOVED,), False),
    ("of a service that is back", spawn(), (STOPPED, AGAIN), True),
    ("of a service that is gone", spawn("ghost", "ghost.1"), (), False),
    ("the gateway, which has no service", spawn("another.gateway", "another.gateway"), (), True),
    ("one that is there", Retire(workload=NAME, replica=WorkloadName("digits.1"), reason=WHY), (), True),
    ("one that is gone", Retire(workload=NAME, replica=WorkloadName("digits.7"), reason=WHY), (), False),
    ("the next revision", Revise(workload=NAME, revision=2, model_digest=None, reason=WHY), (), True),
    ("one that was begun", Revise(workload=NAME, revision=1, model_digest=None, reason=WHY), (), False),
    ("of nobody", Revise(workload=GHOST, revision=1, model_digest=None, reason=WHY), (), False),
    ("nothing rolls", Promote(workload=NAME, revision=1, reason=WHY), (), False),
    ("nobody's", FailRollout(workload=GHOST, revision=1, reason=WHY), (), False),
    ("a size", scale(), (), True),
    ("a size of nobody", scale("ghost"), (), False),
    ("a word on it", Hold(workload=NAME, reason=WHY), (STOPPED,), True),
    ("its end, while it has replicas", Forget(workload=NAME, reason=WHY), (REMOVED,), False),
    ("its end, when it is wanted again", Forget(workload=NAME, reason=WHY), (REMOVED, AGAIN), False),
    ("what is for jobs", Admit(workload=NAME, reason=WHY), (), False),
]


@pytest.mark.parametrize(
    ("decision", "late", "holds"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_still_holds(decision: Decision, late: tuple[Event, ...], holds: bool) -> None:
    shop = up(fleet(node("here", cores=4)), spec=service(scaling=replicas(2)))
    shop.fold(*late)
    assert still_valid(shop.snapshot, [decision]) == ((decision,) if holds else ())


def test_a_promotion_holds_for_what_rolls() -> None:
    shop = up(fleet(node("here", cores=4)))
    shop.serve(service(model="v2"))
    for kind in (Promote, FailRollout):
        assert still_valid(shop.snapshot, [kind(workload=NAME, revision=2, reason=WHY)])
        assert not still_valid(shop.snapshot, [kind(workload=NAME, revision=1, reason=WHY)])


def test_the_end_of_a_service_without_replicas_holds() -> None:
    shop = Shop(fleet(node("here")))
    shop.serve(service(artifact="train/model"))
    shop.fold(REMOVED)
    end = Forget(workload=NAME, reason=WHY)
    assert still_valid(shop.snapshot, [end]) == (end,)


def test_requests_for_what_is_not_there_change_nothing() -> None:
    home = Home(fleet(node("here")))
    before = home.snapshot
    ghost = (StopRequested(workload=GHOST), RemoveRequested(workload=GHOST))
    home.fold(*ghost, RemoveRequested(workload=GATEWAY_NAME))
    assert (home.snapshot.workloads, home.snapshot.services) == (before.workloads, before.services)
