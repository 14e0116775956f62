"""What is learned of durations: classes of a declaration, their number, and what is typical."""

import pytest
from msgspec.structs import replace
from tests.scenarios.home import job

from steersman.model.durations import NOTHING_LEARNED
from steersman.model.ids import QueueName
from steersman.model.resources import Resources
from steersman.state import durations
from steersman.state.durations import Stint, classes_of, devices_milli, fold, is_ordered, stem_of, typical_s


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("sweep-17", "sweep"),
        ("sweep", "sweep"),
        ("resnet50", "resnet"),
        ("a.1", "a"),
        ("a-1-2", "a-1"),
        ("2024", "2024"),
        ("7_", "7"),
    ],
)
def test_a_family_is_known_by_the_stem_of_its_name(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_classes_from_coarse_to_fine() -> None:
    spec = replace(job("sweep-3", gpus=(("A100", 4),), ranks=2), queue=QueueName("research"), owner="ada")
    assert classes_of(spec) == (
        "all",
        "devices=8",
        "devices=8 queue=research owner=ada",
        "devices=8 queue=research owner=ada name=sweep",
    )
    other = replace(spec, name="tune-1", owner=None)
    assert [one == two for one, two in zip(classes_of(spec), classes_of(other), strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_parts_count_as_parts_and_alternatives_once() -> None:
    assert devices_milli(Resources(accelerators=(("A100", 1),), device_milli=250), 1) == 250
    assert devices_milli(Resources(accelerators=(("A100|H100", 2),)), 3) == 6_000
    assert devices_milli(Resources(), 1) == 1


def test_only_what_ends_by_itself_on_accelerators_is_ordered() -> None:
    spec = job("a", gpus=(("A100", 1),))
    assert is_ordered(spec)
    assert not is_ordered(job("a"))
    assert not is_ordered(replace(spec, body=replace(spec.body, program="replica")))


def test_what_is_typical_moves_from_the_guess_to_what_was_seen() -> None:
    learned = NOTHING_LEARNED
    assert typical_s(learned, ("all", "x")) == 8_103
    for _ in range(200):
        learned = fold(learned, Stint(("all", "x"), 0, 600, True))
    assert 600 <= typical_s(learned, ("all", "x")) < 620


def test_classes_are_bounded_but_for_the_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "CLASSES_MAX", 4)
    learned = fold(NOTHING_LEARNED, Stint(("all", "one", "one of me", "one a"), 0, 600, True))
    learned = fold(learned, Stint(("all", "two", "two of me", "two a"), 0, 600, True))
    assert [name for name, _ in learned.classes.sorted_items()] == ["all", "one", "one a", "one of me", "two"]
    learned = fold(learned, Stint(("all", "one", "one of me", "one a"), 0, 600, True))
    assert learned.classes["one a"].ended == 2, "what is known is learned on"
    assert learned.classes["all"].ended == 3
