"""Bytes to requests: the strict parser (llhttp) and what is collected from its callbacks.

Theory of operation. llhttp runs without any of its leniencies: it refuses Content-Length beside
Transfer-Encoding, two lengths, folded lines, bare CR or LF, a space before the colon and malformed chunks.
What it lets through and we do not is refused in `request`. Callbacks never raise; once the connection has
stopped the reader, they do nothing. Trailer fields of a chunked body mean nothing and are only counted.
"""

from enum import IntEnum
from typing import Final, Protocol

from httptools import HttpRequestParser

from steersman.dataplane.gateway.http.limits import Limits
from steersman.dataplane.gateway.http.replies import Refusal, invalid
from steersman.dataplane.gateway.http.request import KNOWN, TOO_LARGE, TOO_LONG, Head, RawHead

_READ_OVER: Final = (b"accept", b"accept-encoding", b"connection", b"content-type", b"user-agent")
_SPELT: Final[dict[bytes, str]] = {
    **dict.fromkeys((*_READ_OVER, *map(bytes.title, _READ_OVER)), ""),
    **KNOWN,
    **{name.title(): known for name, known in KNOWN.items()},
}
"""Names as clients mostly spell them; any other is lowered first."""
OVERHEAD: Final = invalid(400, "the chunks of the body are mostly not content", close=True)


class Stage(IntEnum):
    """What the next byte belongs to."""

    BETWEEN = 0
    HEAD = 1
    BODY = 2


class Sink(Protocol):
    """Who gets the requests."""

    def judge(self, raw: RawHead) -> Head: ...

    def head_came(self, head: Head) -> None: ...

    def request_came(self, head: Head, body: bytes) -> None: ...

    def broken(self, refusal: Refusal) -> None: ...

    def body_too_big(self, head: Head) -> None: ...


class Reader:
    """The protocol object of one parser."""

    __slots__ = (
        "_body",
        "_count",
        "_fields",
        "_limits",
        "_parser",
        "_sink",
        "_size",
        "_twice",
        "_url",
        "body_size",
        "feed",
        "head",
        "raw_size",
        "stage",
        "stopped",
    )

    def __init__(self, sink: Sink, limits: Limits) -> None:
        self._sink = sink
        self._limits = limits
        self.stopped = False
        self.stage = Stage.BETWEEN
        self.head: Head | None = None
        self._begin()
        self._parser = HttpRequestParser(self)
        self.feed = self._parser.feed_data

    def _begin(self) -> None:
        self._url = b""
        self._fields: dict[str, bytes] = {}
        self._twice = False
        self._count = self._size = self.body_size = self.raw_size = 0
        self._body: bytes | bytearray = b""

    def partial(self, size: int) -> None:
        """So many bytes came and the request is not whole yet: count what no callback has seen."""
        if self.stage is Stage.HEAD:
            self.raw_size += size
            if self.raw_size > self._limits.head_bytes_max + self._limits.url_bytes_max:
                self._stop(TOO_LARGE)
        elif self.head is not None and self.head.chunked:
            self.raw_size += size
            most = self._limits.chunk_overhead * self.body_size + self._limits.chunk_slack_bytes
            if self.raw_size > most:
                self._stop(OVERHEAD)

    def on_message_begin(self) -> None:
        if not self.stopped:
            self.stage = Stage.HEAD
            self._begin()

    def on_url(self, url: bytes) -> None:
        if self.stopped:
            return
        self._url += url
        if len(self._url) > self._limits.url_bytes_max:
            self._stop(TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.stopped:
            return
        self._size += len(name) + len(value) + 4
        self._count += 1
        if self._size > self._limits.head_bytes_max:
            self._stop(TOO_LARGE)
        known = _SPELT.get(name)
        if known is None:
            known = KNOWN.get(name.lower(), "")
        if known and self.stage is Stage.HEAD:
            if known in self._fields:
                self._twice = True
            self._fields[known] = value

    def on_headers_complete(self) -> None:
        if self.stopped:
            return
        parser = self._parser
        raw = RawHead(
            method=parser.get_method(),
            url=self._url,
            version=parser.get_http_version(),
            keep=parser.should_keep_alive(),
            fields=self._fields,
            twice=self._twice,
            fields_count=self._count,
            size=self._size,
            upgrades="upgrade" in self._fields and parser.should_upgrade(),
        )
        self.stage = Stage.BODY
        self.head = self._sink.judge(raw)
        self._sink.head_came(self.head)

    def on_body(self, body: bytes) -> None:
        head = self.head
        if self.stopped or head is None:
            return
        size = self.body_size = self.body_size + len(body)
        if head.refusal is not None:  # read over, and bounded by its length (see Connection.head_came)
            return
        assert head.route is not None
        if size > head.route.body_bytes_max:
            self._sink.body_too_big(head)
        elif not self._body:
            self._body = body
        elif isinstance(self._body, bytearray):
            self._body += body
        else:
            self._body = bytearray(self._body)
            self._body += body

    def on_message_complete(self) -> None:
        head = self.head
        if self.stopped or head is None:
            return
        self.stage = Stage.BETWEEN
        self.head = None
        body, self._body = self._body, b""
        self._sink.request_came(head, body if isinstance(body, bytes) else bytes(body))

    def _stop(self, refusal: Refusal) -> None:
        if not self.stopped:
            self.stopped = True
            self._sink.broken(refusal)
