"""The control plane's side of the gateway's files, in the home of this machine."""

from pathlib import Path

import msgspec

from steersman.hosting import files, records
from steersman.model.errors import DriverError
from steersman.ports import run_dir
from steersman.ports.gateway import (
    ADDRESS_FILE,
    CONFIG_FILE,
    GATEWAY,
    STATS_PREFIX,
    STATS_STALE_MS,
    GatewayAddress,
    GatewayConfig,
    GatewayStats,
)


class LocalGateways:
    """The Gateways port over the folder ``gateway`` of a home."""

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._folder = self._home / GATEWAY

    def socket(self, run: str) -> str:
        """Where the replica of a run listens: its only rank's folder."""
        return str(self._home / run_dir.RUNS / run / "0" / run_dir.REPLICA_SOCKET)

    def publish(self, config: GatewayConfig) -> None:
        """Replace the configuration. Raises DriverError."""
        try:
            self._folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
            files.write_json(self._folder / CONFIG_FILE, msgspec.to_builtins(config))
        except OSError as error:
            raise DriverError(
                f"the gateway's configuration cannot be written: {error}",
                hint="free some space or mend the permissions of the home",
            ) from error

    def observe(self, now_ms: int) -> tuple[GatewayStats, ...]:
        """The figures of every gateway process that are fresh; what is damaged is not there."""
        found = []
        for path in sorted(self._folder.glob(f"{STATS_PREFIX}*.json")):
            try:
                stats = records.read(path, GatewayStats)
            except DriverError:
                continue
            if stats is not None and now_ms - stats.at_ms <= STATS_STALE_MS:
                found.append(stats)
        return tuple(found)

    def address(self) -> GatewayAddress | None:
        """Where the gateway listens; None when it does not, or its word is damaged."""
        try:
            return records.read(self._folder / ADDRESS_FILE, GatewayAddress)
        except DriverError:
            return None
