"""Talking to a home's control plane. The standard library's HTTP client, for it starts quickest.

One connection, used for one request after another. The token goes only to the very process that
``server.json`` names (see `server_file`), and only to loopback.
"""

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from steersman.app.server_file import ServerFile, running_server
from steersman.app.settings import Settings, check_home
from steersman.app.wire import BODY_BYTES_MAX, ErrorAnswer
from steersman.guard.token import load_token
from steersman.model.errors import AccessError, ConflictError, HomeError, SteersmanError

ADDRESS = "127.0.0.1"
TIMEOUT_SECONDS = 60.0
LIVE_TIMEOUT_SECONDS = 1.0
ANSWER_BYTES_MAX = 256 * 1024 * 1024

T = TypeVar("T")


class NoServerError(HomeError):
    """No control plane runs for this home."""

    code = "no-server"


def answers(port: int) -> bool:
    """Whether a server answers the open route there."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=LIVE_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def find_server(settings: Settings) -> ServerFile:
    """The home's server. Raises NoServerError, HomeError."""
    running = None
    if settings.home.exists():
        check_home(settings.home)
        running = running_server(settings.server_file)
    if running is None:
        raise NoServerError(
            f"no control plane runs for the home {settings.home}",
            hint="`steer up FILE` starts one, and so does `steer server`; or give another --home",
        )
    return running


class Client:
    """A connection to a control plane."""

    def __init__(self, home: Path, server: ServerFile) -> None:
        token = load_token(home)
        if token is None:
            raise AccessError(
                f"the token of {home} is missing",
                hint="stop the control plane and start it again; it makes a new one",
            )
        self._headers = {"Authorization": f"Bearer {token}"}
        self._connection = http.client.HTTPConnection(ADDRESS, server.port, timeout=TIMEOUT_SECONDS)

    def turn_to(self, server: ServerFile) -> None:
        """Go on with another control plane of the same home; the token is the home's."""
        self._connection.close()
        self._connection = http.client.HTTPConnection(ADDRESS, server.port, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str, answer: type[T], query: Mapping[str, str | int | None] | None = None) -> T:
        """The answer to a GET. Raises SteersmanError with the server's words."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self._request("GET", f"{path}?{urlencode(given)}" if given else path, None, answer)

    def post(self, path: str, body: msgspec.Struct | None, answer: type[T]) -> T:
        """The answer to a POST. Raises SteersmanError with the server's words."""
        data = b"" if body is None else msgspec.json.encode(body)
        if len(data) > BODY_BYTES_MAX:
            raise ConflictError(
                f"these declarations are {len(data)} bytes, and a submission has at most {BODY_BYTES_MAX}",
                hint="submit them in several steps",
                code="too-large",
            )
        return self._request("POST", path, data, answer)

    def _request(self, method: str, target: str, body: bytes | None, answer: type[T]) -> T:
        headers = {**self._headers, "Content-Type": "application/json"} if body else self._headers
        try:
            self._connection.request(method, target, body=body, headers=headers)
            # Closed here: a Ctrl-C in what its finalizer calls would be lost.
            with self._connection.getresponse() as response:
                data = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise _lost(error) from error
        if response.status != 200:
            raise _refused(response.status, data)
        try:
            return msgspec.json.decode(data, type=answer)
        except msgspec.DecodeError as error:
            raise SteersmanError(
                f"the control plane's answer cannot be read: {error}",
                hint="it runs another build: stop it and start it again",
                code="bad-answer",
            ) from error


def path(*parts: str) -> str:
    """A path of the API, each part quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _lost(error: Exception) -> SteersmanError:
    if isinstance(error, socket.timeout):
        words = f"the control plane did not answer within {TIMEOUT_SECONDS:.0f} s"
    else:
        words = f"the connection to the control plane was lost ({type(error).__name__})"
    return NoServerError(words, hint="what was acknowledged is safe; `steer doctor` tells whether it runs")


def _refused(status: int, data: bytes) -> SteersmanError:
    try:
        found = msgspec.json.decode(data, type=ErrorAnswer).error
    except msgspec.DecodeError:
        return SteersmanError(f"the control plane answered with status {status}", code="bad-answer")
    return SteersmanError(found.message, hint=found.hint, code=found.code)
