"""Gateways without a gateway: keeps what it is told and says what a test wants said."""

from steersman.ports.gateway import GatewayAddress, GatewayConfig, GatewayStats, ReplicaTarget


class SimGateways:
    """Implements `ports.gateway.Gateways`. `published` are all configurations, in order."""

    def __init__(self) -> None:
        self.published: list[GatewayConfig] = []
        self.stats: tuple[GatewayStats, ...] = ()

    def target(self, run: str) -> ReplicaTarget:
        """A name for it; nobody listens there."""
        return ReplicaTarget(run=run, socket=f"/{run}")

    def publish(self, config: GatewayConfig) -> None:
        """Keep it."""
        self.published.append(config)

    def observe(self, now_ms: int) -> tuple[GatewayStats, ...]:
        """What `stats` holds and is fresh enough."""
        return tuple(item for item in self.stats if now_ms - item.at_ms <= 3_000)

    def address(self) -> GatewayAddress | None:
        """Nowhere."""
        return None
