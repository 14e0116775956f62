"""What a program is told of the devices it leases."""

from steersman.hosting.devices import device_envs
from steersman.model.decisions import Placement
from steersman.model.ids import DeviceId, NodeId
from steersman.model.resources import Device


def devices(*kinds: str) -> tuple[Device, ...]:
    return tuple(Device(id=DeviceId(f"n/{at}"), kind=kind) for at, kind in enumerate(kinds))


def told(
    kinds: tuple[str, ...], *leased: int, milli: int = 1000, profile: str = "", start: int = 0
) -> dict[str, str]:
    placement = Placement(
        rank=0,
        node=NodeId("n"),
        cpu_milli=1000,
        memory_bytes=0,
        devices=tuple(DeviceId(f"n/{at}") for at in leased),
        device_milli=milli,
        mig_profile=profile,
        mig_start=start,
    )
    return dict(device_envs(devices(*kinds), placement))


def test_a_node_without_devices_says_nothing() -> None:
    assert told(()) == {}


def test_whole_gpus_are_named_by_their_numbers() -> None:
    assert told(("A100",) * 4, 1, 3) == {
        "STEERSMAN_DEVICES": "n/1,n/3",
        "CUDA_VISIBLE_DEVICES": "1,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_who_leases_none_sees_none() -> None:
    assert told(("A100", "MI300X", "TPU-v5e")) == {
        "STEERSMAN_DEVICES": "",
        "CUDA_VISIBLE_DEVICES": "",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HIP_VISIBLE_DEVICES": "",
        "TPU_VISIBLE_CHIPS": "",
    }


def test_each_make_is_counted_for_itself() -> None:
    found = told(("TPU-v5e", "A100", "TPU-v5e", "A100", "Inferentia2"), 2, 3, 4)
    assert (found["TPU_VISIBLE_CHIPS"], found["CUDA_VISIBLE_DEVICES"]) == ("1", "1")
    assert found["STEERSMAN_DEVICES"] == "n/2,n/3,n/4"
    assert len(found) == 4  # how Inferentia's runtime counts is not how we do


def test_a_share_is_told_as_a_fraction() -> None:
    found = told(("T4", "T4"), 1, milli=250)
    assert (found["CUDA_VISIBLE_DEVICES"], found["STEERSMAN_DEVICE_SHARE"]) == ("1", "0.25")


def test_an_instance_is_told_by_profile_and_place() -> None:
    """CUDA would take the device's number for its first instance, which may be another's."""
    found = told(("A100", "A100"), 1, profile="3g.20gb", start=4)
    assert found["STEERSMAN_MIG_INSTANCE"] == "3g.20gb@4"
    assert found["CUDA_VISIBLE_DEVICES"] == ""
