"""Kinds of accelerators: which type of device a name stands for, and how it can be shared.

A GPU may be shared by time slices, and by MIG where its kind has it. TPUs, Inferentia and Trainium chips, and
FPGAs are handed out whole: their runtimes take a device for one process.
"""

import re
from typing import Literal

from steersman.model.mig import instances_max, profiles_of
from steersman.model.resources import ALTERNATIVES, ANY_KIND, WHOLE_MILLI, Resources, SharingMode

DeviceType = Literal["gpu", "tpu", "neuron", "fpga"]

_TYPES: tuple[tuple[DeviceType, re.Pattern[str]], ...] = (
    ("tpu", re.compile(r"tpu\b|tpu[-_]", re.IGNORECASE)),
    ("neuron", re.compile(r"(inferentia|trainium|inf|trn)[0-9]*\b", re.IGNORECASE)),
    ("fpga", re.compile(r"(fpga|alveo|stratix|versal)\b|alveo[-_]", re.IGNORECASE)),
)


def type_of(kind: str) -> DeviceType:
    """The type of device that a kind is; what no other type knows is a GPU."""
    return next((name for name, pattern in _TYPES if pattern.match(kind)), "gpu")


def modes_of(kind: str) -> tuple[SharingMode, ...]:
    """The ways in which devices of a kind can be shared; none: whole only."""
    if type_of(kind) != "gpu":
        return ()
    return ("time-slice", "mig") if profiles_of(kind) else ("time-slice",)


def will_do(asked: str, kind: str) -> bool:
    """Whether a device of a kind is among those asked for."""
    return asked in (kind, ANY_KIND) or (ALTERNATIVES in asked and kind in asked.split(ALTERNATIVES))


def rank_of(asked: str, kind: str) -> int:
    """Its place in the order of preference in which alternatives were written."""
    return asked.split(ALTERNATIVES).index(kind) if ALTERNATIVES in asked else 0


def ranks_on_devices(asked: Resources, asked_kind: str, count: int, kind: str, number: int) -> int:
    """How many ranks so many empty devices of a kind could hold, each asking for `count` of `asked_kind`."""
    if not will_do(asked_kind, kind):
        return 0
    if asked.device_milli == WHOLE_MILLI and not asked.mig_profile:
        return number // count
    modes, most = modes_of(kind), 0
    if "time-slice" in modes and asked.sharing != "mig" and not asked.mig_profile:
        most = WHOLE_MILLI // asked.device_milli
    if "mig" in modes and asked.sharing != "time-slice":
        most = max(most, instances_max(kind, asked.mig_profile, asked.device_milli))
    return number * most
