"""One connection to one replica: frames in and out, and what is under way on it.

Theory. A link is born connected and says nothing until the replica's HELLO, which names its signature; only
then does it join a pool. It may have `batches_max` batches under way (credits), by its own account, never by
what somebody reports. It leaves its pool the moment it must get no new batch (DRAIN, or its target was taken
out of the configuration) and is gone when the connection is; whatever is under way then is handed back.

A frame that cannot be read, is of a kind that a replica does not send, names a batch that is not under way,
or is longer than BODY_BYTES_MAX, closes the connection: after it no byte can be trusted.

Bytes are parsed where they arrive; only the rest of an incomplete frame is copied, into a buffer that grows
to the frame's length, so that a large frame costs one copy however it is cut.
"""

import asyncio
from typing import Literal, Protocol, cast

import msgspec

from steersman.dataplane.gateway.exchange.batch import Batch
from steersman.dataplane.gateway.exchange.meter import Meter
from steersman.dataplane.gateway.signature import Signature, Tensor
from steersman.ports import replica_wire as wire
from steersman.ports.replica_wire import Frame

CREDITS_MAX = 1_024
"""The most batches under way on one link, whatever the replica says."""
ROWS_MAX = 65_535
"""Rows of one frame: its header has two bytes for them."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica says of itself."""

    protocol: int
    run: str
    service: str
    revision: int
    kind: Literal["tensor", "json"]
    stream: bool = False
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    batch_size_max: int = 1
    batches_max: int = 1


class Owner(Protocol):
    """Who connects and configures links."""

    def hello(self, link: "Link", frame: Frame) -> str:
        """It says that it is ready; the answer is why it cannot be used, if it cannot."""
        ...

    def drain(self, link: "Link") -> None:
        """It must get no new batch."""
        ...

    def lost(self, link: "Link") -> None:
        """The connection is gone. `batches` is what was under way."""
        ...


class Dialler(Owner, Protocol):
    """Who made the connection."""

    def stranger(self, transport: asyncio.BaseTransport) -> str:
        """It is connected; the answer is why it is not who was meant, if it is not."""
        ...


class Receiver(Protocol):
    """Who sends batches."""

    def leave(self, link: "Link") -> None: ...

    def lose(self, link: "Link") -> None: ...

    def result(self, link: "Link", batch: Batch, frame: Frame) -> None: ...

    def error(self, link: "Link", batch: Batch, frame: Frame) -> None: ...

    def part(self, link: "Link", batch: Batch, frame: Frame) -> None: ...


