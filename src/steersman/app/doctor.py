"""What could stand in the way: checks of this machine and of a home, each with a hint.

The same checks answer `steer doctor` and the API. They change nothing that lasts: the disk is probed with a
file that has no name, limits with a control group, and the place for a home with a folder, both removed at
once. Of the journal the last EVENTS_READ_MAX events are read, compared with the chain and decoded, which is
what a start of the control plane does at most; how many were, is said.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from steersman.app.server_file import ServerFile, running_server
from steersman.app.settings import Settings, check_home
from steersman.app.versions import sqlite_version
from steersman.app.wire import CheckView, DoctorView
from steersman.dataplane.shim import cgroup
from steersman.journal.anchor import ANCHOR_NAME
from steersman.journal.connect import DATABASE_NAME, engine_is_safe
from steersman.journal.sqlite import SqliteJournal
from steersman.model.codec import decode_event
from steersman.model.errors import SteersmanError
from steersman.model.units import format_bytes

PYTHON_MIN = (3, 11)
FREE_BYTES_LOW = 1024**3
FREE_BYTES_LEAST = 64 * 1024**2
FSYNC_PROBES = 5
FSYNC_MS_SLOW = 50.0
EVENTS_READ_MAX = 200_000
"""Events of the journal that are read: about two seconds' worth."""
CLOCK_EARLIEST_S = 1_735_689_600
"""1 January 2025: a clock before that was never set."""


def examine(settings: Settings) -> DoctorView:
    """All checks, in order. Blocking: up to a second on a slow disk."""
    home, home_check = _home(settings.home)
    checks = [_python(), _sqlite(), _cgroup(), home_check]
    if home is not None:
        checks += [_fsync(home), _space(home), _journal(home)]
    checks += [_clock(), *_server(settings, usable=home is not None)]
    return DoctorView(checks=tuple(checks))


def _python() -> CheckView:
    words = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.version_info < PYTHON_MIN:
        return CheckView(name="python", state="problem", words=words, hint="use Python 3.11 or later")
    return CheckView(name="python", state="ok", words=words)


def _sqlite() -> CheckView:
    version = sqlite_version()
    if not engine_is_safe(version):
        return CheckView(
            name="sqlite",
            state="problem",
            words=f"{version} may lose a write-ahead log that is reset",
            hint="pip install --upgrade apsw-sqlite3mc",
        )
    return CheckView(name="sqlite", state="ok", words=version)


def _cgroup() -> CheckView:
    found = cgroup.machine_mounts()
    layout = "and".join(f" v{version} " for version in sorted({mount.version for mount in found})).strip()
    limits = cgroup.Limits(cpu_milli=1_000, memory_bytes=64 * 1024**2)
    group = cgroup.create(found, f"steersman.doctor.{os.getpid()}", limits)
    if group is None:
        return CheckView(
            name="limits",
            state="warning",
            words=f"control groups {layout or 'none'}, not writable: affinity and a watchdog hold jobs",
            hint="run as a user with a delegated control group to have hard limits",
        )
    group.remove()
    return CheckView(name="limits", state="ok", words=f"control groups v{group.version} (layout {layout})")


def _home(home: Path) -> tuple[Path | None, CheckView]:
    try:
        if not home.exists():
            _probe_place(home)
            words = f"{home} does not exist yet; `steer up` makes it"
            return None, CheckView(name="home", state="ok", words=words)
        check_home(home)
    except OSError as error:
        words = f"{home} does not exist and cannot be made: {error.strerror}"
        hint = "choose another with --home"
        return None, CheckView(name="home", state="problem", words=words, hint=hint)
    except SteersmanError as error:
        return None, CheckView(name="home", state="problem", words=error.message, hint=error.hint)
    return home, CheckView(name="home", state="ok", words=str(home))


def _probe_place(home: Path) -> None:
    """Make a folder where the home, or the first of its parents that is missing, would be. Raises OSError."""
    place = next(parent for parent in home.parents if parent.exists())
    with tempfile.TemporaryDirectory(prefix=".steersman-doctor-", dir=place):
        pass


def _journal(home: Path) -> CheckView:
    """The journal opens, its end is the one that was acknowledged last, and its events can be read."""
    if not any((home / name).exists() for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal", ANCHOR_NAME)):
        return CheckView(name="journal", state="ok", words="none yet; the first `steer up` makes it")
    try:
        reader = SqliteJournal.open_reader(home)
        try:
            head = reader.check_end()
            first = max(head.position - EVENTS_READ_MAX, 0)
            for record in reader.read(first):
                decode_event(record.type, record.version, record.body)
        finally:
            reader.close()
    except OSError as error:
        words = f"the journal of {home} cannot be read: {error.strerror}"
        return CheckView(name="journal", state="problem", words=words, hint="check the mode of its files")
    except SteersmanError as error:
        return CheckView(name="journal", state="problem", words=error.message, hint=error.hint)
    read = "all" if first == 0 else f"the last {EVENTS_READ_MAX:,}"
    words = f"{head.position} events, ends as acknowledged; read and compared with the chain: {read}"
    if first:
        words += " (`steer audit --verify` reads all of it)"
    return CheckView(name="journal", state="ok", words=words)


def _fsync(home: Path) -> CheckView:
    try:
        took_ms = _fsync_ms(home)
    except OSError as error:
        words = f"cannot write to {home}: {error.strerror}"
        return CheckView(name="disk sync", state="problem", words=words, hint="check the disk")
    words = f"{took_ms:.1f} ms (median of {FSYNC_PROBES})"
    if took_ms > FSYNC_MS_SLOW:
        hint = "every acknowledged change waits for it; put the home on a faster disk"
        return CheckView(name="disk sync", state="warning", words=words, hint=hint)
    return CheckView(name="disk sync", state="ok", words=words)


def _fsync_ms(home: Path) -> float:
    took = []
    with tempfile.TemporaryFile(dir=home) as file:
        for _ in range(FSYNC_PROBES):
            file.write(b"\0" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[FSYNC_PROBES // 2]


def _space(home: Path) -> CheckView:
    free = shutil.disk_usage(home).free
    words = f"{format_bytes(free)} free"
    if free < FREE_BYTES_LEAST:
        return CheckView(name="disk space", state="problem", words=words, hint="free some space")
    if free < FREE_BYTES_LOW:
        return CheckView(name="disk space", state="warning", words=words, hint="free some space soon")
    return CheckView(name="disk space", state="ok", words=words)


def _clock() -> CheckView:
    now_s = time.time()
    words = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if now_s < CLOCK_EARLIEST_S:
        return CheckView(name="clock", state="problem", words=words, hint="set the system's clock")
    return CheckView(name="clock", state="ok", words=words)


def _server(settings: Settings, *, usable: bool) -> list[CheckView]:
    server: ServerFile | None = None
    if usable:
        try:
            server = running_server(settings.server_file)
        except SteersmanError as error:
            return [CheckView(name="server", state="problem", words=error.message, hint=error.hint)]
    if server is None:
        return [CheckView(name="server", state="ok", words="not running; `steer up` starts it")]
    words = f"pid {server.pid}, epoch {server.epoch}"
    port = CheckView(name="port", state="ok", words=f"127.0.0.1:{server.port}")
    return [CheckView(name="server", state="ok", words=words), port]
