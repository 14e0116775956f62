"""NVIDIA's Multi-Instance GPU: which profiles a device has, and where their instances may lie.

Theory of operation. A device in MIG mode is cut into 8 memory slices, 7 of them with a compute slice. An
instance of a profile takes so many of each, from one of the few places where the hardware allows it to begin;
two instances never share a slice. Which instances still fit therefore depends on where the others lie, not
only on how much is free: after 1g at slice 2, no 3g fits into the first half.

Source: NVIDIA Multi-Instance GPU User Guide, "MIG device names, placements" (A30, A100, H100, H200). Media
extensions (``+me``) and graphics are not modelled.
"""

from collections.abc import Iterable
from typing import NamedTuple

MEMORY_SLICES = 8
COMPUTE_SLICES = 7


class Profile(NamedTuple):
    """One kind of instance: compute slices, memory slices, and the memory slices where it may begin."""

    name: str
    compute: int
    memory: int
    starts: tuple[int, ...]


Instance = tuple[str, int]
"""(profile, first memory slice)."""


def _table(gb: tuple[int, int, int, int]) -> tuple[Profile, ...]:
    """The profiles of a device whose instances of 1, 2, 4 and 8 memory slices have so many GB."""
    one, two, four, all_of_it = gb
    return (
        Profile(f"1g.{one}gb", 1, 1, (0, 1, 2, 3, 4, 5, 6)),
        Profile(f"1g.{two}gb", 1, 2, (0, 2, 4, 6)),
        Profile(f"2g.{two}gb", 2, 2, (0, 2, 4)),
        Profile(f"3g.{four}gb", 3, 4, (0, 4)),
        Profile(f"4g.{four}gb", 4, 4, (0,)),
        Profile(f"7g.{all_of_it}gb", 7, 8, (0,)),
    )


GEOMETRY: dict[str, tuple[Profile, ...]] = {
    "A100": _table((5, 10, 20, 40)),
    "A100-40GB": _table((5, 10, 20, 40)),
    "A100-80GB": _table((10, 20, 40, 80)),
    "H100": _table((10, 20, 40, 80)),
    "H100-80GB": _table((10, 20, 40, 80)),
    "H200": _table((18, 35, 71, 141)),
}
"""By kind of device. A100 without its memory is the one of 40 GB."""


def profiles_of(kind: str) -> tuple[Profile, ...]:
    """The profiles of a kind of device, the smallest first; none: it has no MIG."""
    return GEOMETRY.get(kind, ())


def profile_of(kind: str, name: str) -> Profile | None:
    """The profile of that name, if the kind has it."""
    return next((profile for profile in profiles_of(kind) if profile.name == name), None)


def memory_of(kind: str, name: str) -> int:
    """The memory slices of an instance; all of them when the kind has no such profile any more."""
    profile = profile_of(kind, name)
    return MEMORY_SLICES if profile is None else profile.memory


def smallest(kind: str, device_milli: int) -> Profile | None:
    """The smallest profile with at least this share of the device's compute and of its memory."""
    for profile in profiles_of(kind):
        if share_milli(profile) >= device_milli:
            return profile
    return None


def share_milli(profile: Profile) -> int:
    """Thousandths of a device that an instance is sure to have, of compute and of memory."""
    return min(profile.compute * 1000 // COMPUTE_SLICES, profile.memory * 1000 // MEMORY_SLICES)


def starts(kind: str, there: Iterable[Instance], profile: Profile) -> tuple[int, ...]:
    """Where another instance may begin beside those that are there."""
    taken, compute = 0, profile.compute
    for name, start in there:
        other = profile_of(kind, name)
        assert other is not None, (kind, name)
        taken |= _mask(other, start)
        compute += other.compute
    if compute > COMPUTE_SLICES:
        return ()
    return tuple(start for start in profile.starts if not taken & _mask(profile, start))


def _mask(profile: Profile, start: int) -> int:
    return ((1 << profile.memory) - 1) << start


def best_start(kind: str, there: tuple[Instance, ...], profile: Profile) -> int | None:
    """The place that leaves the most ways to place one more instance of any profile; the last of those.

    None: it does not fit.
    """

    def ways(start: int) -> int:
        after = (*there, (profile.name, start))
        return sum(other.memory * len(starts(kind, after, other)) for other in profiles_of(kind))

    return max(starts(kind, there, profile), key=lambda start: (ways(start), start), default=None)


def instances_max(kind: str, name: str, device_milli: int) -> int:
    """How many instances of a profile, or of the smallest with that share, an empty device can hold."""
    profile = profile_of(kind, name) if name else smallest(kind, device_milli)
    there: tuple[Instance, ...] = ()
    while profile is not None and (start := best_start(kind, there, profile)) is not None:
        there = (*there, (profile.name, start))
    return len(there)
