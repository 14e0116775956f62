"""Responses as bytes, most of them made before they are needed.

A refusal says what happened in stable words (`error`), a stable code, and what to do (`hint`). It never says
what an exception said, where something lies or which process it was. `Date` and `Server` are not sent, nor is
any header that lets another origin read the answer.
"""

from math import ceil
from typing import Final

import msgspec

from steersman.ports.gateway import Outcome

REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
JSON: Final = b"application/json"
BINARY: Final = b"application/octet-stream"
EVENTS: Final = b"text/event-stream"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Final = b"connection: close\r\n"
RETRY_AFTER_S: Final = 1.0

JSON_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
"""The head of most responses, up to the number."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A request that gets no answer. `close`: the connection cannot be used after it."""

    status: int
    outcome: Outcome
    error: str
    hint: str = ""
    code: str = ""
    retry_after_s: float | None = None
    allow: bytes = b""
    close: bool = False


CODES: Final = {404: "not-found", 405: "method-not-allowed", 421: "misdirected"}
"""Stable codes of mistakes that a program may want to tell apart; of all others it is the outcome."""

_HINTS: Final = {
    404: "the paths are POST /predict/NAME, POST /v2/models/NAME/infer, GET /v2/models/NAME, "
    "GET /v2/models/NAME/ready, GET /v2/health/live, GET /v2/health/ready and GET /v2",
    408: "send the whole request at once, or on a faster connection",
    413: "`service.max_body` of a declaration is how much its requests may hold; a GET holds nothing",
    417: "send no Expect header, or `Expect: 100-continue`",
    505: "send HTTP/1.1",
}
"""What to do, by status, beside what whoever refuses knows better."""


def invalid(status: int, error: str, hint: str = "", *, close: bool = False, allow: bytes = b"") -> Refusal:
    """The caller's mistake."""
    methods = f"ask with {allow.decode().replace(', ', ' or ')}" if allow else ""
    return Refusal(
        status=status,
        outcome="invalid",
        code=CODES.get(status, ""),
        error=error,
        hint="; ".join(part for part in (hint, _HINTS.get(status, ""), methods) if part),
        close=close,
        allow=allow,
    )


UNAUTHORIZED: Final = Refusal(
    status=401,
    outcome="unauthorized",
    error="no valid API key",
    hint="send `Authorization: Bearer KEY` or `X-API-Key: KEY`",
)
FORBIDDEN: Final = Refusal(
    status=403,
    outcome="unauthorized",
    error="this API key may not use this service",
    hint="use a key whose services name it",
)
CROSS_ORIGIN: Final = Refusal(
    status=403,
    outcome="invalid",
    error="requests from another origin are not answered",
    hint="serve the page from the gateway's own host, or call the gateway from your server",
)

_OUTCOMES: Final[dict[Outcome, Refusal]] = {
    "invalid": invalid(400, "the request is not valid"),
    "unauthorized": UNAUTHORIZED,
    "rate-limited": Refusal(
        status=429,
        outcome="rate-limited",
        error="this API key is over its limit",
        hint="wait as long as Retry-After says",
    ),
    "queue-full": Refusal(
        status=429,
        outcome="queue-full",
        error="too many requests wait for this service",
        hint="wait as long as Retry-After says",
    ),
    "no-replica": Refusal(
        status=503,
        outcome="no-replica",
        error="no replica of this service is ready",
        hint="try again; `steer status` says what it waits for",
    ),
    "deadline": Refusal(
        status=503,
        outcome="deadline",
        error="the request could not be answered before its deadline",
        hint="try again, or allow it more time with X-Request-Timeout-Ms",
    ),
    "timeout": Refusal(
        status=504,
        outcome="timeout",
        error="the model did not answer in time",
        hint="allow it more time with X-Request-Timeout-Ms, within the service's timeout",
    ),
    "model-error": Refusal(
        status=500,
        outcome="model-error",
        error="the model failed on this request",
        hint="`steer logs` of the service says why",
    ),
    "replica-lost": Refusal(
        status=502,
        outcome="replica-lost",
        error="the replica was lost while it answered",
        hint="try again",
    ),
    "client-gone": Refusal(status=503, outcome="client-gone", error="the request was given up"),
}


def refusal_of(outcome: Outcome, retry_after_s: float | None = None) -> Refusal:
    """The refusal that stands for an outcome other than ``ok``; 429 and 503 always say when to come again."""
    refusal = _OUTCOMES.get(outcome, _OUTCOMES["model-error"])
    if refusal.status in {429, 503}:
        return msgspec.structs.replace(refusal, retry_after_s=retry_after_s or RETRY_AFTER_S)
    return refusal


def error_body(refusal: Refusal, request_id: bytes | None) -> bytes:
    """The JSON of a refusal."""
    body = {"error": refusal.error, "code": refusal.code or refusal.outcome, "hint": refusal.hint}
    if request_id is not None:
        body["id"] = request_id.decode("ascii")
    return msgspec.json.encode(body)


def head(status: int, content_type: bytes, extra: bytes, length: int | None) -> bytes:
    """A response head; without a length the caller has put the framing into `extra`."""
    size = b"" if length is None else b"content-length: %d\r\n" % length
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b%b\r\n" % (
        status,
        REASONS.get(status, "Error").encode(),
        content_type,
        extra,
        size,
    )


def identity(request_id: bytes | None, *, keep: bool) -> bytes:
    """The header lines that depend on the request; the id was checked when it came in."""
    given = b"" if request_id is None else b"x-request-id: %b\r\n" % request_id
    return given if keep else given + CLOSE


def refusal_bytes(refusal: Refusal, request_id: bytes | None, *, keep: bool, bodiless: bool = False) -> bytes:
    """A whole refusal; `bodiless` for HEAD."""
    extra = identity(request_id, keep=keep and not refusal.close)
    if refusal.retry_after_s is not None:
        extra += b"retry-after: %d\r\n" % max(ceil(refusal.retry_after_s), 1)
    if refusal.allow:
        extra += b"allow: %b\r\n" % refusal.allow
    if refusal.status == 401:
        extra += b"www-authenticate: Bearer\r\n"
    body = error_body(refusal, request_id)
    start = head(refusal.status, JSON, extra, len(body))
    return start if bodiless else start + body


def event(name: bytes, data: bytes) -> bytes:
    """One Server-Sent Event; the data may have several lines."""
    lines = b"".join(b"data: %b\n" % line for line in data.splitlines() or [b""])
    return b"event: %b\n%b\n" % (name, lines) if name else lines + b"\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
