"""The shim's life: setup, run, and the end of the tree, in one thread around one `poll`.

It wakes for output, for a byte in the control FIFO, for SIGCHLD, and once a second to read ``stop.json``
again (a doorbell may be lost, a file is not). Each phase goes: fork behind the gate → limits → durable
``started.json`` → open the gate → loop until no descendant is left.

Ends of a tree, all by one deadline: a stop sends SIGTERM to the program's process group and sets the deadline
to now + grace; a later stop can only bring it closer. When the program itself has ended, what it left behind
gets SIGTERM and STRAY_SECONDS, or what is left of a stop's grace, for a shell may end before the trainer it
started has saved. At the deadline everything is killed, again and again, until nothing is left: an end is
recorded when it is proven.

A rank on a machine that can be cut off from its cluster hangs on a lifeline: a pipe on which whoever hosts it
writes for as long as the cluster answers there. When nothing came for so long, or the other end is closed,
all of it is killed and ``lost``: elsewhere it may be begun again from then on. The time is the shim's own,
and counts what the machine slept through.
"""

# ruff: noqa: PTH116, PTH118 - pathlib costs every shim 3 ms and 0.5 MB

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from steersman.dataplane.shim import files, procs, program
from steersman.dataplane.shim.logs import LogWriter
from steersman.dataplane.shim.tree import WATCHDOG_SECONDS, Tree
from steersman.ports import run_dir

POLL_SECONDS = 1.0
ENDING_POLL_SECONDS = 0.05
KILL_POLL_SECONDS = 0.01
STRAY_SECONDS = 1.0
READ_BYTES_MAX = 32 * 1024
DRAIN_READS_MAX = 64
"""Reads of output in one turn, so that a chatty program cannot keep a stop waiting."""


class Lifeline(NamedTuple):
    """The reading end of a pipe, and how long it may be silent."""

    descriptor: int
    silent_ms_max: int


class Ended(NamedTuple):
    """How a phase ended; `status` None: the program never began."""

    status: int | None
    detail: str = ""


