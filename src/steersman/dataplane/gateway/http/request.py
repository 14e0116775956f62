"""A request head, judged: what it asks for, who asks, and whether it may; before any of its body is read.

The order of the checks is the contract: what cannot be trusted as a message (400, 431, 414, 505), then what
is not meant for us (421, 403 by Origin), then who asks (401, 429), then what for (403 by scope, 404, 405),
then how (413, 415, 417, 400). A caller without a right to know therefore cannot tell a service that exists
from one that does not: without a valid key everything is 401, with a scoped key everything beyond its scope
is 403.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from steersman.dataplane.gateway.http import replies
from steersman.dataplane.gateway.http.hosts import Hosts, same_origin, well_formed
from steersman.dataplane.gateway.http.keys import Key
from steersman.dataplane.gateway.http.limits import Limits
from steersman.dataplane.gateway.http.replies import Refusal, invalid
from steersman.dataplane.gateway.http.routes import Route, Routes, service_of

KNOWN: Final[dict[bytes, str]] = {
    b"host": "host",
    b"authorization": "authorization",
    b"x-api-key": "api_key",
    b"content-length": "length",
    b"transfer-encoding": "transfer",
    b"content-encoding": "encoding",
    b"origin": "origin",
    b"expect": "expect",
    b"upgrade": "upgrade",
    b"x-request-timeout-ms": "timeout",
    b"x-priority": "priority",
    b"x-request-id": "id",
    b"traceparent": "trace",
    b"inference-header-content-length": "infer",
    b"x-http-method-override": "override",
    b"x-http-method": "override",
    b"x-method-override": "override",
}
"""Header fields that mean something here, by name; all others are read over."""

BANDS: Final = {b"low": 0, b"normal": 1, b"high": 2}
ANONYMOUS_BAND_MAX: Final = 1
_NUMBER: Final = re.compile(rb"[0-9]{1,10}")
_TRACE: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_TRACE_CHARS: Final = 55
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]+")
_TOKENS: Final = re.compile(rb"(?i)[?&;](access_token|api[-_]?key|x-api-key|auth|authorization|key|token)=")


class Head:
    """One judged request head. With a `refusal`, only `keep`, `bodiless` and `request_id` mean anything."""

    __slots__ = (
        "band",
        "bodiless",
        "chunked",
        "expects",
        "infer_bytes",
        "keep",
        "key",
        "length",
        "old",
        "plain",
        "refusal",
        "request_id",
        "route",
        "timeout_s",
        "trace",
    )

    def __init__(self) -> None:
        self.route: Route | None = None
        self.key: Key | None = None
        self.refusal: Refusal | None = None
        self.band = 1
        self.timeout_s = 0.0
        self.trace: str | None = None
        self.request_id: bytes | None = None
        self.infer_bytes: int | None = None
        self.length = 0
        self.chunked = False
        self.expects = False
        self.keep = False
        self.old = False  # HTTP/1.0
        self.bodiless = False
        self.plain = False  # the response needs nothing but its length


class RawHead(NamedTuple):
    """A head as the parser read it. `fields` has the known ones; `twice` says one of them came twice."""

    method: bytes
    url: bytes
    version: str
    keep: bool
    fields: Mapping[str, bytes]
    twice: bool
    fields_count: int
    size: int
    upgrades: bool


class Asker(Protocol):
    """What judging needs of the front and the connection."""

    limits: Limits
    routes: Routes

    def authenticate(self, fields: Mapping[str, bytes], address: str) -> Key | Refusal | None:
        """Who asks; None for a caller without a key where that is allowed."""
        ...


class Refused(Exception):
    """Ends the judging."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.error)
        self.refusal = refusal


def judge(raw: RawHead, asker: Asker, hosts: Hosts, address: str) -> Head:
    """The head of a request, accepted or refused."""
    head = Head()
    head.keep, head.old = raw.keep and raw.version == "1.1", raw.version != "1.1"
    head.bodiless = raw.method == b"HEAD"
    head.chunked, head.expects = "transfer" in raw.fields, "expect" in raw.fields
    head.length = int(raw.fields.get("length", b"0"))  # the parser let digits through, and few of them
    try:
        _sound(raw, asker.limits)
        _meant_for_us(raw, hosts)
        _identify(head, raw.fields, asker.limits)
        path, query, _ = raw.url.partition(b"?")
        if query or raw.url.endswith(b"?"):
            raise Refused(_no_query(raw.url))
        route = asker.routes.get(path)
        found = None if route is not None and route.open else asker.authenticate(raw.fields, address)
        _authorize(head, route, path, raw, found)
        _measure(head, raw)
        _options(head, raw.fields)
    except Refused as refused:
        head.refusal = refused.refusal
    head.plain = head.keep and head.request_id is None
    return head


