"""What the servers need of a model, and how it is introduced to a gateway.

A `Model` answers whole batches in one thread (`server`); an `AsyncModel` awaits, or gives its answer piece by
piece, with many under way (`async_server`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple, Protocol, Union

from steersman.dataplane.replica.settings import Settings
from steersman.ports import replica_wire as wire

BATCHES_MAX_SYNC = 2
"""Batches of one gateway at once: one runs, one waits in the pipe."""
BATCHES_MAX_ASYNC = 64
LINKS_MAX = 256
"""Gateway processes that may be connected; one more is hung up on."""
OUT_BYTES_MAX = 64 * 2**20
"""What may wait to be written to one gateway before another answer is added; more, and it is dropped."""
STALL_SECONDS = 30.0
"""A gateway that has not read anything of what waits for it for so long is dropped."""


class Signature(NamedTuple):
    """What HELLO says of a model. Tensors are {"name", "dtype", "shape"}."""

    kind: str
    batch_size_max: int
    stream: bool = False
    inputs: Sequence[dict[str, Any]] = ()
    outputs: Sequence[dict[str, Any]] = ()


Meta = dict[str, Any]
Pieces = list[Union[bytes, memoryview]]  # noqa: UP007 - evaluated, and Python 3.9 has no `|` of types


class Model(Protocol):
    """Answers one batch at a time."""

    @property
    def signature(self) -> Signature: ...

    def run(self, frame: wire.Frame) -> tuple[Meta, Pieces]:
        """The meta and payload of RESULT. Raises BatchError."""
        ...


class AsyncModel(Protocol):
    """Answers many at once. Rows are read from a frame first, for the frame does not last."""

    @property
    def signature(self) -> Signature: ...

    def read(self, frame: wire.Frame) -> list[Any]:
        """The rows. Raises BatchError."""
        ...

    async def run(self, rows: list[Any]) -> tuple[Meta, Pieces]:
        """The meta and payload of RESULT. Raises BatchError."""
        ...

    def parts(self, row: Any) -> AsyncGenerator[bytes, None]:
        """The pieces of one row's answer as JSON texts. Raises BatchError."""
        ...


def hello(settings: Settings, signature: Signature, batches_max: int, load_ms: int) -> Pieces:
    """The frame that greets a gateway."""
    described = {
        "kind": signature.kind,
        "stream": signature.stream,
        "inputs": list(signature.inputs),
        "outputs": list(signature.outputs),
        "batch_size_max": signature.batch_size_max,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())
    meta = {
        "protocol": wire.PROTOCOL,
        "run": settings.run,
        "service": settings.service,
        "revision": settings.revision,
        **described,
        "batches_max": batches_max,
        "load_ms": load_ms,
        "signature": f"sha256:{digest.hexdigest()}",
    }
    return wire.pack(wire.HELLO, 0, 0, meta)


class Costs:
    """CPU time, handed out so that the batches' sum is what the process used while it served."""

    def __init__(self) -> None:
        self._seen_ns = time.process_time_ns()

    def take_us(self) -> int:
        """Microseconds since the last take."""
        now_ns = time.process_time_ns()
        spent_ns, self._seen_ns = now_ns - self._seen_ns, now_ns
        return spent_ns // 1000
