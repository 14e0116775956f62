"""Every law of the order of jobs bites: a bug is planted, in decider or bound, and its law finds it."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.properties import order_laws as laws
from tests.properties.order_laws import Law, world_of

from steersman.decide import order
from steersman.model.durations import Learned
from steersman.sim.replay import bounds_jobs
from steersman.state import durations

Patch = pytest.MonkeyPatch
WORLDS = 20
"""In which a law is seen to hold before the bug is planted; the properties look at more."""
WORLDS_MAX = 200


def _has_one_device_more(patch: Patch) -> None:
    real = order.choose
    patch.setattr(order, "choose", lambda groups, capacity, *rest: real(groups, capacity + 1, *rest))


def _starts_half_a_gang(patch: Patch) -> None:
    real = order.choose

    def choose(groups: order.Groups, *rest: Any) -> tuple[str, ...]:
        halved: order.Groups = {}
        for group, jobs in groups.items():
            key = group._replace(devices=(group.devices + 1) // 2)
            halved[key] = sorted([*halved.get(key, []), *jobs])
        return real(halved, *rest)

    patch.setattr(order, "choose", choose)


def _names_a_job_twice(patch: Patch) -> None:
    real = order.choose

    def choose(*given: Any) -> tuple[str, ...]:
        chosen = real(*given)
        return (*chosen, *chosen[:1])

    patch.setattr(order, "choose", choose)


def _stops_at_what_does_not_fit(patch: Patch) -> None:
    real = order.choose
    patch.setattr(order, "choose", lambda *given: real(*given)[:2])


def _takes_groups_as_they_come(patch: Patch) -> None:
    def choose(groups: order.Groups, capacity: int, *_rest: Any) -> tuple[str, ...]:
        free, chosen = capacity, []
        for group, jobs in groups.items():
            for _, name in jobs:
                if group.devices <= free:
                    chosen.append(name)
                    free -= group.devices
        return tuple(chosen)

    patch.setattr(order, "choose", choose)


def _forgets_the_size_of_a_gang(patch: Patch) -> None:
    real = order.base_priority
    patch.setattr(
        order, "base_priority", lambda group, indices: real(group, indices) + round(1e6 * (group.devices - 1))
    )


def _forgets_to_remove(patch: Patch) -> None:
    patch.setattr(order, "remove", lambda _groups, _job: None)


def _adds_at_the_end(patch: Patch) -> None:
    def add(groups: order.Groups, job: order.Job) -> None:
        groups.setdefault(order.group_of(job), []).append((job.arrival_s, job.name))

    patch.setattr(order, "add", add)


def _adds_the_latest_first(patch: Patch) -> None:
    def add(groups: order.Groups, job: order.Job) -> None:
        jobs = groups.setdefault(order.group_of(job), [])
        jobs.append((job.arrival_s, job.name))
        jobs.sort(reverse=True)

    patch.setattr(order, "add", add)


def _takes_turns(patch: Patch) -> None:
    patch.setattr(order, "HYSTERESIS_MICRO", -1)
    patch.setattr(order.Indices, "of", lambda _self, _group: 0)


def _forgets_the_queues(patch: Patch) -> None:
    real = order.choose

    def choose(groups: order.Groups, capacity: int, now_s: int, indices: Any, _ranks: Any) -> tuple[str, ...]:
        return real(groups, capacity, now_s, indices, {})

    patch.setattr(order, "choose", choose)


def _learns_only_from_ends(patch: Patch) -> None:
    real = durations.fold
    patch.setattr(durations, "fold", lambda learned, stint: real(learned, stint) if stint.ended else learned)


def _counts_the_time_before_the_stint(patch: Patch) -> None:
    real = durations.fold

    def fold(learned: Learned, stint: durations.Stint) -> Learned:
        from_zero = stint._replace(attained_s=0, ran_s=stint.attained_s + stint.ran_s)
        return real(learned, from_zero)

    patch.setattr(durations, "fold", fold)


def _takes_exposure_for_ends(patch: Patch) -> None:
    real = order.log_index

    def log_index(learned: Learned, *rest: int) -> int:
        swapped = learned._replace(
            ends=tuple(milli // 1000 for milli in learned.exposed_milli),
            exposed_milli=tuple(1000 * ends for ends in learned.ends),
        )
        return real(swapped, *rest)

    patch.setattr(order, "log_index", log_index)


def _restarts_for_nothing(patch: Patch) -> None:
    real = order.log_index
    patch.setattr(order, "log_index", lambda learned, place, scale, _cost: real(learned, place, scale, 0))


def _prior_with_a_light_tail(patch: Patch) -> None:
    real = order.log_index
    patch.setattr(order, "log_index", lambda learned, place, scale, cost: -real(learned, place, scale, cost))


def _forgets_age(patch: Patch) -> None:
    patch.setattr(order, "age_bonus", lambda _now, _arrival, _place: 0)


def _bound_that_is_too_high(patch: Patch) -> None:
    real = bounds_jobs.mean_jct_bound_s
    patch.setattr(bounds_jobs, "mean_jct_bound_s", lambda gangs, capacity: real(gangs, 1) + capacity)


def _look(law: Law, worlds: int) -> None:
    for seed in range(worlds):
        law(world_of(random.Random(seed)))


@pytest.mark.parametrize(
    ("bug", "law"),
    [
        (_has_one_device_more, laws.capacity_is_kept),
        (_starts_half_a_gang, laws.capacity_is_kept),
        (_names_a_job_twice, laws.capacity_is_kept),
        (_stops_at_what_does_not_fit, laws.nothing_idles_that_would_fit),
        (_takes_groups_as_they_come, laws.order_is_total),
        (_takes_groups_as_they_come, laws.groups_order_as_jobs_would),
        (_forgets_the_size_of_a_gang, laws.groups_order_as_jobs_would),
        (_forgets_age, laws.groups_order_as_jobs_would),
        (_forgets_to_remove, laws.index_equals_rebuild),
        (_adds_at_the_end, laws.index_equals_rebuild),
        (_takes_turns, laws.like_jobs_do_not_take_turns),
        (_adds_the_latest_first, laws.first_come_first_served_among_alike),
        (_forgets_the_queues, laws.queues_of_better_rank_come_first),
        (_learns_only_from_ends, laws.stints_are_counted_whole),
        (_counts_the_time_before_the_stint, laws.stints_are_counted_whole),
        (_counts_the_time_before_the_stint, laws.stints_may_be_cut_anywhere),
        (_takes_exposure_for_ends, laws.ends_raise_and_costs_lower),
        (_restarts_for_nothing, laws.ends_raise_and_costs_lower),
        (_prior_with_a_light_tail, laws.ignorance_serves_the_least_attained),
        (_forgets_age, laws.a_large_gang_does_not_starve),
        (_bound_that_is_too_high, laws.no_order_beats_the_bound),
    ],
    ids=lambda one: one.__name__.lstrip("_"),
)
def test_a_planted_bug_is_caught(bug: Callable[[Patch], None], law: Law, monkeypatch: Patch) -> None:
    alike = law in laws.FIXED_LAWS
    _look(law, 1 if alike else WORLDS)
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        _look(law, 1 if alike else WORLDS_MAX)


def test_every_law_is_broken_by_a_bug() -> None:
    (marks,) = test_a_planted_bug_is_caught.pytestmark  # type: ignore[attr-defined]  # pytest puts it there
    assert {law for _, law in marks.args[1]} == {*laws.LAWS, *laws.FIXED_LAWS}
