"""Asking a control plane that may be killed and come back while one waits.

Theory of operation. A verb that waits only asks, again and again; nothing is lost when an answer does not
come, for the journal keeps what was acknowledged and positions and places in logs mean the same to the next
control plane of the home. So when the connection is lost, ``server.json`` is read again until it names a
control plane that answers, and the question is put to that one. Only questions are repeated: a request that
changes something is put once, by `Client.post`, and whether it was received is for the person to see.
"""

import time
from collections.abc import Mapping
from typing import TypeVar

from steersman.app.cli.say import note
from steersman.app.client import Client, NoServerError, find_server
from steersman.app.settings import Settings

RECONNECT_SECONDS_MAX = 30.0
"""How long a verb that waits looks for a control plane that is gone."""
POLL_SECONDS = 0.2

T = TypeVar("T")


class ServerLostError(NoServerError):
    """The control plane went away while something was waited for, and did not come back."""

    code = "server-lost"


class PatientClient:
    """Questions to a home's control plane, and to the one that takes its place."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        self._client = client

    def get(self, path: str, answer: type[T], query: Mapping[str, str | int | None] | None = None) -> T:
        """The answer to a GET. Raises ServerLostError, and SteersmanError with the server's words."""
        deadline: float | None = None
        while True:
            try:
                return self._client.get(path, answer, query)
            except NoServerError as error:
                if deadline is None:
                    deadline = time.monotonic() + RECONNECT_SECONDS_MAX
                    note(
                        f"{error.message}; looking for it for up to {RECONNECT_SECONDS_MAX:.0f} s "
                        "(work goes on without it)"
                    )
                self._find(deadline, error)

    def _find(self, deadline: float, first: NoServerError) -> None:
        """Turn to the home's control plane once there is one; ServerLostError when the time is up."""
        while True:
            time.sleep(POLL_SECONDS)
            if time.monotonic() > deadline:
                raise ServerLostError(first.message, hint=first.hint) from first
            try:
                self._client.turn_to(find_server(self._settings))
            except NoServerError:
                continue
            return
