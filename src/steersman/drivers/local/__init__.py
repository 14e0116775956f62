"""This machine's processes: one shim per rank, reached through files in the home.

Never in here: signals to a program (the shim alone knows what is its own), environment or arguments of
this process, and a secret in any file.
"""

from steersman.drivers.local.driver import LocalDriver
from steersman.drivers.local.gateways import LocalGateways
from steersman.drivers.local.spawn import LocalSettings

__all__ = ["LocalDriver", "LocalGateways", "LocalSettings"]
