"""What a connection serves: calls to the exchange, streams, and the few questions that need no model.

Theory of operation. A whole request becomes a `Call`; its service's pool has a codec that reads the body
into it and writes the answer out of it. The call belongs to the exchange until `_done` comes, once. A peer
that leaves first has its call cancelled, and whatever comes of it afterwards is dropped, for it is no
longer `_call`. One place of the API key is taken for as long as the call lives, and given back in exactly
one place.
"""

from typing import Final, Protocol

import msgspec

from steersman import __version__
from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.contract import Entry, Parts, Pool, Tracer, WrongInput
from steersman.dataplane.gateway.http import replies
from steersman.dataplane.gateway.http.keys import Key
from steersman.dataplane.gateway.http.replies import Refusal, refusal_of
from steersman.dataplane.gateway.http.request import NOT_FOUND, Head
from steersman.dataplane.gateway.http.routes import Kind, Route
from steersman.dataplane.gateway.http.wire import Keeper, Wire
from steersman.dataplane.gateway.tracing import Span

SERVER: Final = msgspec.json.encode(
    {"name": "steersman", "version": __version__, "extensions": ["binary_tensor_data"]}
)
LIVE: Final = b'{"live":true}'
READY: Final = b'{"ready":true}'
NOT_READY: Final = refusal_of("no-replica")
BUSY_KEY: Final = msgspec.structs.replace(
    refusal_of("rate-limited"), hint="this API key has as many requests under way as it may"
)


