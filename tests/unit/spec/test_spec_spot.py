"""What a job says about spot, on-demand, its deadline and its price."""

import pytest
from tests.unit.spec.test_spec_job import job, refused, warned

HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", "on-demand"),
        ("resources: {use_spot: true}\n", "spot"),
        ("resources: {use_spot: false}\n", "on-demand"),
        ("resources: {use_spot: true}\nspot_policy: spot\ncheckpoint: {}\n", "spot"),
        ("resources: {use_spot: false}\nspot_policy: on-demand\n", "on-demand"),
        ("spot_policy: auto\ncheckpoint: {}\n", "auto"),
    ],
)
def test_the_words_of_skypilot_and_dstack_for_spot(text: str, policy: str) -> None:
    parsed = warned(text)
    assert parsed.warnings == ()
    assert parsed.workloads[0].body.spot_policy == policy


def test_a_deadline_and_the_work_before_it() -> None:
    body = job("deadline: 52h\nwork: 48h\nspot_policy: auto\ncheckpoint: {}\nmax_price: 3.06\n").body
    assert (body.deadline_ms, body.work_ms) == (52 * HOUR_MS, 48 * HOUR_MS)
    assert body.price_usd_micro_per_hour_max == 3_060_000
    body = job("deadline: 5h\nmax_duration: 4h\n").body
    assert body.work_ms == 4 * HOUR_MS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("work: 1h\n", "work: it is used only beside a `deadline`"),
        ("deadline: 2h\nwork: 3h\n", "deadline: 3h of work do not fit into 2h: it will be late"),
        ("spot_policy: auto\n", "spot_policy: without `checkpoint` an interruption loses all"),
        ("spot_policy: spot\n", "spot_policy: without `checkpoint` an interruption loses all"),
    ],
)
def test_what_a_choice_lacks_is_said(text: str, words: str) -> None:
    (warning,) = warned(text).warnings
    assert words in warning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deadline: 2h\n", "a deadline says nothing without the work"),
        ("deadline: 2h\nmax_duration: off\n", "a deadline says nothing without the work"),
        ("deadline: tomorrow\nwork: 1h\n", "is not a duration"),
        ("deadline: -1h\nwork: 1h\n", "negative"),
        ("spot_policy: cheap\n", "'cheap' is not a spot policy"),
        ("spot_policy: auto\nresources: {use_spot: true}\n", "`spot_policy` is auto, and"),
        ("spot_policy: spot\nresources: {use_spot: false}\n", "`spot_policy` is spot, and"),
        ("max_price: 0\n", "'0' is not a price in dollars an hour"),
        ("max_price: -1\n", "is not a price in dollars an hour"),
        ("max_price: 1e3\n", "is not a price in dollars an hour"),
        ("max_price: 100001\n", "is not a price in dollars an hour"),
        ("max_price: \n", "nothing stands here"),
        ("max_price: 700.0\n", "stands for a missing price"),
    ],
)
def test_choices_that_make_no_sense(text: str, words: str) -> None:
    assert words in refused(text).message
