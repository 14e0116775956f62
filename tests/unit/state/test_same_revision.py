"""What needs a new revision: the fold, which cannot ask `spec`, agrees with the difference that users see."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.properties.service_steps import draw_service

from steersman.model.ids import QueueName
from steersman.model.resources import Resources
from steersman.model.service import (
    CallableModel,
    InputRange,
    OnnxModel,
    RequestLimits,
    RolloutPolicy,
    Scaling,
    Service,
)
from steersman.model.workload import SecretRef
from steersman.spec.diff import diff_services
from steersman.state.services import same_revision

BASE = replace(
    draw_service(random.Random(1)),
    model=OnnxModel(path="/m", digest="sha256:1"),
    workdir="/w",
    workdir_digest="sha256:1",
)
OTHERS: dict[str, Any] = {
    "model": OnnxModel(path="/m", digest="sha256:2"),
    "resources": Resources(cpu_milli=7),
    "scaling": Scaling(min_replicas=3, max_replicas=3),
    "limits": RequestLimits(queued_max=7),
    "rollout": RolloutPolicy(crashes_max=7),
    "inputs": (InputRange(name="x", minimum=1.0),),
    "slo_latency_p99_ms": 7,
    "setup": "make",
    "workdir": "/other",
    "workdir_digest": "sha256:2",
    "envs": (("A", "b"),),
    "secrets": (SecretRef(env="S", secret="S"),),
    "stop_grace_ms": 7,
    "queue": QueueName("other"),
    "priority": 7,
    "owner": "me",
    "labels": (("a", "b"),),
}


def test_every_field_has_its_change_here() -> None:
    assert {*OTHERS, "name"} == {field.name for field in msgspec.structs.fields(Service)}


@pytest.mark.parametrize("name", OTHERS)
def test_one_field_at_a_time(name: str) -> None:
    other = replace(BASE, **{name: OTHERS[name]})
    found = diff_services(BASE, other)
    assert found.kind == "changed"
    assert same_revision(BASE, other) == same_revision(other, BASE) == (not found.restarts)


@pytest.mark.parametrize("field", [field.name for field in msgspec.structs.fields(RequestLimits)])
def test_one_limit_at_a_time(field: str) -> None:
    other = replace(BASE, limits=replace(BASE.limits, **{field: 7}))
    assert (
        same_revision(BASE, other) == (field != "batch_size_max") == (not diff_services(BASE, other).restarts)
    )


def test_another_kind_of_model() -> None:
    assert not same_revision(BASE, replace(BASE, model=CallableModel(target="m:f")))


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_any_two(one: int, other: int) -> None:
    first, second = (draw_service(random.Random(seed)) for seed in (one, other))
    second = replace(second, name=first.name)
    assert same_revision(first, second) == (not diff_services(first, second).restarts)
