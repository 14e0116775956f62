"""Starting a server that outlives its starter: a session of its own, its output in the home's log.

The new process is the same program with the verb `server`. It has a session of its own, so that neither
Ctrl-C nor the end of the terminal reaches it. It is ready when ``server.json`` names a living process and the
open route answers. When two are started at one moment, one loses the race for the journal's lock and ends;
both starters then find the winner.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from steersman.app.client import answers
from steersman.app.server_file import ServerFile, running_server
from steersman.app.settings import SERVER_LOG_OLD, Settings, prepare_home
from steersman.model.errors import HomeError

START_SECONDS_MAX = 120.0
"""A start reads the journal; without a state image that takes about a second for 100,000 events."""
RIVAL_SECONDS = 5.0
"""How long to look for another server after ours ended."""
POLL_SECONDS = 0.02
SAY_SECONDS = 2.0
LOG_BYTES_MAX = 4 * 1024 * 1024
"""A log that has grown beyond this is set aside at the next start."""
TAIL_BYTES = 4_096


def ensure_server(settings: Settings, environ: Mapping[str, str], say: Callable[[str], None]) -> ServerFile:
    """The home's server; started in the background when there is none. Raises SteersmanError."""
    prepare_home(settings.home)
    running = running_server(settings.server_file)
    if running is not None and answers(running.port):
        return running
    return _start(settings, environ, say)


def _start(settings: Settings, environ: Mapping[str, str], say: Callable[[str], None]) -> ServerFile:
    _set_aside(settings.server_log)
    argv = [sys.executable, "-P", "-m", "steersman.app.cli", "server", "--home", str(settings.home)]
    argv += ["--port", str(settings.port)]
    with _open_log(settings.server_log) as log:
        began_at = log.tell()
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=dict(environ),
            start_new_session=True,
        )
    return _wait(settings, child, began_at, say)


def _wait(
    settings: Settings, child: "subprocess.Popen[bytes]", began_at: int, say: Callable[[str], None]
) -> ServerFile:
    began = time.monotonic()
    deadline = began + START_SECONDS_MAX
    said = ended = False
    while (now := time.monotonic()) < deadline:
        running = running_server(settings.server_file)
        if running is not None and answers(running.port):
            return running
        if not ended and child.poll() is not None:
            ended, deadline = True, min(deadline, now + _patience(settings.server_log, began_at))
        if not said and now - began > SAY_SECONDS:
            said = True
            say("starting the control plane: reading the journal")
        time.sleep(POLL_SECONDS)
    raise _failed(settings.server_log, began_at, ended=ended)


def _patience(log: Path, began_at: int) -> float:
    """Only a start that lost the race for the home has a rival to wait for."""
    return RIVAL_SECONDS if "another control plane" in _tail(log, began_at) else 0.0


def _failed(log: Path, began_at: int, *, ended: bool) -> HomeError:
    if not ended:
        return HomeError(
            f"the control plane did not answer within {START_SECONDS_MAX:.0f} s of its start",
            hint=f"its log tells more: {log}",
        )
    lines = _tail(log, began_at).strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    why = errors[-1] if errors else (lines[-1] if lines else "it said nothing")
    hint = hints[-1] if errors and hints else f"its log tells more: {log}"
    return HomeError(f"the control plane did not start: {why}", hint=hint)


def _tail(log: Path, began_at: int) -> str:
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(began_at, end - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _open_log(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise HomeError(f"cannot write {path}: {error.strerror}", hint="check the disk") from error
    file = os.fdopen(descriptor, "ab")
    file.seek(0, os.SEEK_END)
    return file


def _set_aside(log: Path) -> None:
    try:
        if log.stat().st_size > LOG_BYTES_MAX:
            log.rename(log.with_name(SERVER_LOG_OLD))
    except FileNotFoundError:
        return
