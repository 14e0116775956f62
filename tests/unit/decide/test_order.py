"""The order of jobs of unknown duration: buckets, what stints teach, the index, and who runs."""

import math
from collections.abc import Sequence

import pytest

from steersman.decide import order
from steersman.decide.order import (
    NEW,
    PREEMPTED,
    RUNNING,
    Group,
    Indices,
    Job,
    Memo,
    Stage,
    add,
    age_bonus,
    choose,
    group_of,
    log_index,
    remove,
)
from steersman.model.durations import BUCKETS, NOTHING_LEARNED, Learned, Tally
from steersman.state.durations import (
    EDGES_S,
    Stint,
    bucket,
    fold,
    refreshed,
    scale_bucket,
)

RESTART_S = 60


def job(
    name: str,
    devices: int = 1,
    *,
    arrival_s: int = 0,
    attained_s: int = 0,
    stage: Stage = NEW,
    queue: str = "",
    classes: tuple[str, ...] = ("all",),
) -> Job:
    return Job(name, queue, classes, devices, arrival_s, attained_s, stage)


def chosen(
    jobs: Sequence[Job], capacity: int, now_s: int = 0, learned: Learned = NOTHING_LEARNED, **ranks: int
) -> tuple[str, ...]:
    groups: order.Groups = {}
    for each in jobs:
        add(groups, each)
    return choose(groups, capacity, now_s, Indices(learned, RESTART_S), ranks)


def taught(name: str, seconds: int, times: int = 1, learned: Learned = NOTHING_LEARNED) -> Learned:
    for _ in range(times):
        learned = fold(learned, Stint(("all", name), 0, seconds, True))
    return learned


@pytest.mark.parametrize(
    ("seconds", "place"),
    [(0, 0), (63, 0), (64, 1), (90, 1), (91, 2), (128, 3), (10**9, BUCKETS - 1), (EDGES_S[-1], BUCKETS - 1)],
)
def test_buckets_are_spaced_by_the_root_of_two(seconds: int, place: int) -> None:
    assert bucket(seconds) == place


def test_edges_cover_24_years() -> None:
    assert len(EDGES_S) == BUCKETS + 1
    assert sorted(set(EDGES_S)) == list(EDGES_S)
    assert EDGES_S[-1] > 24 * 365 * 86_400


def test_with_nothing_learned_a_job_is_of_two_hours() -> None:
    assert scale_bucket(NOTHING_LEARNED, ("all",)) == bucket(round(math.exp(9))) + 1
    assert scale_bucket(NOTHING_LEARNED, ()) == scale_bucket(NOTHING_LEARNED, ("all", "a", "b"))


def test_a_class_speaks_like_its_parent_until_it_is_known() -> None:
    """With a few short ends a class is shorter than its parent; a class never seen is as its parent."""
    learned = taught("long", 200_000, 20)
    parent = scale_bucket(learned, ("all",))
    assert scale_bucket(learned, ("all", "never seen")) == parent
    for times in (1, 3, 30):
        more = taught("short", 100, times, learned)
        assert scale_bucket(more, ("all", "short")) <= parent
    assert scale_bucket(taught("short", 100, 30, learned), ("all", "short")) <= bucket(300)


def test_deep_chains_shrink_like_the_last_known_level() -> None:
    chain = tuple("abcdef")
    learned = fold(NOTHING_LEARNED, Stint(chain, 0, 1_000, True))
    assert scale_bucket(learned, chain) <= scale_bucket(learned, chain[:2])


def test_scales_stay_in_the_buckets() -> None:
    tiny = NOTHING_LEARNED._replace(classes=NOTHING_LEARNED.classes.of([("all", Tally(10**6, 0))]))
    huge = NOTHING_LEARNED._replace(classes=NOTHING_LEARNED.classes.of([("all", Tally(1, 10**9))]))
    assert (scale_bucket(tiny, ("all",)), scale_bucket(huge, ("all",))) == (0, BUCKETS - 1)


