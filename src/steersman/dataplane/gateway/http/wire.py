"""One connection as bytes in and out: order, deadlines, backpressure, and how it ends. What is served is
not here.

Theory of operation. One request is answered at a time. Requests that came in the same read are kept, in order
and bounded; bytes that come while one is being answered are kept unparsed and reading is paused, so that a
client that sends ahead waits in its own socket. Answers therefore never overtake one another.

Deadlines are absolute and only compared by the front's sweep; nothing here makes a timer.

    phase    ends by                     when it does not
    IDLE     a first byte                closed
    HEAD     the end of the head         408 and close; closed when nothing came at all
    BODY     the end of the body         408 and close
    BUSY     the answer (its own limit)  -
    LEAVING  the peer's close            aborted

A response that the peer does not read has its own deadline. After a refusal in the middle of a request the
rest of it is thrown away for a while, for a peer whose bytes meet a closed socket never sees the answer.
The end of the peer's sending counts as its leaving.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from enum import IntEnum
from math import inf
from typing import Protocol, cast

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
)

from steersman.dataplane.gateway.http import replies
from steersman.dataplane.gateway.http.hosts import Hosts
from steersman.dataplane.gateway.http.keys import Key
from steersman.dataplane.gateway.http.limits import Limits
from steersman.dataplane.gateway.http.memo import Memo
from steersman.dataplane.gateway.http.reader import Reader, Stage
from steersman.dataplane.gateway.http.replies import Refusal, invalid
from steersman.dataplane.gateway.http.request import Asker, Head, RawHead, judge, too_big
from steersman.dataplane.gateway.http.routes import Kind


class Phase(IntEnum):
    """What the connection waits for."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    BUSY = 3
    LEAVING = 4


