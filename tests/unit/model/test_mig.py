"""MIG geometry against NVIDIA's published placements, and kinds of devices."""

import pytest

from steersman.model.devices import modes_of, rank_of, ranks_on_devices, type_of, will_do
from steersman.model.mig import (
    GEOMETRY,
    best_start,
    instances_max,
    memory_of,
    profile_of,
    profiles_of,
    share_milli,
    smallest,
    starts,
)
from steersman.model.resources import Resources


@pytest.mark.parametrize(
    ("profile", "most"),
    [("1g.5gb", 7), ("1g.10gb", 4), ("2g.10gb", 3), ("3g.20gb", 2), ("4g.20gb", 1), ("7g.40gb", 1)],
)
def test_as_many_instances_as_the_guide_says(profile: str, most: int) -> None:
    assert instances_max("A100", profile, 1000) == most


def test_what_lies_in_the_way_counts_and_not_what_is_free() -> None:
    large = profile_of("A100", "3g.20gb")
    assert large is not None
    assert starts("A100", (("1g.5gb", 2),), large) == (4,)
    assert starts("A100", (("1g.5gb", 2), ("1g.5gb", 5)), large) == ()
    assert starts("A100", (("4g.20gb", 0),), large) == (4,)


def test_seven_compute_slices_and_not_eight() -> None:
    small = profile_of("A100", "1g.10gb")
    assert small is not None
    assert starts("A100", (("4g.20gb", 0), ("3g.20gb", 4)), small) == ()
    four = profile_of("A100", "4g.20gb")
    assert four is not None
    assert starts("A100", (("3g.20gb", 4), ("1g.5gb", 0)), four) == ()
    assert starts("A100", tuple(("1g.5gb", at) for at in range(7)), small) == ()


def test_an_instance_goes_where_the_most_remains_possible() -> None:
    small, large = profile_of("A100", "1g.5gb"), profile_of("A100", "3g.20gb")
    assert small is not None
    assert large is not None
    assert best_start("A100", (), small) == 6
    assert best_start("A100", (("1g.5gb", 6),), small) == 5
    assert best_start("A100", (), large) == 4
    assert best_start("A100", (("7g.40gb", 0),), small) is None


@pytest.mark.parametrize(
    ("milli", "name"),
    [(1, "1g.5gb"), (125, "1g.5gb"), (126, "1g.10gb"), (143, "2g.10gb"), (250, "2g.10gb"), (428, "3g.20gb")],
)
def test_the_smallest_profile_that_is_large_enough(milli: int, name: str) -> None:
    found = smallest("A100", milli)
    assert found is not None
    assert found.name == name
    assert share_milli(found) >= milli


def test_what_has_no_mig() -> None:
    assert profiles_of("T4") == ()
    assert smallest("T4", 1) is None
    assert profile_of("A100", "9g.1gb") is None
    assert memory_of("A100", "9g.1gb") == 8
    assert memory_of("A100", "2g.10gb") == 2
    assert instances_max("T4", "", 100) == 0


def test_no_profile_reaches_beyond_its_device() -> None:
    for profiles in GEOMETRY.values():
        for profile in profiles:
            assert all(start + profile.memory <= 8 for start in profile.starts)
            assert profile.compute <= 7


@pytest.mark.parametrize(
    ("kind", "device", "modes"),
    [
        ("A100-80GB", "gpu", ("time-slice", "mig")),
        ("V100M32", "gpu", ("time-slice",)),
        ("TPU-v5e", "tpu", ()),
        ("tpu-v4", "tpu", ()),
        ("Inferentia2", "neuron", ()),
        ("Trainium", "neuron", ()),
        ("inf2", "neuron", ()),
        ("FPGA", "fpga", ()),
        ("Alveo-U250", "fpga", ()),
        ("Infinity", "gpu", ("time-slice",)),
    ],
)
def test_kinds_and_how_they_are_shared(kind: str, device: str, modes: tuple[str, ...]) -> None:
    assert type_of(kind) == device
    assert modes_of(kind) == modes


def test_alternatives() -> None:
    assert will_do("A100|V100", "V100")
    assert will_do("any", "T4")
    assert not will_do("A100", "A100-80GB")
    assert [rank_of("A100|V100", kind) for kind in ("A100", "V100")] == [0, 1]
    assert rank_of("any", "T4") == 0


@pytest.mark.parametrize(
    ("asked", "kind", "number", "ranks"),
    [
        (Resources(), "A100", 4, 4),
        (Resources(device_milli=300), "A100", 2, 6),
        (Resources(device_milli=300), "T4", 2, 6),
        (Resources(device_milli=300, sharing="mig"), "A100", 2, 4),
        (Resources(device_milli=300, sharing="mig"), "T4", 2, 0),
        (Resources(device_milli=100, sharing="time-slice"), "A100", 1, 10),
        (Resources(mig_profile="1g.5gb"), "A100", 1, 7),
        (Resources(mig_profile="1g.5gb"), "T4", 1, 0),
        (Resources(device_milli=300), "TPU-v4", 2, 0),
        (Resources(), "H100", 4, 0),
    ],
)
def test_how_many_ranks_empty_devices_hold(asked: Resources, kind: str, number: int, ranks: int) -> None:
    wanted = "A100" if kind == "H100" else "any"
    assert ranks_on_devices(asked, wanted, 1, kind, number) == ranks
