"""The local driver: the port's five verbs over blocking work in a bounded number of threads.

Nothing is held in memory that cannot be read again from the home, so any number of drivers, one after the
other, see the same ranks. Errors of the file system become DriverError here and nowhere else.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from steersman.drivers.local import spawn
from steersman.drivers.local.doorbell import Doorbell
from steersman.drivers.local.spawn import NAME, LocalSettings, rank_dir
from steersman.hosting import claim, files
from steersman.hosting.discard import discard
from steersman.hosting.report import Scanner, Sight
from steersman.model.errors import DriverError
from steersman.ports.driver import RankKey, RankReport, StartOrder, StopOrder

THREADS_MAX = 8

T = TypeVar("T")


class LocalDriver:
    """Ranks as processes of this machine."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = replace(settings, home=settings.home.absolute())
        self._threads = asyncio.Semaphore(THREADS_MAX)
        self._one_scan = asyncio.Lock()
        shims = self._settings.shims
        sight = Sight(
            driver=NAME,
            alive=lambda _key, folder: files.shim_lives(folder),
            conclude=lambda _key, folder: claim.conclude(shims, folder),
        )
        self._scanner = Scanner(self._settings.home, sight)
        self._doorbell = Doorbell(self._settings.home)

    @property
    def name(self) -> str:
        """The name that a node's `driver` field uses."""
        return NAME

    async def start(self, order: StartOrder) -> None:
        """Begin one rank or find it. Raises DriverError."""
        await self._ordered(order.key, lambda: spawn.start(self._settings, order))

    async def stop(self, order: StopOrder) -> None:
        """Ask for the end of one rank. Raises DriverError."""
        await self._ordered(order.key, lambda: spawn.stop(self._settings, order))

    async def set_checkpoint_interval(self, key: RankKey, epoch: int, interval_ms: int) -> None:
        """Leave a new interval for the trainer. Raises DriverError."""
        await self._ordered(key, lambda: spawn.set_interval(self._settings, key, epoch, interval_ms))

    async def discard(self, key: RankKey) -> None:
        """Forget an ended rank. Raises DriverError when it has not ended."""
        await self._ordered(
            key, lambda: discard(rank_dir(self._settings.home, key), self._settings.failpoint)
        )

    async def observe(self) -> Sequence[RankReport]:
        """Every rank of the home. A rank whose shim was killed is ended and reported as ``lost``."""
        async with self._one_scan:
            return await self._in_thread(self._scanner.scan)

    async def wait_changed(self, timeout_ms: int) -> None:
        """Return when a shim or trainer has rung, or after the timeout."""
        await self._doorbell.wait(timeout_ms)

    def close(self) -> None:
        """Let go of the doorbell; the ranks live on."""
        self._doorbell.close()

    async def _ordered(self, key: RankKey, work: Callable[[], None]) -> None:
        try:
            await self._in_thread(work)
        finally:
            self._scanner.touch(key)
            self._doorbell.ring()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        async with self._threads:
            try:
                return await asyncio.to_thread(work)
            except OSError as error:
                raise DriverError(
                    f"the home {self._settings.home} cannot be used: {error}",
                    hint="free some space or mend its permissions; nothing was left half-done",
                ) from error
