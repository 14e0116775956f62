"""Ray clusters that somebody else operates: one bridge process a cluster, and the mirror that it keeps.

Never in here: Ray itself (`steersman.dataplane.cluster` has it, in the bridge's process), and an effect that
does not go through the cluster's fence.
"""

from steersman.drivers.ray.driver import RayDriver, RaySettings

__all__ = ["RayDriver", "RaySettings"]