class Connection(Wire):
    """One client."""

    __slots__ = ("_call", "_head", "_key", "_parts", "_pool", "_ready", "_span", "_streaming", "_tracer")

    def __init__(self, keeper: "ServingKeeper", address: str, local: str) -> None:
        super().__init__(keeper, address, local)
        self._parts = keeper.parts
        self._ready = keeper.ready
        self._call: Call | None = None
        self._pool: Pool | None = None
        self._key: Key | None = None
        self._head: Head | None = None
        self._streaming = False
        self._tracer = keeper.parts.tracer
        self._span: Span | None = None

    def serve(self, head: Head, body: bytes) -> None:
        route = head.route
        assert route is not None
        if route.kind >= Kind.PREDICT:
            self._submit(head, route, body)
        else:
            self._answer_question(head, route)

    def give_up(self) -> None:
        call, pool = self._call, self._pool
        if call is None:
            return
        if self._span is not None and self._head is not None:
            self._traced(call, "client-gone", self._head)
        self._end_call()
        if pool is not None:
            pool.cancel(call)
        elif self._head is not None and self._head.route is not None:
            self._parts.exchange.count(self._head.route.service, "client-gone")

    # --- calls ---

    def _submit(self, head: Head, route: Route, body: bytes) -> None:
        key = head.key
        if key is not None and not key.acquire():
            self.refuse(head, BUSY_KEY)
            return
        entry = route.entry
        assert entry is not None
        call = Call(self._done)
        if key is not None:
            call.caller = key.name
            call.weight = key.weight
        call.body = body
        call.band = head.band
        call.trace = head.trace
        call.received = now = self.keeper.loop.time()
        call.deadline = now + head.timeout_s
        self._head, self._call, self._key = head, call, key
        if self._tracer is not None:
            self._trace(call, self._tracer)
        pool = entry.pool()
        if pool is not None:
            self._admit(call, pool)
        else:
            self._hold(call, entry)

    def _trace(self, call: Call, tracer: Tracer) -> None:
        span = tracer.begin(None if call.trace is None else call.trace.encode())
        if span is not None:
            self._span, call.trace = span, span.traceparent

    def _traced(self, call: Call, outcome: str, head: Head) -> None:
        span, tracer = self._span, self._tracer
        if span is None or tracer is None:
            return
        self._span = None
        now, sent = self.keeper.loop.time(), call.dispatched
        times = (
            {"queued": now - call.received}
            if not sent
            else {"queued": sent - call.received, "model": now - sent}
        )
        service = "" if head.route is None else head.route.service
        tracer.finish(span, f"predict {service}", outcome, times)

    def _hold(self, call: Call, entry: Entry) -> None:
        """No replica is ready: wait for one as long as the service lets it."""

        def came(pool: Pool | None) -> None:
            if call is not self._call:
                return
            if pool is None:
                self._refuse_call(refusal_of("no-replica"))
            else:
                self._admit(call, pool)

        answer = entry.hold(came, call.deadline)
        if answer is not None and call is self._call:
            self._refuse_call(refusal_of(answer.outcome, answer.retry_after_s))

    def _admit(self, call: Call, pool: Pool) -> None:
        head = self._head
        assert head is not None
        assert head.route is not None
        route = head.route
        if route.revision is not None and route.revision != pool.revision:
            self._refuse_call(NOT_FOUND)
            return
        try:
            self._read(call, pool, head, route)
        except self._parts.bad_request as error:
            self._refuse_call(_wrong(error))
            return
        if pool.signature.stream:
            call.part = self._part
        self._pool = pool
        pool.admit(call)

    @staticmethod
    def _read(call: Call, pool: Pool, head: Head, route: Route) -> None:
        if route.kind is Kind.PREDICT:
            pool.codec.read_predict(call, call.body)
        else:
            pool.codec.read_infer(call, call.body, head.infer_bytes)

    def reread(self, call: Call, pool: Pool) -> Answer | None:
        """The call goes to a pool of another signature: read its body anew, or say why that cannot be."""
        head = self._head
        if call is not self._call or head is None or head.route is None:
            return Answer("client-gone")
        if head.route.revision is not None and head.route.revision != pool.revision:
            return Answer("no-replica")
        try:
            self._read(call, pool, head, head.route)
        except self._parts.bad_request as error:
            return Answer("invalid", error=_wrong(error).error)
        self._pool = pool
        call.part = self._part if pool.signature.stream else None
        return None

    def _done(self, call: Call, answer: Answer) -> None:
        """The exchange's answer; nothing happens when the peer is gone."""
        if call is not self._call:
            return
        head, pool = self._head, self._pool
        assert head is not None
        assert pool is not None
        if self._span is not None:
            self._traced(call, answer.outcome, head)
        self._end_call()
        if self._streaming:
            self._end_stream(head, answer)
        elif answer.outcome != "ok":
            self._refuse_answered(head, _refusal(answer))
        elif pool.signature.stream:
            self._begin_stream(head)
            self._end_stream(head, answer)
        elif head.route is not None and head.route.kind is Kind.PREDICT:
            body = pool.codec.write_predict(call, answer)
            if head.plain and not self.keeper.draining:
                self.respond(b"%b%d\r\n\r\n%b" % (replies.JSON_OK, len(body), body), keep=True)
            else:
                self._respond_with(head, replies.JSON, b"", body)
        else:
            self._respond_infer(head, *pool.codec.write_infer(call, answer))

    def _respond_infer(self, head: Head, body: bytes, json_bytes: int | None) -> None:
        if json_bytes is None:
            self._respond_with(head, replies.JSON, b"", body)
        else:
            extra = b"inference-header-content-length: %d\r\n" % json_bytes
            self._respond_with(head, replies.BINARY, extra, body)

    def _respond_with(self, head: Head, content_type: bytes, extra: bytes, body: bytes) -> None:
        keep = head.keep and not self.keeper.draining
        extra += replies.identity(head.request_id, keep=keep)
        self.respond(replies.head(200, content_type, extra, len(body)) + body, keep=keep)

    def _refuse_call(self, refusal: Refusal) -> None:
        """Refuse what no pool has taken; it is counted here."""
        head, call = self._head, self._call
        assert head is not None
        if self._span is not None and call is not None:
            self._traced(call, refusal.outcome, head)
        self._end_call()
        self.refuse(head, refusal)

    def _refuse_answered(self, head: Head, refusal: Refusal) -> None:
        """Pass on a refusal of the exchange, which has counted it."""
        keep = head.keep and not self.keeper.draining
        self.respond(replies.refusal_bytes(refusal, head.request_id, keep=keep), keep=keep)

    def _end_call(self) -> None:
        key = self._key
        self._call = self._pool = self._key = None
        if key is not None:
            key.release()

    # --- streams ---

    def _begin_stream(self, head: Head) -> None:
        self._streaming = True
        extra = b"cache-control: no-store\r\n"
        if not head.old:
            extra += b"transfer-encoding: chunked\r\n"
        keep = head.keep and not self.keeper.draining
        extra += replies.identity(head.request_id, keep=keep)
        head.keep = head.keep and keep  # what was promised is held, also when draining begins meanwhile
        self.write(replies.head(200, replies.EVENTS, extra, None))

    def _part(self, call: Call, data: bytes) -> None:
        head = self._head
        if call is not self._call or head is None:
            return
        if not self._streaming:
            self._begin_stream(head)
        self._write_event(head, replies.event(b"", data))
        transport, limits = self.transport, self.keeper.limits
        if transport is not None and transport.get_write_buffer_size() > limits.stream_buffer_bytes_max:
            self.abort()

    def _end_stream(self, head: Head, answer: Answer) -> None:
        self._streaming = False
        if answer.outcome == "ok":
            last = replies.event(b"end", b"{}")
        else:
            refusal = refusal_of(answer.outcome, answer.retry_after_s)
            last = replies.event(b"error", replies.error_body(refusal, head.request_id))
        self._write_event(head, last)
        if not head.old:
            self.write(replies.LAST_CHUNK)
        self.finish(keep=head.keep)

    def _write_event(self, head: Head, data: bytes) -> None:
        self.write(data if head.old else replies.chunk(data))

    # --- questions ---

    def _answer_question(self, head: Head, route: Route) -> None:
        entry = route.entry
        if route.kind is Kind.READY:
            self._answer_json(head, READY if self._ready() else None)
        elif route.kind is Kind.LIVE:
            self._answer_json(head, LIVE)
        elif entry is None:
            self._answer_json(head, SERVER)
        else:
            self._answer_model(head, route, entry)

    def _answer_model(self, head: Head, route: Route, entry: Entry) -> None:
        pool = entry.pool()
        if pool is None:
            self._answer_json(head, None)
        elif route.revision is not None and route.revision != pool.revision:
            self.refuse(head, NOT_FOUND)
        elif route.kind is Kind.MODEL_READY:
            self._answer_json(head, READY if entry.ready() else None)
        else:
            revisions = (
                [pool.revision]
                if route.revision is not None
                else [one.revision for one in entry.config.revisions]
            )
            self._answer_json(head, pool.codec.metadata(route.service, revisions))

    def _answer_json(self, head: Head, body: bytes | None) -> None:
        if body is None:
            self._refuse_answered(head, NOT_READY)
        else:
            self._respond_with(head, replies.JSON, b"", body)


class ServingKeeper(Keeper, Protocol):
    """What serving needs of the front beyond the wire."""

    parts: Parts

    def ready(self) -> bool:
        """Whether there is a configuration, and the front is not draining."""
        ...


def reread(call: Call, pool: Pool) -> Answer | None:
    """What the exchange asks when the signature that a waiting call was read for is gone."""
    owner = getattr(call.done, "__self__", None)
    assert isinstance(owner, Connection), "every call is answered to its connection"
    return owner.reread(call, pool)


def _refusal(answer: Answer) -> Refusal:
    """The stable words for an outcome; what is wrong with the input, or with a row, in the words of who
    found it.
    """
    refusal = refusal_of(answer.outcome, answer.retry_after_s)
    if answer.outcome == "invalid" and answer.error:
        return msgspec.structs.replace(refusal, error=answer.error)
    return refusal


def _wrong(error: Exception) -> Refusal:
    """What the codec found, in its words."""
    wrong: WrongInput = error  # type: ignore[assignment]  # Parts.bad_request promises the fields
    return Refusal(status=wrong.status, outcome="invalid", error=wrong.message, hint=wrong.hint)
