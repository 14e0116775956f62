"""The one supervisor: runs the engine's tasks, and is the only place that may catch Exception.

A task that fails is reported and started again after a pause that doubles up to a cap. An operating error
(SteersmanError: a full disk, a driver that cannot see) may last as long as it will. Any other error is a
bug: a task that keeps having one without a quiet spell ends the process with it, for a control plane that
cannot go on must not look as if it did. The work it started goes on in either case.
"""

from collections.abc import Awaitable, Callable

from steersman.model.errors import SteersmanError
from steersman.ports.clock import Clock

PAUSE_MS_BASE = 200
PAUSE_MS_MAX = 10_000
BUGS_MAX = 8
QUIET_MS = 60_000

Report = Callable[[str, BaseException], None]


async def supervise(name: str, task: Callable[[], Awaitable[None]], clock: Clock, report: Report) -> None:
    """Run `task` until it returns, again when it fails. Raises the error of one that keeps failing."""
    failures = bugs = 0
    while True:
        began_ms = clock.now_ms()
        try:
            await task()
        except SteersmanError as error:
            report(name, error)
            failures = 1 if clock.now_ms() - began_ms > QUIET_MS else failures + 1
        except Exception as error:
            report(name, error)
            quiet = clock.now_ms() - began_ms > QUIET_MS
            failures, bugs = (1, 1) if quiet else (failures + 1, bugs + 1)
            if bugs >= BUGS_MAX:
                raise
        else:
            return
        await clock.sleep_ms(min(PAUSE_MS_BASE << min(failures, 16), PAUSE_MS_MAX))
