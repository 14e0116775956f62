"""The control plane's side of the gateway's files, in the home of this machine.

Where a replica listens: on the socket in its run's folder, unless its ``ready.json``, written here or
mirrored from the machine that it runs on, has an address. What was read once is remembered, for a replica
writes it once. With the first such replica the gateway gets its certificate, and `keep` renews it in time.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from steersman.hosting import files, records
from steersman.model.errors import DriverError, SteersmanError
from steersman.ports import peers, run_dir
from steersman.ports.gateway import (
    ADDRESS_FILE,
    CONFIG_FILE,
    GATEWAY,
    STATS_PREFIX,
    STATS_STALE_MS,
    GatewayAddress,
    GatewayConfig,
    GatewayStats,
    ReplicaTarget,
)

REMEMBERED_MAX = 10_000
"""Runs whose address is remembered; beyond it all are read again."""


class LocalGateways:
    """The Gateways port over the folder ``gateway`` of a home."""

    def __init__(self, home: Path, keep: Callable[[], None] = lambda: None) -> None:
        self._home = home.absolute()
        self._folder = self._home / GATEWAY
        self._keep = keep
        self._addresses: dict[str, str] = {}
        self._trouble: SteersmanError | None = None  # with the gateway's certificate

    def target(self, run: str) -> ReplicaTarget:
        """Where the replica of a run listens: its only rank's folder, or the address it says there."""
        folder = self._home / run_dir.RUNS / run / "0"
        address = self._addresses.get(run)
        if address is None:
            address = self._read_address(run, folder)
        if not address:
            return ReplicaTarget(run=run, socket=str(folder / run_dir.REPLICA_SOCKET))
        try:
            self._keep()
            self._trouble = None
        except SteersmanError as error:  # told by `publish`: other services' replicas need no certificate
            self._trouble = error
        return ReplicaTarget(run=run, address=address)

    def _read_address(self, run: str, folder: Path) -> str:
        try:
            ready = records.read(folder / run_dir.READY, records.Ready)
        except DriverError:  # damaged
            return ""
        if ready is None:
            return ""
        if len(self._addresses) >= REMEMBERED_MAX:
            self._addresses.clear()
        address = ready.address if peers.split_address(ready.address) else ""
        self._addresses[run] = address
        return address

    def publish(self, config: GatewayConfig) -> None:
        """Replace the configuration.

        Raises DriverError, also when it was replaced and the gateway's certificate could not be made.
        """
        try:
            self._folder.mkdir(mode=files.DIR_MODE, parents=True, exist_ok=True)
            files.write_json(self._folder / CONFIG_FILE, msgspec.to_builtins(config))
        except OSError as error:
            raise DriverError(
                f"the gateway's configuration cannot be written: {error}",
                hint="free some space or mend the permissions of the home",
            ) from error
        if self._trouble is not None:
            raise DriverError(
                f"the gateway cannot reach replicas on other machines: {self._trouble.message}",
                hint=self._trouble.hint,
            ) from self._trouble

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