def test_a_stint_adds_its_share_of_each_bucket_and_one_end() -> None:
    shift = BUCKETS - scale_bucket(NOTHING_LEARNED, ("all",))
    stint = Stint(("all",), 32, 32 + 13, ended=False)  # from the middle of bucket 0 to the middle of bucket 1
    learned = fold(NOTHING_LEARNED, stint)
    assert learned.exposed_milli[shift : shift + 3] == (500, 481, 0)
    assert (sum(learned.ends), len(learned.classes), learned.stints) == (0, 0, 1)
    ended = fold(learned, Stint(("all", "x"), 77, 3, ended=True))
    assert ended.ends[1 + shift] == sum(ended.ends) == 1
    assert ended.classes["all"] == ended.classes["x"] == Tally(1, round(1000 * math.log(80)))
    assert ended.stints == 2


def test_an_end_on_an_edge_belongs_below_it() -> None:
    shift = BUCKETS - scale_bucket(NOTHING_LEARNED, ("all",))
    learned = fold(NOTHING_LEARNED, Stint(("all",), 0, 64, ended=True))
    assert learned.ends[shift] == 1
    assert learned.exposed_milli[shift : shift + 2] == (1000, 0)


def test_an_end_without_service_counts_and_adds_no_exposure() -> None:
    learned = fold(NOTHING_LEARNED, Stint(("all",), 0, 0, ended=True))
    assert (sum(learned.ends), sum(learned.exposed_milli)) == (1, 0)
    assert learned.classes["all"] == Tally(1, round(1000 * math.log(60)))


def test_a_stint_beyond_the_last_edge_stays_in_the_last_bucket() -> None:
    learned = fold(NOTHING_LEARNED, Stint(("all",), EDGES_S[-1], 10**9, ended=True))
    assert sum(learned.ends) == 1
    assert sum(learned.exposed_milli) > 1000


def test_the_index_of_a_constant_hazard_is_that_hazard() -> None:
    """With much data the index is ends over time: here one end for each bucket served, in bucket 40.

    The expected time of a piece that ends at rate 1 a bucket is one bucket's width an end.
    """
    place, scale = 40, 40
    at = place - scale + BUCKETS
    ends = tuple(10**9 if k == at else 0 for k in range(2 * BUCKETS))
    exposed = tuple(10**12 if k in (at, at + 1) else 0 for k in range(2 * BUCKETS))
    learned = NOTHING_LEARNED._replace(ends=ends, exposed_milli=exposed)
    width_s = EDGES_S[place + 1] - EDGES_S[place]
    assert log_index(learned, place, scale, 0) == pytest.approx(-1e6 * math.log(width_s), abs=10)


def test_the_index_looks_past_a_piece_in_which_nothing_ends() -> None:
    """A job that surely ends in the next bucket is worth more than one that may end at any time."""
    scale, place = 20, 20
    at = place - scale + BUCKETS
    ends = [0] * (2 * BUCKETS)
    ends[at + 1] = 10**6
    exposed = [10**7 if k <= at else 1000 for k in range(2 * BUCKETS)]
    sure = NOTHING_LEARNED._replace(ends=tuple(ends), exposed_milli=tuple(exposed))
    assert log_index(sure, place, scale, 0) > log_index(NOTHING_LEARNED, place, scale, 0)
    assert log_index(sure, place + 1, scale, 0) > log_index(sure, place, scale, 0)


def test_indices_depend_on_what_was_learned_alone() -> None:
    learned = taught("x", 500, 5)
    stages: tuple[Stage, ...] = (NEW, PREEMPTED)
    groups = [group_of(job("a", classes=("all", name), stage=stage)) for name in "xy" for stage in stages]
    first, second = Indices(learned, RESTART_S), Indices(learned, RESTART_S)
    forth = [first.of(group) for group in groups]
    back = [second.of(group) for group in reversed(groups)]
    assert forth == back[::-1] == [first.of(group) for group in groups]
    assert forth[0] > forth[1]  # a restart costs