def _sound(raw: RawHead, limits: Limits) -> None:
    """Whether it is one message that all readers understand alike."""
    if raw.fields_count > limits.fields_max or raw.size > limits.head_bytes_max:
        raise Refused(TOO_LARGE)
    if raw.version not in {"1.1", "1.0"}:
        raise Refused(invalid(505, "only HTTP/1.1 is spoken here", close=True))
    if raw.twice:
        raise Refused(invalid(400, "a header field that may come once came twice", close=True))
    if "host" not in raw.fields or not well_formed(raw.fields["host"]):
        raise Refused(invalid(400, "the Host header is missing or malformed", close=True))
    if raw.upgrades:
        raise Refused(invalid(400, "only HTTP/1.1 is spoken here", "send no Upgrade header", close=True))
    transfer = raw.fields.get("transfer")
    if transfer is not None and (transfer.lower() != b"chunked" or raw.version == "1.0"):
        raise Refused(invalid(400, "the only Transfer-Encoding is chunked, in HTTP/1.1", close=True))
    if raw.method in {b"TRACE", b"CONNECT"} or "override" in raw.fields:
        hint = "send the method itself" if "override" in raw.fields else ""
        raise Refused(invalid(405, "this method is not allowed", hint, close=True, allow=b"GET, POST"))


TOO_LARGE: Final = invalid(431, "the header is too large", "at most 100 fields and 16 KiB in all", close=True)
TOO_LONG: Final = invalid(414, "the URL is too long", "at most 8 KiB", close=True)


def _meant_for_us(raw: RawHead, hosts: Hosts) -> None:
    host = raw.fields["host"]
    if not hosts.allows(host):
        hint = "ask by the gateway's address, or add the name to `hosts` of its declaration"
        raise Refused(invalid(421, "this Host is not served here", hint, close=True))
    origin = raw.fields.get("origin")
    if origin is not None and not same_origin(origin, host):
        raise Refused(replies.CROSS_ORIGIN)


def _identify(head: Head, fields: Mapping[str, bytes], limits: Limits) -> None:
    given = fields.get("id")
    if given is None:
        return
    if len(given) > limits.request_id_chars_max or _VISIBLE.fullmatch(given) is None:
        hint = f"at most {limits.request_id_chars_max} visible ASCII characters"
        raise Refused(invalid(400, "X-Request-Id is malformed", hint))
    head.request_id = given


def _no_query(url: bytes) -> Refusal:
    if _TOKENS.search(url) is not None:
        hint = "a key in a URL ends in logs: send it in a header, and replace this one"
        return invalid(400, "API keys are not taken from the URL", hint)
    return invalid(400, "no path here takes a query")


def _authorize(
    head: Head, route: Route | None, path: bytes, raw: RawHead, found: Key | Refusal | None
) -> None:
    """Who asks and what for; `found` is who, or why not."""
    if isinstance(found, Refusal):
        raise Refused(found)
    head.key = found
    service = route.service if route is not None else service_of(path)
    if found is not None and service and not found.may_use(service):
        raise Refused(replies.FORBIDDEN)
    if route is None:
        raise Refused(NOT_FOUND)
    if raw.method != route.method:
        raise Refused(invalid(405, "this method is not allowed", allow=route.method))
    head.route = route


NOT_FOUND: Final = invalid(404, "there is nothing here", "`GET /v2/models/NAME` asks for a service by name")


def _measure(head: Head, raw: RawHead) -> None:
    """How much body comes, and in which form."""
    fields, route = raw.fields, head.route
    assert route is not None
    encoding = fields.get("encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise Refused(invalid(415, "compressed bodies are not taken", "send no Content-Encoding"))
    if head.length > route.body_bytes_max or (head.chunked and not route.body_bytes_max):
        raise Refused(too_big(route))
    expect = fields.get("expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Refused(invalid(417, "the only expectation met is 100-continue"))


def too_big(route: Route) -> Refusal:
    """The refusal of a body beyond the service's limit."""
    return invalid(413, "the body is too large", f"at most {route.body_bytes_max} bytes", close=True)


def _options(head: Head, fields: Mapping[str, bytes]) -> None:
    assert head.route is not None
    head.timeout_s = head.route.timeout_s
    timeout = fields.get("timeout")
    if timeout is not None:
        if _NUMBER.fullmatch(timeout) is None or int(timeout) < 1:
            raise Refused(invalid(400, "X-Request-Timeout-Ms is not a whole number of milliseconds above 0"))
        head.timeout_s = min(head.timeout_s, int(timeout) / 1000)
    highest = ANONYMOUS_BAND_MAX if head.key is None else head.key.priority_max
    band = BANDS.get(fields.get("priority", b"normal").lower())
    if band is None:
        raise Refused(invalid(400, "X-Priority is none of low, normal, high"))
    head.band = min(band, highest)
    infer = fields.get("infer")
    if infer is not None:
        if _NUMBER.fullmatch(infer) is None:
            raise Refused(invalid(400, "Inference-Header-Content-Length is not a number of bytes"))
        head.infer_bytes = int(infer)
    trace = fields.get("trace")
    if trace is not None and _trace_valid(trace):
        head.trace = trace[:_TRACE_CHARS].decode("ascii")


def _trace_valid(trace: bytes) -> bool:
    """W3C: version 00 is exactly 55 characters; later ones may go on after a dash."""
    match = _TRACE.fullmatch(trace)
    return match is not None and (match.group(1) is None or not trace.startswith(b"00"))
