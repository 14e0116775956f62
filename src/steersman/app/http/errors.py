"""Errors as the API says them: ``{"error": {"code", "message", "hint"}}`` and a status that fits.

An error nobody foresaw is told as such, without its inner words, and written to the server's log.
"""

import logging
import re
from typing import Any

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from steersman.app.wire import BODY_BYTES_MAX, ErrorAnswer, ErrorBody
from steersman.model.errors import (
    AccessError,
    ConflictError,
    JournalError,
    JournalWriteError,
    SpecError,
    SteersmanError,
)
from steersman.model.units import format_bytes

STATUS_OF_CODE = {
    "unknown-workload": 404,
    "unknown-run": 404,
    "unknown-service": 404,
    "unknown-key": 404,
    "not-run-yet": 404,
    "bad-name": 400,
    "bad-offset": 400,
    "bad-request": 400,
    "unknown-type": 400,
    "busy": 503,
}
"""By the error's stable code; the rest by its class."""

STATUS_OF_CLASS: tuple[tuple[type[SteersmanError], int], ...] = (
    (SpecError, 422),
    (AccessError, 403),
    (ConflictError, 409),
    (JournalWriteError, 507),
    (JournalError, 503),
)

CODE_OF_STATUS = {
    400: "bad-request",
    401: "access",
    404: "unknown-route",
    405: "unknown-method",
    413: "too-large",
    415: "bad-request",
}

_log = logging.getLogger("steersman.api")

_encoder = msgspec.json.Encoder()


def error_answer(code: str, message: str, hint: str = "") -> bytes:
    """The body of an error."""
    return _encoder.encode(ErrorAnswer(error=ErrorBody(code=code, message=message, hint=hint)))


def status_of(error: SteersmanError) -> int:
    """The HTTP status of an error of ours."""
    if error.code in STATUS_OF_CODE:
        return STATUS_OF_CODE[error.code]
    return next((status for kind, status in STATUS_OF_CLASS if isinstance(error, kind)), 500)


def on_steersman(_: Request[Any, Any, Any], error: SteersmanError) -> Response[bytes]:
    """What was foreseen: its own words."""
    where = ""
    if isinstance(error, SpecError):
        place = ":".join(str(part) for part in (error.source, error.line) if part)
        where = ": ".join(part for part in (place, error.path) if part)
    message = f"{where}: {error.message}" if where and where not in error.message else error.message
    return _answer(status_of(error), error.code, message, error.hint)


def on_http(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What Litestar refused: routes, methods, bodies, parameters."""
    status = error.status_code
    if status >= 500:
        return on_unforeseen(_, error)
    message, code = error.detail, CODE_OF_STATUS.get(status, "bad-request")
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        message = "; ".join(_words(item) for item in error.extra) or message
    if status == 404:
        message = "there is no such route"
    return _answer(status, code, message, _HINTS.get(status, ""), dict(error.headers or {}))


_HINTS = {
    400: "the API is described at /schema/openapi.json",
    404: "the API is described at /schema/openapi.json",
    405: "the API is described at /schema/openapi.json",
    413: f"a request may hold {format_bytes(BODY_BYTES_MAX)}, and no setting changes that: "
    "declare in several requests",
}

_LENGTH = re.compile(r"Expected `(array|str)` of length ([<>])= ([0-9]+)")


def on_nested(_: Request[Any, Any, Any], __: RecursionError) -> Response[bytes]:
    """Only a body can be nested so deeply: the JSON decoder gives up on it, as it should."""
    return _answer(400, CODE_OF_STATUS[400], "the body is nested too deeply", _HINTS[400])


def on_unforeseen(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours."""
    _log.error("a request failed", exc_info=error)
    return _answer(
        500, "internal", "the control plane failed at this request", "its log tells more: server.log"
    )


def _words(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    words = ": ".join(str(item[key]) for key in ("source", "key", "message") if item.get(key))
    return _LENGTH.sub(_length_words, words)


def _length_words(match: re.Match[str]) -> str:
    """A limit of the decoder's in plain words: ``expected at least 1 value``."""
    kind, sign, count = match.groups()
    unit = ("value" if kind == "array" else "character") + ("" if count == "1" else "s")
    return f"expected at {'least' if sign == '>' else 'most'} {count} {unit}"


def _answer(
    status: int, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None
) -> Response[bytes]:
    kept = {name: value for name, value in (headers or {}).items() if name.lower() == "allow"}
    return Response(
        error_answer(code, message, hint), status_code=status, media_type=MediaType.JSON, headers=kept
    )