def test_indices_are_refreshed_when_a_fiftieth_more_is_known() -> None:
    learned = NOTHING_LEARNED._replace(stints=100)
    assert refreshed(learned, learned._replace(stints=102)) is learned
    newer = learned._replace(stints=103)
    assert refreshed(learned, newer) is newer
    memo = Memo()
    kept = memo.indices(learned, RESTART_S)
    assert memo.indices(learned, RESTART_S) is kept
    assert memo.indices(newer, RESTART_S).learned is newer
    assert memo.indices(newer, 0).restart_s == 0


def test_the_index_of_jobs_forgets_groups_that_are_empty() -> None:
    groups: order.Groups = {}
    jobs = [job("b", arrival_s=2), job("c", arrival_s=1), job("a", arrival_s=2)]
    for each in jobs:
        add(groups, each)
    assert groups == {Group("", ("all",), 1, 0, NEW): [(1, "c"), (2, "a"), (2, "b")]}
    for each in jobs:
        remove(groups, each)
    assert groups == {}


def test_a_job_that_is_not_there_cannot_be_removed() -> None:
    groups: order.Groups = {}
    add(groups, job("a"))
    add(groups, job("c"))
    with pytest.raises(AssertionError):
        remove(groups, job("b"))


def test_the_least_attained_runs_first_when_nothing_is_known() -> None:
    jobs = [job("old", attained_s=90_000, stage=PREEMPTED), job("new", arrival_s=9), job("one", arrival_s=3)]
    assert chosen(jobs, 2, now_s=100_000) == ("one", "new")


def test_a_gang_counts_by_its_device_seconds_and_is_passed_over_whole() -> None:
    jobs = [job("two", 2), job("four", 4), job("one"), job("three", 3)]
    assert chosen(jobs, 4) == ("one", "two")
    assert chosen(jobs, 6) == ("one", "two", "three")
    assert chosen(jobs, 0) == ()
    assert chosen([], 4) == ()


def test_what_does_not_fit_any_more_gives_way_to_what_does() -> None:
    jobs = [job("a", 2), job("b", 2), job("tail", 1, attained_s=10**6, stage=PREEMPTED)]
    assert chosen(jobs, 3) == ("a", "tail")


def test_short_jobs_go_before_long_ones_once_classes_are_known() -> None:
    learned = taught("short", 300, 30, taught("long", 90_000, 30))
    jobs = [job("l", classes=("all", "long")), job("s", arrival_s=5, classes=("all", "short"))]
    assert chosen(jobs, 1, 10, learned) == ("s",)


def test_a_running_job_yields_only_to_one_that_is_three_times_better() -> None:
    running = job("runs", attained_s=2_000, stage=RUNNING)
    assert chosen([running, job("near", attained_s=1_000, stage=PREEMPTED)], 1) == ("runs",)
    assert chosen([running, job("new")], 1) == ("new",)


def test_a_restart_weighs_on_those_that_have_attained_little() -> None:
    jobs = [job("preempted", stage=PREEMPTED), job("new", arrival_s=9)]
    assert chosen(jobs, 1, 10) == ("new",)


def test_age_raises_a_wait_of_forty_times_what_was_attained() -> None:
    threshold_s = order.AGE * order.AGE_FLOOR_S
    assert age_bonus(threshold_s, 0, 0) == 0
    assert age_bonus(2 * threshold_s, 0, 0) == round(2e6 * math.log(2))
    assert age_bonus(2 * threshold_s, 0, bucket(90_000)) == 0
    waits = job("waits", 8)
    others = [job(f"new{number}", arrival_s=10**7) for number in range(8)]
    assert "waits" not in chosen([waits, *others], 8, threshold_s)
    assert chosen([waits, *others], 8, 10**7) == ("waits",)


def test_the_rank_of_a_queue_comes_first() -> None:
    jobs = [job("best", queue="late"), job("worst", 2, queue="early", attained_s=10**6, stage=PREEMPTED)]
    assert chosen(jobs, 2, late=1) == ("worst",)
    assert chosen(jobs, 2, late=0) == ("best",)
