"""Telling a program which accelerators are its own, by the variables that their runtimes obey.

A device is named to a runtime by its number among the node's devices of that make, so they are counted in the
order of the fleet's declaration. A program that leases none on a node that has some sees none. A MIG instance
has a name of its own that only the node's driver knows: the program is told its profile and place, and sees
no device until it sets that name itself.
"""

import re
from collections.abc import Sequence

from steersman.model.decisions import Placement
from steersman.model.devices import type_of
from steersman.model.resources import WHOLE_MILLI, Device

DEVICES = "STEERSMAN_DEVICES"
DEVICE_SHARE = "STEERSMAN_DEVICE_SHARE"
MIG_INSTANCE = "STEERSMAN_MIG_INSTANCE"

_AMD = re.compile(r"(MI[0-9]|Radeon)", re.IGNORECASE)
_NVIDIA = "CUDA_VISIBLE_DEVICES"


def _variable(kind: str) -> str:
    """What the kind's runtime reads; empty: it counts something else than devices, or nothing."""
    match type_of(kind):
        case "gpu":
            return "HIP_VISIBLE_DEVICES" if _AMD.match(kind) else _NVIDIA
        case "tpu":
            return "TPU_VISIBLE_CHIPS"
        case _:
            return ""


def device_envs(devices: Sequence[Device], placement: Placement) -> tuple[tuple[str, str], ...]:
    """Variables for a rank placed so on a node with these devices; none where the node has none."""
    if not devices:
        return ()
    envs = {DEVICES: ",".join(placement.devices)}
    counted: dict[str, int] = {}
    for device in devices:
        variable = _variable(device.kind)
        number = counted[variable] = counted.get(variable, -1) + 1
        seen = envs.setdefault(variable, "")
        if device.id in placement.devices and not placement.mig_profile:
            envs[variable] = f"{seen},{number}" if seen else str(number)
    envs.pop("", None)
    if _NVIDIA in envs:
        envs["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts; else the fastest is the first
    if placement.mig_profile:
        envs[MIG_INSTANCE] = f"{placement.mig_profile}@{placement.mig_start}"
    elif placement.device_milli < WHOLE_MILLI:
        envs[DEVICE_SHARE] = f"{placement.device_milli / WHOLE_MILLI:g}"
    return tuple(envs.items())