class Supervisor:
    """One rank. `announce` is called once, when the first phase's record is durable."""

    def __init__(
        self,
        order: Mapping[str, Any],
        env: Mapping[str, str],
        tree: Tree,
        announce: Callable[[], None],
        lifeline: Lifeline | None = None,
    ) -> None:
        self._order, self._env, self._tree, self._announce = order, env, tree, announce
        self._lifeline = lifeline
        self._cut = ""
        self._heard_at = _awake_or_asleep()
        self._dir: str = order["rank_dir"]
        self._deadline: float | None = None
        self._stop_seen: tuple[int, int] | None = None
        self._stop_wanted = False
        self.stop_delivered = False
        self._begun = False
        self._killing = False
        self._next_poll = 0.0
        self._main = 0
        self._status: int | None = None
        self._log = LogWriter(os.path.join(self._dir, run_dir.LOGS, run_dir.LOG_FILE))
        self._open_channels()

    def _open_channels(self) -> None:
        control = os.path.join(self._dir, run_dir.CONTROL)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(control, 0o600)
        # Both ends open, so that no writer's leaving reads as end-of-file.
        self._control = os.open(control, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._output, self._output_write = os.pipe()
        self._wake, self._wake_write = os.pipe()
        for descriptor in (self._output, self._wake, self._wake_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)  # a handler, not SIG_IGN, which the program would inherit
        self._poll = select.poll()
        for descriptor in (self._control, self._output, self._wake):
            self._poll.register(descriptor, select.POLLIN)
        if self._lifeline is not None:
            os.set_blocking(self._lifeline.descriptor, False)
            self._poll.register(self._lifeline.descriptor, select.POLLIN)

    def run(self) -> dict[str, Any]:
        """Setup, then run; what ``exit.json`` shall say, without its time and artifacts."""
        try:
            if self._order["setup"] is not None:
                ended = self._phase("setup", self._order["setup"])
                if ended.status != 0:
                    return self._record(ended, "setup-failed")
            return self._record(self._phase("run", self._order["command"]), "exited")
        finally:
            self._log.close()
            signal.set_wakeup_fd(-1)
            for descriptor in (self._control, self._output, self._output_write, self._wake, self._wake_write):
                os.close(descriptor)

    def _record(self, ended: Ended, cause: str) -> dict[str, Any]:
        code = None if ended.status is None else os.waitstatus_to_exitcode(ended.status)
        if code is None:
            cause = "start-failed"
        elif code != 0 and self._tree.ran_out_of_memory():
            cause = "memory"
        elif code != 0 and self._cut:
            code, cause = None, "lost"
        elif self.stop_delivered or self._stop_wanted:
            cause = "exited"
        return {
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "cause": cause,
            "detail": ended.detail or (self._cut if cause == "lost" else ""),
            "stop_delivered": self.stop_delivered,
        }

    def _phase(self, phase: str, script: str) -> Ended:
        self._read_stop()
        self._read_lifeline()
        if self._cut:
            return Ended(None, self._cut)
        if self._stop_wanted:
            self.stop_delivered = True
            return Ended(None, "stopped before the program began")
        # The setup command is the user's own, and a replica's certificate is not for it.
        hidden = run_dir.REPLICA_SECRETS if phase == "setup" else ()
        env = {name: value for name, value in self._env.items() if name not in hidden}
        try:
            child = program.fork(script, env, self._order["workdir"], self._output_write)
        except OSError as failure:
            return Ended(None, f"no process could be made: {failure.strerror}")
        self._main, self._status = child.pid, None
        self._tree.hold(child.pid)
        try:
            self._write_started(phase)
        except OSError as failure:
            if not self._begun:
                raise  # nothing is on record and nothing has run: the spawner is told and may try again
            os.close(child.gate)
            self._loop()
            return Ended(None, f"the start could not be recorded: {failure.strerror}")
        self._begun = True
        self._announce()
        problem = program.release(child)
        self._loop()
        assert self._status is not None, "the loop ends when the program has been reaped"
        return Ended(None, problem) if problem else Ended(self._status)

    def _write_started(self, phase: str) -> None:
        record = {
            "pid": self._main,
            "pid_start": procs.start_time(self._main),
            "boot_id": procs.boot_id(),
            "nonce": self._env[run_dir.ENV_NONCE],
            "shim_pid": os.getpid(),
            "at_ms": files.now_ms(),
            "limits": self._tree.limits,
            "phase": phase,
            "cgroups": list(self._tree.folders),
        }
        files.write_json(os.path.join(self._dir, run_dir.STARTED), record)
        files.ring(self._order["home"])

    def _loop(self) -> None:
        while True:
            self._poll.poll(self._timeout_ms())
            self._drain(self._wake)
            rung = self._drain(self._control)
            self._drain_output(DRAIN_READS_MAX)
            alone = self._reap()
            if self._status is not None and alone:
                break
            if rung or time.monotonic() >= self._next_poll:
                self._read_stop()
            self._advance()
        self._deadline, self._killing = None, False
        self._drain_output(None)

    def _timeout_ms(self) -> float:
        if self._killing:
            return KILL_POLL_SECONDS * 1000
        wait = WATCHDOG_SECONDS if self._tree.watched else POLL_SECONDS
        if self._status is not None:
            wait = ENDING_POLL_SECONDS
        if self._deadline is not None:
            wait = min(wait, max(self._deadline - time.monotonic(), 0.0))
        if self._lifeline is not None and not self._cut:
            wait = min(wait, max(self._silent_at() - _awake_or_asleep(), 0.0))
        return wait * 1000

    def _reap(self) -> bool:
        """Collect the dead; True when no descendant is left: an orphan would have become our child."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._main:
                self._status = status
                self._main_ended()

    def _main_ended(self) -> None:
        """The program is gone; what it left behind is asked to go too."""
        self._tree.terminate(spare_group=self._main if self.stop_delivered else None)
        if self._deadline is None:
            self._deadline = time.monotonic() + STRAY_SECONDS

    def _read_stop(self) -> None:
        """Take notice of a stop that is new, and not from before this rank's order."""
        self._next_poll = time.monotonic() + POLL_SECONDS
        path = os.path.join(self._dir, run_dir.STOP)
        try:
            status = os.stat(path)
        except OSError:
            return
        seen = (status.st_ino, status.st_mtime_ns)
        stop = files.read_json(path)
        if seen == self._stop_seen or stop is None or int(stop["epoch"]) < int(self._order["epoch"]):
            return
        self._stop_seen, self._stop_wanted = seen, True
        deadline = time.monotonic() + max(int(stop["grace_ms"]), 0) / 1000
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        if self._main and self._status is None and not self.stop_delivered:
            self.stop_delivered = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._main, signal.SIGTERM)

    def _advance(self) -> None:
        """Enforce what time and memory demand."""
        self._tree.watch()
        self._read_lifeline()
        overdue = self._deadline is not None and time.monotonic() >= self._deadline
        if overdue or self._cut or self._tree.over_memory:
            self._killing = True
        if self._killing:
            self._tree.kill()

    def _silent_at(self) -> float:
        """When the lifeline has been silent for too long."""
        assert self._lifeline is not None
        return self._heard_at + self._lifeline.silent_ms_max / 1000

    def _read_lifeline(self) -> None:
        """Whether whoever hosts this rank is there and reaches its cluster; without one, never asked."""
        if self._lifeline is None or self._cut:
            return
        try:
            while data := os.read(self._lifeline.descriptor, READ_BYTES_MAX):
                self._heard_at = _awake_or_asleep()
        except BlockingIOError:
            data = b"?"
        if not data:
            self._cut = "whoever hosted it on its node is gone; it was ended there"
        elif _awake_or_asleep() >= self._silent_at():
            seconds = self._lifeline.silent_ms_max // 1000
            self._cut = f"its node was cut off from the cluster for {seconds} s; it was ended there"
        if self._cut:
            self._poll.unregister(self._lifeline.descriptor)
            os.close(self._lifeline.descriptor)

    def _drain(self, descriptor: int) -> bool:
        try:
            return bool(os.read(descriptor, READ_BYTES_MAX))
        except BlockingIOError:
            return False

    def _drain_output(self, reads_max: int | None) -> None:
        reads = 0
        while reads_max is None or reads < reads_max:
            try:
                data = os.read(self._output, READ_BYTES_MAX)
            except BlockingIOError:
                return
            self._log.feed(data)
            reads += 1


def _awake_or_asleep() -> float:
    """Seconds that pass while the machine is suspended, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _ignore(_number: int, _frame: object) -> None:
    """The wake-up descriptor carries the news; signals to the shim itself change nothing."""
