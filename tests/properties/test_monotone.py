"""The laws of `monotone_laws`, at every position of random lives, and what is planted against each."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.properties import monotone_laws as laws
from tests.properties.strategies import Story, play, played, stories, told_by
from tests.scenarios.home import Cycle

from steersman.decide import admit, autoscale, fit, recover, rollout, start
from steersman.decide.votes import Vote
from steersman.model.decisions import Decision, Promote
from steersman.model.reasons import Code, reason
from steersman.model.snapshot import ServiceState, Shape, Snapshot, WorkloadState
from steersman.model.workload import Workload
from steersman.state.draft import Draft

Patch = pytest.MonkeyPatch
Law = Callable[[Cycle], None]
STORIES_MAX = 60


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: str(law.__name__))
@settings(max_examples=settings().max_examples // 2)
@given(story=stories(20))
def test_a_law_holds_in_every_story(law: Law, story: Story) -> None:
    """Whatever happens to a home, the law holds at every position."""
    for cycle in played(story).cycles:
        law(cycle)


def _keeps_nodes_for_large_gangs(patch: Patch) -> None:
    real = fit.spread

    def spread(draft: Draft, shape: Shape) -> Any:
        found = real(draft, shape)
        wasteful = shape.num_nodes < 2 and found is not None and draft.nodes[found[0][0]].node.devices
        return None if wasteful and not shape.accelerators else found

    patch.setattr(start, "spread", spread)


def _wants_round_numbers(patch: Patch) -> None:
    real = admit.too_large

    def too_large(spec: Workload, sizes: Any) -> Any:
        odd = spec.body.num_nodes == 1 and len(sizes) > 1
        return reason(Code.REFUSED_TOO_LARGE) if odd else real(spec, sizes)

    patch.setattr(admit, "too_large", too_large)


def _gives_up_at_one_number_of_tries(patch: Patch) -> None:
    real = recover._final_failure

    def final(snapshot: Snapshot, state: WorkloadState, *given: Any) -> Any:
        retry = state.spec.body.retry
        few = replace(retry, attempts_max=retry.attempts_max % 4)
        spec = replace(state.spec, body=replace(state.spec.body, retry=few))
        return real(snapshot, replace(state, spec=spec), *given)

    patch.setattr(recover, "_final_failure", final)


def _takes_load_for_rest(patch: Patch) -> None:
    real = autoscale.desired

    def desired(snapshot: Snapshot, state: ServiceState) -> Vote:
        vote = real(snapshot, state)
        return vote._replace(replicas=1) if vote.replicas > state.target + 1 else vote

    patch.setattr(autoscale, "desired", desired)
    patch.setattr(autoscale, "delay_ms", lambda *_: 0)


def _promotes_only_in_a_hurry(patch: Patch) -> None:
    real = rollout._judge

    def judge(snapshot: Snapshot, state: ServiceState) -> Iterator[Decision]:
        patient = state.spec.rollout.crashes_max % 2 == 0
        yield from (item for item in real(snapshot, state) if not (patient and isinstance(item, Promote)))

    patch.setattr(rollout, "_judge", judge)


CASES: list[tuple[Callable[[Patch], None], Law]] = [
    (_keeps_nodes_for_large_gangs, laws.what_fits_fits_when_it_asks_for_less),
    (_wants_round_numbers, laws.what_is_admitted_is_admitted_when_it_asks_for_less),
    (_gives_up_at_one_number_of_tries, laws.what_is_tried_again_is_with_more_tries),
    (_takes_load_for_rest, laws.more_load_or_room_never_means_fewer_replicas),
    (_promotes_only_in_a_hurry, laws.what_takes_over_does_with_more_patience),
]


@pytest.mark.parametrize(("plant", "law"), CASES, ids=lambda item: str(item.__name__).lstrip("_"))
def test_a_planted_bug_is_caught(plant: Callable[[Patch], None], law: Law, monkeypatch: Patch) -> None:
    """The law that is meant for it fails in some story."""
    plant(monkeypatch)
    assert any(_broken(Story(seed, 20), law) for seed in range(STORIES_MAX))


def _broken(story: Story, law: Law) -> bool:
    home, batches = told_by(story)
    for batch in batches:
        play(home, batch)
        try:
            law(home.cycles[-1])
        except AssertionError:
            return True
    return False
