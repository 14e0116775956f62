"""Devices counted again one by one, parts included, for `checkers`; and whether one more rank would fit.

Theory: a plain book of each device: who holds all of it, how many thousandths are sliced off, which memory
slices MIG instances take. The geometry is looked up by name and laid out as sets of slices here.
"""

from collections.abc import Iterable
from typing import NamedTuple

from steersman.model.decisions import Placement
from steersman.model.mig import GEOMETRY
from steersman.model.snapshot import NodeState, WorkloadState


class Book(NamedTuple):
    """What is taken of one device."""

    kind: str
    whole: int = 0
    milli: int = 0
    slices: frozenset[int] = frozenset()
    compute: int = 0

    @property
    def empty(self) -> bool:
        return not (self.whole or self.milli or self.slices)


def is_part(placement: Placement) -> bool:
    return placement.device_milli < 1000 or placement.mig_profile != ""


def wants_part(state: WorkloadState) -> bool:
    asked = state.spec.resources
    return bool(asked.accelerators) and (asked.device_milli < 1000 or asked.mig_profile != "")


def books(node: NodeState, placements: Iterable[Placement]) -> dict[str, Book]:
    """The devices of a node after these leases. Fails on what no device could hold."""
    made: dict[str, Book] = {device.id: Book(device.kind) for device in node.node.devices}
    for placement in placements:
        for device in placement.devices:
            if device in made:
                made[device] = _after(made[device], placement)
    return made


def _after(book: Book, placement: Placement) -> Book:
    if not is_part(placement):
        assert book.empty, f"{placement.devices} are leased twice"
        return book._replace(whole=1)
    assert not book.whole, f"a part of {placement.devices}, which is leased whole"
    if not placement.mig_profile:
        assert not book.slices, f"{placement.devices} is shared in two modes"
        assert book.milli + placement.device_milli <= 1000, f"{placement.devices} is sliced beyond all of it"
        return book._replace(milli=book.milli + placement.device_milli)
    assert not book.milli, f"{placement.devices} is shared in two modes"
    (profile,) = [one for one in GEOMETRY[book.kind] if one.name == placement.mig_profile]
    slices = frozenset(range(placement.mig_start, placement.mig_start + profile.memory))
    assert placement.mig_start in profile.starts, f"{placement.mig_profile} at {placement.mig_start}"
    assert not slices & book.slices, f"two instances of {placement.devices} overlap"
    assert book.compute + profile.compute <= 7, f"{placement.devices} has no 8th compute slice"
    return book._replace(slices=book.slices | slices, compute=book.compute + profile.compute)


def part_fits(node: NodeState, made: dict[str, Book], state: WorkloadState) -> bool:
    """Whether one more rank that asks for a part has a device of the node for it."""
    asked = state.spec.resources
    ((wanted, _),) = asked.accelerators
    for device in node.node.devices:
        book = made[device.id]
        if book.whole or not (wanted == "any" or device.kind in wanted.split("|")):
            continue
        sliced = "time-slice" in device.sharing and asked.sharing != "mig" and not asked.mig_profile
        if sliced and not book.slices and book.milli + asked.device_milli <= 1000:
            return True
        cut = "mig" in device.sharing and asked.sharing != "time-slice" and not book.milli
        if cut and _instance_fits(book, asked.mig_profile, asked.device_milli):
            return True
    return False


def _instance_fits(book: Book, name: str, milli: int) -> bool:
    enough = [one for one in GEOMETRY[book.kind] if one.compute * 1000 // 7 >= milli <= one.memory * 125]
    chosen = [one for one in GEOMETRY[book.kind] if one.name == name] if name else enough[:1]
    return any(
        not book.slices & set(range(start, start + one.memory)) and book.compute + one.compute <= 7
        for one in chosen
        for start in one.starts
    )
