"""Amounts of capacity, as integers: millicores, bytes, devices by kind and thousandths of them.

A kind that is asked for may name alternatives: ``A100|H100``, in the order of preference in which they were
written, or `ANY_KIND`. How a part of a device is made is its sharing mode:

    whole       all of it, for one rank
    time-slice  ranks take turns on it; neither memory nor faults are kept apart
    mig         a part with memory, bandwidth and faults of its own (NVIDIA's Multi-Instance GPU); see `mig`
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from steersman.model.ids import DeviceId

WHOLE_MILLI = 1000
ANY_KIND = "any"
ALTERNATIVES = "|"

SharingMode = Literal["time-slice", "mig"]
Sharing = Literal["auto", "time-slice", "mig"]
"""What is asked for: a mode, or that the system chooses."""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator of a node. `kind` is the field's name for it: ``A100``, ``H100``, ``TPU-v5e``.

    `sharing`: how it may be shared; empty: whole only.
    """

    id: DeviceId
    kind: str
    sharing: tuple[SharingMode, ...] = ("time-slice",)


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """An amount asked for or held. `accelerators` is sorted by kind and holds only positive counts.

    `device_milli`: how much of each device, in thousandths; less than all of it means one device.
    `mig_profile`: a MIG instance instead, as ``3g.20gb``. `infra`: where it must be, as ``local``, ``ray`` or
    ``ray/gpu``; empty: anywhere.
    """

    cpu_milli: int = 0
    memory_bytes: int = 0
    accelerators: tuple[tuple[str, int], ...] = ()
    device_milli: int = WHOLE_MILLI
    sharing: Sharing = "auto"
    mig_profile: str = ""
    infra: str = ""


def count_kinds(devices: Iterable[Device]) -> tuple[tuple[str, int], ...]:
    """How many devices of each kind, sorted by kind."""
    counts: dict[str, int] = {}
    for device in devices:
        counts[device.kind] = counts.get(device.kind, 0) + 1
    return tuple(sorted(counts.items()))
