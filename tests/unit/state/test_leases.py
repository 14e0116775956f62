"""Leases of devices and of parts of them: what is refused, and what a fleet declared anew makes of them."""

import pytest
from msgspec.structs import replace
from tests.scenarios.home import GIB, Home, fleet, job, node

from steersman.model.decisions import Placement
from steersman.model.events import FleetDeclared
from steersman.model.ids import DeviceId, NodeId
from steersman.model.packing import Packing, PackingUpdate
from steersman.model.resources import Device, Resources
from steersman.model.snapshot import NodeState
from steersman.state.lease import with_lease, without_lease
from steersman.state.packing import update


def lease(milli: int = 1000, profile: str = "", start: int = 0, device: str = "a/0") -> Placement:
    return Placement(
        rank=0,
        node=NodeId("a"),
        cpu_milli=0,
        memory_bytes=0,
        devices=(DeviceId(device),),
        device_milli=milli,
        mig_profile=profile,
        mig_start=start,
    )


def after(*leases: Placement) -> NodeState:
    state: NodeState | None = Home(fleet(node("a", devices=["A100"]))).snapshot.nodes["a"]
    for each in leases:
        assert state is not None
        state = with_lease(state, each)
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("there", "more"),
    [
        (lease(), lease()),
        (lease(), lease(500)),
        (lease(500), lease()),
        (lease(500), lease(501)),
        (lease(500), lease(100, "1g.5gb")),
        (lease(1000, "1g.5gb"), lease(100)),
        (lease(1000, "3g.20gb"), lease(1000, "3g.20gb")),
        (lease(1000, "3g.20gb"), lease(1000, "9g.99gb", 4)),
    ],
)
def test_what_is_taken_is_not_given_twice(there: Placement, more: Placement) -> None:
    assert with_lease(after(there), more) is None


def test_what_is_given_back_is_whole_again() -> None:
    fresh = after()
    both = after(lease(300), lease(700))
    assert without_lease(without_lease(both, lease(300)), lease(700)) == fresh
    instances = after(lease(1000, "3g.20gb"), lease(1000, "3g.20gb", 4))
    assert without_lease(without_lease(instances, lease(1000, "3g.20gb", 4)), lease(1000, "3g.20gb")) == fresh


def test_a_device_that_left_stays_away() -> None:
    held = after(lease(300))
    gone = replace(held, node=replace(held.node, devices=()), shares=())
    assert without_lease(gone, lease(300)).free_devices == ()
    assert without_lease(after(), lease(300)) == after(), "it is another device by now, and free"


def test_an_instance_on_a_device_of_another_kind_holds_nothing_of_it() -> None:
    """The device was replaced under its name; what ran on the old one ends in its own time."""
    home = Home(fleet(node("a", cores=8, devices=["A100"])))
    amount = Resources(cpu_milli=1_000, memory_bytes=GIB, accelerators=(("A100", 1),), mig_profile="1g.5gb")
    home.up(replace(job("old"), resources=amount))
    other: FleetDeclared = fleet(node("a", cores=8, devices=["T4"]))
    home.cycle(other)
    assert home.snapshot.nodes["a"].free_devices == ("a/0",)
    home.begin("old")
    home.end("old")
    assert home.snapshot.nodes["a"].free_devices == ("a/0",)
    assert (
        Device(id=DeviceId("a/0"), kind="T4", sharing=("time-slice",))
        in home.snapshot.nodes["a"].node.devices
    )


def test_prices_alone_leave_the_basis() -> None:
    before = Packing(arrived=9, since_price=200)
    priced = update(before, PackingUpdate(learned=False, prices=(("A100", 7),)))
    assert priced == Packing(arrived=9, prices=(("A100", 7),))
