"""One gateway process: a loop, a front, an exchange, and a listening socket that it inherited.

Theory of operation. The worker looks at the configuration every CONFIG_LOOK_MS and writes its figures every
STATS_MS. It ends by SIGTERM, or when the master is gone: the master holds the other end of a pipe and writes
nothing into it. Ending means: accept no more, answer what is under way, say ``Connection: close``, and leave
within `Limits.drain_s`.
"""

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from steersman.dataplane.gateway.config_file import ConfigFile, replace
from steersman.dataplane.gateway.contract import Parts
from steersman.dataplane.gateway.http.acceptor import Acceptor
from steersman.dataplane.gateway.http.front import Front
from steersman.dataplane.gateway.http.limits import Limits
from steersman.dataplane.gateway.http.tls import Tls
from steersman.ports.gateway import CONFIG_LOOK_MS, GATEWAY, STATS_MS, STATS_PREFIX, GatewayStats

try:
    import uvloop
except ImportError:  # where it does not build
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

DRAIN_LOOK_S: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1

MakeParts = Callable[[asyncio.AbstractEventLoop, Path], Parts]


class Seat(NamedTuple):
    """What the master gives a worker."""

    home: Path
    process: int
    listener_descriptor: int
    master_pipe: int


class Worker:
    """See the module."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seat: Seat, make_parts: MakeParts, limits: Limits
    ) -> None:
        self._loop = loop
        self._seat = seat
        self._limits = limits
        self._tls = Tls()
        self._file = ConfigFile(seat.home)
        self._parts = make_parts(loop, seat.home)
        self._front = Front(loop, self._parts, limits)
        self._started_ms = time.time_ns() // 1_000_000
        self._stats_path = seat.home / GATEWAY / f"{STATS_PREFIX}{seat.process}.json"
        self._ending = asyncio.Event()
        self._look()
        self._acceptor = Acceptor(self._front, socket.socket(fileno=seat.listener_descriptor), self._tls)

    async def run(self) -> None:
        """Serve until told to end, then end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ending.set)
        self._loop.add_reader(self._seat.master_pipe, self._ending.set)
        looking = self._loop.create_task(self._keep_looking())
        telling = self._loop.create_task(self._keep_telling())
        await self._ending.wait()
        self._loop.remove_reader(self._seat.master_pipe)
        await self._drain()
        for task in (looking, telling):
            task.cancel()
        self._front.close()
        await self._parts.exchange.close()
        await asyncio.to_thread(self._parts.close)
        self._tell(ended=True)

    async def _drain(self) -> None:
        self._acceptor.close()
        await asyncio.sleep(0)  # what was in the backlog becomes connections
        self._front.drain()
        until = self._loop.time() + self._limits.drain_s
        while self._front.connections and self._loop.time() < until:  # noqa: ASYNC110 - bounded, and once a life
            await asyncio.sleep(DRAIN_LOOK_S)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(CONFIG_LOOK_MS / 1000)
            self._look()

    def _look(self) -> None:
        config = self._file.look()
        if config is not None:
            self._front.configure(config)
        if self._file.config is not None:
            self._tls.look(self._file.config.gateway)

    async def _keep_telling(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(STATS_MS / 1000)

    def _tell(self, *, ended: bool = False) -> None:
        config = self._file.config
        stats = GatewayStats(
            process=self._seat.process,
            pid=os.getpid(),
            started_ms=self._started_ms,
            at_ms=time.time_ns() // 1_000_000,
            cpu_us=time.process_time_ns() // 1_000,
            connections=self._front.connections,
            refused_connections=self._front.refused_connections,
            config_position=config.position if config is not None else 0,
            config_refused=self._file.refused + self._tls.refused,
            ended=ended,
            models=self._parts.exchange.models(),
        )
        replace(self._stats_path, msgspec.json.encode(stats))


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends, where it can; the pipe sees to the rest."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def run_worker(argv: list[str], make_parts: MakeParts, limits: Limits | None = None) -> None:
    """A worker's life: ``HOME PROCESS LISTENER PIPE MASTER_PID``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the master's to pass on
    die_with_parent(int(argv[4]))
    seat = Seat(Path(argv[0]), int(argv[1]), int(argv[2]), int(argv[3]))

    async def live() -> None:
        worker = Worker(asyncio.get_running_loop(), seat, make_parts, limits or Limits())
        gc.collect()
        gc.freeze()  # what was loaded stays: no collection need look at it while requests wait
        await worker.run()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(live())