class Keeper(Asker, Protocol):
    """What a connection needs of the front. `now` is at most one sweep old."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    now: float
    draining: bool

    def local(self, address: str) -> tuple[Hosts, Memo]: ...

    def spend(self, key: Key) -> Refusal | None: ...

    def refused(self, head: Head, refusal: Refusal) -> None: ...

    def left(self, wire: "Wire") -> None: ...


MALFORMED = invalid(400, "this is not well-formed HTTP/1.1", close=True)
UNKNOWN_METHOD = invalid(501, "unknown method", close=True, allow=b"GET, POST")
TOO_SLOW = invalid(408, "the request came too slowly", close=True)


class Wire(asyncio.Protocol, ABC):
    """A connection without its purpose: `serve` is given by what it serves."""

    __slots__ = (
        "_continue_due",
        "_lingered",
        "_pumping",
        "_reader",
        "_reading_paused",
        "_stash",
        "_waiting",
        "_write_deadline",
        "_writing_paused",
        "address",
        "body_since",
        "busy",
        "deadline",
        "keeper",
        "last",
        "local",
        "phase",
        "transport",
    )

    def __init__(self, keeper: Keeper, address: str, local: str) -> None:
        self.keeper = keeper
        self.address = address
        self.local = local
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self.phase = Phase.HEAD
        self.deadline = self._write_deadline = inf
        self.body_since = 0.0
        self.last: Head | None = None  # the head of the request that came last
        self._reader = Reader(self, keeper.limits)
        self._waiting: deque[tuple[Head, bytes]] = deque()
        self._stash = b""
        self._lingered = 0
        self._pumping = self._reading_paused = self._writing_paused = self._continue_due = False

    @abstractmethod
    def serve(self, head: Head, body: bytes) -> None:
        """Answer a whole, accepted request; `respond` or `finish` must follow, now or later."""

    @abstractmethod
    def give_up(self) -> None:
        """The peer is gone: drop what is being served for it."""

    # --- the transport's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.deadline = self.keeper.loop.time() + self.keeper.limits.headers_s

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._reader.stopped = True
        self._waiting.clear()
        self._stash = b""
        self.phase = Phase.LEAVING
        self.transport = None
        self.keeper.left(self)
        self.give_up()

    def eof_received(self) -> None:
        """The transport closes itself."""

    def pause_writing(self) -> None:
        limits = self.keeper.limits
        size = self.transport.get_write_buffer_size() if self.transport else 0
        self._writing_paused = True
        self._write_deadline = self.keeper.loop.time() + max(limits.write_s, size / limits.body_bytes_per_s)

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._write_deadline = inf
        if not self.busy and self.phase is not Phase.LEAVING:
            self._pump()

    def data_received(self, data: bytes) -> None:
        if self.busy or self._waiting or self._writing_paused or self.phase is Phase.LEAVING:
            self._too_early(data)
            return
        if self._reader.stage is not Stage.BETWEEN:
            self._feed(data)
            return
        memo = self.keeper.local(self.local)[1]
        end = data.find(b"\r\n\r\n") + 4
        raw = data[:end]
        head = memo.get(raw)
        if head is None or len(data) - end != head.length:
            self.last = None
            self._feed(data)
            self._remember(raw, len(data) - end, memo)
            return
        if head.key is not None:
            refusal = self.keeper.spend(head.key)
            if refusal is not None:
                self._begin(_refused(head, refusal), b"")
                return
        self._begin(head, data[end:])

    # --- the reader's side ---

    def judge(self, raw: RawHead) -> Head:
        return judge(raw, self.keeper, self.keeper.local(self.local)[0], self.address)

    def head_came(self, head: Head) -> None:
        limits = self.keeper.limits
        if head.refusal is None:
            if head.expects and self.busy:
                self._continue_due = True
            elif head.expects:
                self.write(replies.CONTINUE)
        elif head.refusal.close or head.chunked or head.expects or head.length > limits.discard_bytes_max:
            self._last_word(head)

    def request_came(self, head: Head, body: bytes) -> None:
        self.last = head
        if not head.keep:
            self._reader.stopped = True
        if not self.busy and not self._waiting and not self._writing_paused:
            self._begin(head, body)
            return
        self._waiting.append((head, body))
        if len(self._waiting) >= self.keeper.limits.pipeline_max:
            head.keep = head.plain = False
            self._reader.stopped = True

    def broken(self, refusal: Refusal) -> None:
        self._last_word(_refused(None, refusal))

    def body_too_big(self, head: Head) -> None:
        assert head.route is not None
        self._last_word(_refused(head, too_big(head.route)))

    # --- for what is served ---

    def write(self, data: bytes) -> None:
        """Send, unless the peer is gone."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def respond(self, data: bytes, *, keep: bool) -> None:
        """Send a whole response and go on to what comes next."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)
        self.finish(keep=keep)

    def refuse(self, head: Head, refusal: Refusal) -> None:
        """Send a refusal and go on."""
        self.keeper.refused(head, refusal)
        keep = head.keep and not refusal.close and not self.keeper.draining
        data = replies.refusal_bytes(refusal, head.request_id, keep=keep, bodiless=head.bodiless)
        self.respond(data, keep=keep)

    def finish(self, *, keep: bool) -> None:
        """The response is out."""
        self.busy = False
        if not keep:
            self._leave()
        elif self._pumping:
            pass  # the loop below goes on
        elif self._waiting or self._stash or self._continue_due or self._reader.stage is not Stage.BETWEEN:
            self._pump()
        else:
            self.phase = Phase.IDLE
            self.deadline = self.keeper.now + self.keeper.limits.idle_s

    # --- for the front ---

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        if now < self.deadline and now < self._write_deadline:
            return
        transport = self.transport
        if transport is None:
            return
        slow = self.phase in {Phase.HEAD, Phase.BODY} and self._reader.stage is not Stage.BETWEEN
        if slow and now < self._write_deadline:
            self._last_word(_refused(None, TOO_SLOW))
        else:
            transport.abort()

    def drain(self) -> None:
        """Leave now if nothing is under way; else after the answer."""
        if self.phase is Phase.IDLE or (self.phase is Phase.HEAD and self._reader.stage is Stage.BETWEEN):
            self._leave()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()

    # --- inside ---

    def _begin(self, head: Head, body: bytes) -> None:
        self.busy = True
        self.phase = Phase.BUSY
        self.deadline = inf
        if head.refusal is not None:
            self.refuse(head, head.refusal)
            return
        self.serve(head, body)

    def _feed(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
        except HttpParserCallbackError:
            raise  # a fault of ours: the loop reports it and closes the connection
        except HttpParserInvalidMethodError:
            self._parser_refuses(UNKNOWN_METHOD)
        except (HttpParserError, HttpParserUpgrade):
            self._parser_refuses(MALFORMED)
        if not reader.stopped and reader.stage is not Stage.BETWEEN:
            reader.partial(len(data))
        self._settle()

    def _parser_refuses(self, refusal: Refusal) -> None:
        if not self._reader.stopped:
            self._reader.stopped = True
            self.broken(refusal)

    def _settle(self) -> None:
        """Nothing is being answered: which deadline holds now?"""
        if self.busy or self._waiting or self.phase is Phase.LEAVING:
            return
        limits, stage = self.keeper.limits, self._reader.stage
        if stage is Stage.HEAD:
            if self.phase is not Phase.HEAD:
                self.phase = Phase.HEAD
                self.deadline = self.keeper.loop.time() + limits.headers_s
        elif stage is Stage.BODY:
            self._settle_body(limits)
        elif self.phase in {Phase.BODY, Phase.BUSY}:
            self.phase = Phase.IDLE
            self.deadline = self.keeper.now + limits.idle_s

    def _settle_body(self, limits: Limits) -> None:
        if self.phase is not Phase.BODY:
            self.phase = Phase.BODY
            self.body_since = self.keeper.loop.time()
        head = self._reader.head
        size = self._reader.body_size if head is None or head.chunked else head.length
        self.deadline = self.body_since + max(limits.body_s, size / limits.body_bytes_per_s)

    def _too_early(self, data: bytes) -> None:
        """Bytes while an answer is under way, or after the last one."""
        if self.phase is Phase.LEAVING or self._reader.stopped:
            self._lingered += len(data)
            if self._lingered > self.keeper.limits.linger_bytes_max:
                self.abort()
            return
        self._stash += data
        if not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()

    def _pump(self) -> None:
        """Go on with what came early, until something is under way again."""
        self._pumping = True
        while not (self.busy or self._writing_paused or self.phase is Phase.LEAVING):
            if self._waiting:
                self._begin(*self._waiting.popleft())
            elif self._stash:
                data, self._stash = self._stash, b""
                self._feed(data)
            else:
                break
        self._pumping = False
        if self._reading_paused and not self._stash and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()
        if self._continue_due and not self.busy and not self._waiting:
            self._continue_due = False
            self.write(replies.CONTINUE)
        self._settle()

    def _last_word(self, head: Head) -> None:
        """A refusal after which nothing more is read; it waits for its turn."""
        self._reader.stopped = True
        head.keep = head.plain = False
        if self.busy or self._waiting:
            self._waiting.append((head, b""))
        else:
            self._lingered = 1  # something may be unread
            self._begin(head, b"")

    def _leave(self) -> None:
        """The last response is out."""
        self.phase = Phase.LEAVING
        self._reader.stopped = True
        transport, limits = self.transport, self.keeper.limits
        unread = self._lingered or self._stash or self._waiting
        self._stash = b""
        self._waiting.clear()
        if transport is None or transport.is_closing():
            return
        now = self.keeper.loop.time()
        if not unread:
            self.deadline = now + limits.write_s
            transport.close()
            return
        self.deadline = now + limits.linger_s
        if self._reading_paused:
            self._reading_paused = False
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def _remember(self, raw: bytes, length: int, memo: Memo) -> None:
        head = self.last
        if (
            head is not None
            and head.plain
            and head.refusal is None
            and head.trace is None
            and not head.chunked
            and not head.expects
            and head.length == length
            and len(raw) <= self.keeper.limits.memo_head_bytes_max
            and head.route is not None
            and head.route.kind >= Kind.PREDICT
        ):
            memo.put(raw, head)


def _refused(head: Head | None, refusal: Refusal) -> Head:
    """A head that stands for a refusal, with what is known of the request."""
    refused = Head()
    refused.refusal = refusal
    if head is not None:
        refused.route, refused.request_id, refused.keep = head.route, head.request_id, head.keep
    return refused
