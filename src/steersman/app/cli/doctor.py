"""`steer doctor`: what could stand in the way, and what to do about it."""

import typer

from steersman.app.cli.options import Home, Json, settings_of
from steersman.app.cli.say import note, say, say_json
from steersman.app.client import answers
from steersman.app.doctor import examine
from steersman.app.server_file import running_server
from steersman.app.wire import CheckView, DoctorView

PROBLEM = 1
SIGNS = {"ok": "ok", "warning": "warn", "problem": "FAIL"}

app = typer.Typer(add_completion=False)


@app.command()
def doctor(*, json: Json = False, home: Home = None) -> int:
    """Check this machine and the home. Exits 1 when something stands in the way."""
    settings = settings_of(home)
    found = examine(settings)
    if all(check.state != "problem" or check.name != "server" for check in found.checks):
        running = running_server(settings.server_file) if settings.server_file.exists() else None
        if running is not None and not answers(running.port):
            silent = CheckView(
                name="api",
                state="problem",
                words=f"the control plane (pid {running.pid}) does not answer",
                hint=f"its log tells more: {settings.server_log}",
            )
            found = DoctorView(checks=(*found.checks, silent))
    if json:
        say_json(found)
    else:
        _say(found)
    return PROBLEM if any(check.state == "problem" for check in found.checks) else 0


def _say(found: DoctorView) -> None:
    width = max(len(check.name) for check in found.checks)
    for check in found.checks:
        say(f"{SIGNS[check.state]:<4}  {check.name:<{width}}  {check.words}")
        if check.hint:
            note(f"hint: {check.hint}")
