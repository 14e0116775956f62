"""The laws of queues, over random lives; and that shares come out even."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import queue_laws as laws
from tests.properties.queue_laws import LAWS, Life, lived, put_in, queue
from tests.scenarios.home import Home, declared, fleet, job, node

from steersman.model.events import PolicySet
from steersman.model.policy import Policy
from steersman.model.queue import CPUS
from steersman.state.usage import averaged, decay

HALF_LIFE_MS = 60_000


@settings(deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_law_of_queues_holds(seed: int) -> None:
    home = lived(Life(seed, 25))
    for law in LAWS:
        law(home)


def test_the_lives_are_eventful() -> None:
    codes = set()
    for seed in range(20):
        for cycle in lived(Life(seed, 25)).cycles:
            codes |= {decision.reason.code.value for decision in cycle.plan.decisions}
    assert {"over-quota", "waiting-preemption", "preempted", "placed"} <= codes


def test_the_same_life_twice_gives_the_same_journal() -> None:
    assert laws.history(lived(Life(3, 25))) == laws.history(lived(Life(3, 25)))


@pytest.mark.parametrize(("weight", "ratio"), [(1_000, 1.0), (3_000, 3.0)])
def test_endless_demand_is_served_by_weight(weight: int, ratio: float) -> None:
    """Two queues that always have work waiting hold, on average of late, what their weights say."""
    policy = PolicySet(policy=Policy(fair_half_life_ms=HALF_LIFE_MS))
    home = Home(fleet(node("one", cores=8, gib=64)), policy)
    home.cycle(queue("ash", cohort=""), queue("birch", cohort="", weight=weight))
    number = 0
    for name in ("ash",) * 8:  # one of them comes first and takes everything
        home.cycle(declared(put_in(name, job(f"first-{number}"))), after_ms=0)
        number += 1
    for name in [*("ash", "birch") * 240]:
        home.fold(declared(put_in(name, job(f"job-{number:04}"))))
        number += 1
    for _ in range(30):
        home.cycle(after_ms=0)
        running = [name for name, state in home.snapshot.workloads.sorted_items() if state.run is not None]
        for name in running:
            home.begin(name)
        for at, name in enumerate(running):
            home.end(name, after_ms=10_000 if at == 0 else 0)
    held = {}
    for name in ("ash", "birch"):
        state = home.snapshot.queues[name]
        usage = home.snapshot.indexes.usage.get(state.spec.name, ())
        held[name] = dict(averaged(state, usage, home.now_ms, HALF_LIFE_MS))[CPUS]
    assert held["birch"] / held["ash"] == pytest.approx(ratio, rel=0.25)


@given(first=st.integers(0, 10**9), second=st.integers(0, 10**9), half_life_ms=st.integers(1, 10**9))
def test_decay_is_two_to_the_minus(first: int, second: int, half_life_ms: int) -> None:
    one = 1 << 64
    assert decay(half_life_ms, half_life_ms) == one >> 1
    assert decay(0, half_life_ms) == one
    assert decay(first, half_life_ms) / one == pytest.approx(
        2 ** -(first / half_life_ms), rel=1e-6, abs=1e-15
    )
    assert decay(first + second, half_life_ms) <= decay(first, half_life_ms)