class Link(asyncio.Protocol):
    """See the module. `accepting`: it is in a pool and may get batches."""

    __slots__ = (
        "_number",
        "_owner",
        "_tail",
        "_transport",
        "_wanted",
        "accepting",
        "batches",
        "batches_max",
        "closed",
        "connected",
        "due",
        "loop",
        "meter",
        "opened",
        "pool",
        "problem",
        "retired",
        "revision",
        "run",
        "served",
    )

    def __init__(self, owner: Dialler, run: str, revision: int, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._tail = bytearray()
        self._wanted = wire.HEADER_BYTES
        self._number = 0
        self.run, self.revision, self.loop = run, revision, loop
        self.opened = loop.time()
        self.batches: dict[int, Batch] = {}
        self.batches_max = 0
        self.due = 0.0  # when what is under way should be done
        self.pool: Receiver | None = None  # from HELLO on
        self.meter: Meter | None = None
        self.accepting = self.retired = self.closed = False
        self.connected = False  # over TCP: somebody listens there
        self.served = False  # it has answered a batch
        self.problem = ""  # why it was closed from this side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; HELLO comes next, if it is who was meant."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        if self.closed:
            self._transport.abort()
            return
        problem = self._owner.stranger(transport)
        if problem:
            self.close(problem)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it with one
        """Every end is the same end: the replica closed, died, or was cut off here."""
        self.closed = True
        self._transport = None
        self._tail = bytearray()
        self._owner.lost(self)

    def close(self, problem: str = "") -> None:
        """Cut the connection now; `lost` follows."""
        self.problem = self.problem or problem
        self.closed = True
        if self.pool is not None:
            self.pool.leave(self)
        if self._transport is not None:
            self._transport.abort()

    def next_number(self) -> int:
        """A number for the next batch."""
        self._number += 1
        return self._number

    def send(self, batch: Batch, pieces: list[bytes | memoryview]) -> None:
        """Take one credit and write the batch."""
        self.batches[batch.number] = batch
        if self._transport is not None:
            self._transport.writelines(pieces)

    def say(self, kind: int, number: int = 0) -> None:
        """Write a frame without rows."""
        if self._transport is not None and not self.closed:
            self._transport.writelines(wire.pack(kind, number, 0, {}))

    def data_received(self, data: bytes) -> None:
        """Read every whole frame."""
        if self._tail:
            self._tail += data
            if len(self._tail) < self._wanted:
                return
            whole, self._tail = self._tail, bytearray()
            self._read(memoryview(whole))
        else:
            self._read(memoryview(data))

    def _read(self, view: memoryview) -> None:
        at, end = 0, len(view)
        self._wanted = wire.HEADER_BYTES
        while end - at >= wire.HEADER_BYTES and not self.closed:
            header = view[at : at + wire.HEADER_BYTES]
            size = wire.HEADER.unpack(header)[0]
            if size > wire.BODY_BYTES_MAX:
                self.close(f"a frame of {size} bytes; the most is {wire.BODY_BYTES_MAX}")
                return
            stop = at + wire.HEADER_BYTES + size
            if stop > end:
                self._wanted = wire.HEADER_BYTES + size
                break
            try:
                frame = wire.unpack(header, view[at + wire.HEADER_BYTES : stop])
            except (ValueError, RecursionError) as error:  # JSON too deep to read is a wrong frame too
                self.close(f"a wrong frame: {error}")
                return
            problem = self._dispatch(frame)
            if problem:
                self.close(f"a wrong frame: {problem}")
                return
            at = stop
        if at < end and not self.closed:
            self._tail = bytearray(view[at:])

    def _dispatch(self, frame: Frame) -> str:
        """Pass a frame on; what is wrong with it, if anything is."""
        kind = frame.kind
        if self.pool is None:
            if kind == wire.HELLO:
                return self._owner.hello(self, frame)
            return f"kind {kind} before the first frame, which is HELLO"
        if kind == wire.DRAIN:
            self._owner.drain(self)
            self.say(wire.DRAINED)
            return ""
        if kind in (wire.RESULT, wire.ERROR, wire.PART):
            return self._answered(self.pool, frame)
        return f"a replica sends no frame of kind {kind}"

    def _answered(self, pool: Receiver, frame: Frame) -> str:
        batch = self.batches.get(frame.batch)
        if batch is None:
            return f"batch {frame.batch} is not under way"
        if frame.kind == wire.PART:
            return self._part(pool, batch, frame)
        del self.batches[frame.batch]
        self.served = True
        if frame.kind == wire.RESULT:
            pool.result(self, batch, frame)
        else:
            pool.error(self, batch, frame)
        return ""

    def _part(self, pool: Receiver, batch: Batch, frame: Frame) -> str:
        if batch.rows != 1:
            return "a piece of a stream for a batch of several rows"
        if frame.meta.get("last") or "error" in frame.meta:
            del self.batches[frame.batch]
        pool.part(self, batch, frame)
        return ""


def read_hello(frame: Frame) -> Hello:
    """HELLO's meta. Raises ValueError when this gateway cannot serve such a replica."""
    try:
        hello = msgspec.convert(frame.meta, Hello)
    except msgspec.ValidationError as error:
        raise ValueError(f"HELLO: {error}") from error
    if hello.protocol != wire.PROTOCOL:
        raise ValueError(f"HELLO: protocol {hello.protocol}; this gateway speaks {wire.PROTOCOL}")
    if hello.batch_size_max < 1 or hello.batches_max < 1:
        raise ValueError("HELLO: batch_size_max and batches_max are at least 1")
    tensors = (*hello.inputs, *hello.outputs)
    unknown = sorted({tensor.dtype for tensor in tensors} - wire.DTYPE_BYTES.keys())
    if unknown:
        raise ValueError(f"HELLO: data type {unknown[0]!r} is not served")
    if any(dim is not None and dim < 0 for tensor in tensors for dim in tensor.shape):
        raise ValueError("HELLO: a dimension below zero")
    return hello


def signature_of(hello: Hello) -> Signature:
    """The signature that decides which pool a replica belongs to."""
    return Signature(
        kind=hello.kind,
        stream=hello.stream,
        inputs=hello.inputs,
        outputs=hello.outputs,
        batch_size_max=min(hello.batch_size_max, ROWS_MAX),
    )
