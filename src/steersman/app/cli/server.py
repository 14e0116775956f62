"""`steer server`: run the control plane here, in the background, or end it."""

import contextlib
import os
import signal
import time
from typing import Annotated

import typer

from steersman.app.background import ensure_server
from steersman.app.cli import load
from steersman.app.cli.options import Home, Json, settings_of
from steersman.app.cli.say import note, say, say_json
from steersman.app.client import NoServerError, find_server
from steersman.app.machine import process_start
from steersman.app.server_file import ServerFile
from steersman.app.settings import PORT_MAX, Settings
from steersman.model.errors import HomeError

STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02

app = typer.Typer(add_completion=False)

Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=PORT_MAX,
        help="Where to listen on loopback; 0 is any free port. Else $STEERSMAN_PORT, else 8470.",
        show_default=False,
    ),
]
Background = Annotated[bool, typer.Option("--background", help="Start it in the background and return.")]
Stop = Annotated[bool, typer.Option("--stop", help="End the running one; work goes on without it.")]


@app.command()
def server(
    *,
    port: Port = None,
    background: Background = False,
    stop: Stop = False,
    json: Json = False,
    home: Home = None,
) -> int:
    """Run the control plane in the foreground until Ctrl-C; work goes on without it.

    A port that is taken is replaced by a free one.
    """
    settings = settings_of(home, port)
    if stop:
        _stop(settings, as_json=json)
    elif background:
        before = _running(settings)
        running = ensure_server(settings, os.environ, note)
        _say(settings, running, as_json=json, ran_before=running == before)
    else:
        load("foreground").run(settings, lambda running: _say(settings, running, as_json=json))
        note("the control plane has ended; work goes on without it")
    return 0


def _say(settings: Settings, running: ServerFile, *, as_json: bool, ran_before: bool = False) -> None:
    if as_json:
        say_json(running)
        return
    if settings.port not in {0, running.port}:
        why = "the control plane runs already" if ran_before else f"port {settings.port} is taken"
        note(f"{why}; listening on {running.port}")
    say(f"control plane of {settings.home}: http://127.0.0.1:{running.port}, pid {running.pid}")


def _running(settings: Settings) -> ServerFile | None:
    try:
        return find_server(settings)
    except NoServerError:
        return None


def _stop(settings: Settings, *, as_json: bool) -> None:
    """Ask for an end and wait for it; none that runs is what was wanted. Raises HomeError."""
    running = _running(settings)
    if running is None:
        if as_json:
            say_json(None)
        else:
            say(f"no control plane runs for the home {settings.home}")
        return
    with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
        os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while process_start(running.pid) == running.pid_start:
        if time.monotonic() > deadline:
            raise HomeError(
                f"the control plane (pid {running.pid}) has not ended within {STOP_SECONDS_MAX:.0f} s",
                hint=f"its log tells more: {settings.server_log}",
            )
        time.sleep(POLL_SECONDS)
    if as_json:
        say_json(running)
    else:
        say(f"the control plane (pid {running.pid}) has ended; work goes on without it")
