"""Amounts of capacity, as integers: millicores, bytes, whole devices by kind."""

from collections.abc import Iterable

import msgspec

from steersman.model.ids import DeviceId


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator of a node. `kind` is the field's name for it: ``A100``, ``H100``, ``TPU-v5e``."""

    id: DeviceId
    kind: str


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """An amount asked for or held. `accelerators` is sorted by kind and holds only positive counts."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    accelerators: tuple[tuple[str, int], ...] = ()


def count_kinds(devices: Iterable[Device]) -> tuple[tuple[str, int], ...]:
    """How many devices of each kind, sorted by kind."""
    counts: dict[str, int] = {}
    for device in devices:
        counts[device.kind] = counts.get(device.kind, 0) + 1
    return tuple(sorted(counts.items()))
