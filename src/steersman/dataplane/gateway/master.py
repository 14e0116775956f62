"""The master of a gateway: holds the sockets, keeps a worker on each, and says where it listens.

Theory of operation. One thread, one loop of a few steps every LOOK_S; it never reads a request. Workers are
spawned processes that inherit one socket and the reading end of a pipe. A worker that dies is replaced at
once, on the same socket, whose backlog waits meanwhile; one that dies within QUICK_S of its start is replaced
after a back-off that doubles up to BACKOFF_S_MAX. When address or port change in the configuration, the new
sockets are bound first, then the old workers drain. A change of `workers` adds or drains the difference; what
waits in the backlog of a socket that goes is lost. TLS is the workers' own affair.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from steersman.dataplane.gateway import sockets
from steersman.dataplane.gateway.config_file import ConfigFile, replace
from steersman.dataplane.gateway.http.limits import Limits
from steersman.model.service import Gateway
from steersman.ports.gateway import ADDRESS_FILE, GATEWAY, STATS_PREFIX, GatewayAddress

LOOK_S: Final = 0.05
QUICK_S: Final = 1.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.1, 5.0
GRACE_S: Final = 2.0
"""Beyond a worker's own limit on draining, before it is killed."""


class Desk:
    """One socket and the worker on it."""

    def __init__(self, process: int, listener: socket.socket) -> None:
        self.process = process
        self.listener = listener
        self.worker: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.not_before = 0.0
        self.backoff_s = 0.0

    def ended(self, now: float) -> None:
        """Its worker is gone: when may the next begin?"""
        quick = now - self.started < QUICK_S
        self.backoff_s = min(max(2 * self.backoff_s, BACKOFF_S_MIN), BACKOFF_S_MAX) if quick else 0.0
        self.not_before = now + self.backoff_s
        self.worker = None


class Master:
    """See the module. `command` begins a worker; HOME PROCESS LISTENER PIPE MASTER_PID are added to it."""

    def __init__(self, home: Path, command: list[str], drain_s: float) -> None:
        self._home = home
        self._command = command
        self._drain_s = drain_s
        self._file = ConfigFile(home)
        self._gateway: Gateway | None = None
        self._desks: list[Desk] = []
        self._leaving: list[tuple[subprocess.Popen[bytes], float]] = []
        self._next_process = 0
        self._ending = False
        self._pipe_read, self._pipe_write = os.pipe()

    def run(self) -> None:
        """Keep the gateway up until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        for old in (self._home / GATEWAY).glob(f"{STATS_PREFIX}*.json"):
            old.unlink(missing_ok=True)  # of an earlier life
        try:
            while not self._ending:
                config = self._file.look()
                if config is not None:
                    self._follow(config.gateway)
                self._tend(time.monotonic())
                time.sleep(LOOK_S)
        finally:
            self._close()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    def _follow(self, gateway: Gateway) -> None:
        """Bring sockets and workers to what the configuration says."""
        before, self._gateway = self._gateway, gateway
        workers = max(gateway.workers, 1)
        try:
            if before is None or (before.address, before.port) != (gateway.address, gateway.port):
                self._move(sockets.listen(gateway.address, gateway.port, workers))
            else:
                self._resize(workers)
        except OSError as error:
            _say(f"cannot listen on {gateway.address} port {gateway.port}: {error.strerror}; nothing changes")
            self._gateway = before
        self._tend(time.monotonic())
        self._tell()

    def _move(self, listeners: list[socket.socket]) -> None:
        for desk in self._desks:
            self._dismiss(desk)
        self._desks = [self._desk(listener) for listener in listeners]
        address, port = listeners[0].getsockname()[:2]
        _say(f"the gateway listens on {address} port {port}")

    def _resize(self, workers: int) -> None:
        while len(self._desks) > workers:
            self._dismiss(self._desks.pop())
        listeners = [desk.listener for desk in self._desks]
        sockets.more(listeners, workers)
        self._desks += [self._desk(listener) for listener in listeners[len(self._desks) :]]

    def _desk(self, listener: socket.socket) -> Desk:
        self._next_process += 1
        return Desk(self._next_process - 1, listener)

    def _tell(self) -> None:
        if not self._desks or self._gateway is None:
            return
        address, port = self._desks[0].listener.getsockname()[:2]
        tls = self._gateway.certificate is not None
        told = GatewayAddress(address=address, port=port, tls=tls, pid=os.getpid())
        if not replace(self._home / GATEWAY / ADDRESS_FILE, msgspec.json.encode(told)):
            _say("cannot write where the gateway listens: is the disk full?")

    def _tend(self, now: float) -> None:
        """See who died, and put a worker on every free socket."""
        for desk in self._desks:
            if desk.worker is not None and desk.worker.poll() is not None:
                _say(f"gateway process {desk.process} ended ({desk.worker.returncode}); a new one begins")
                desk.ended(now)
            if desk.worker is None and now >= desk.not_before:
                self._spawn(desk, now)
        for leaving in list(self._leaving):
            worker, until = leaving
            if worker.poll() is not None:
                self._leaving.remove(leaving)
            elif now >= until:
                worker.kill()

    def _spawn(self, desk: Desk, now: float) -> None:
        descriptor = desk.listener.fileno()
        arguments = [str(self._home), str(desk.process), str(descriptor), str(self._pipe_read)]
        desk.started = now
        try:
            desk.worker = subprocess.Popen(
                [*self._command, *arguments, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=(descriptor, self._pipe_read),
            )
        except OSError as error:
            _say(f"cannot begin a gateway process: {error.strerror}")
            desk.ended(now)

    def _dismiss(self, desk: Desk) -> None:
        """Let a worker drain, and hold its socket no more."""
        if desk.worker is not None:
            with contextlib.suppress(ProcessLookupError):
                desk.worker.terminate()
            self._leaving.append((desk.worker, time.monotonic() + self._drain_s + GRACE_S))
        desk.listener.close()

    def _close(self) -> None:
        for desk in self._desks:
            self._dismiss(desk)
        for worker, until in self._leaving:
            try:
                worker.wait(max(until - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        os.close(self._pipe_write)
        os.close(self._pipe_read)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def run_master(home: Path, command: list[str], limits: Limits | None = None) -> None:
    """A gateway's life. `command` begins a worker."""
    (home / GATEWAY).mkdir(mode=0o700, parents=True, exist_ok=True)
    Master(home, command, (limits or Limits()).drain_s).run()
