"""One request between the front (HTTP, codec, keys) and the exchange (queues, batches, replicas).

The front makes a `Call`, finds the pool of the service, has the pool's codec read the body into it, and
admits it. From then on the exchange owns it and calls `done` exactly once, with an `Answer`; a stream gets
`part` for each piece before that. Times are of the event loop's clock, in seconds.
"""

from collections.abc import Callable
from typing import Any

from steersman.ports.gateway import Outcome

BANDS = 3
"""Priority bands: 0 low, 1 normal, 2 high."""

Shapes = tuple[tuple[int, ...], ...]
"""The dims of each input without the batch dimension, in the signature's order: rows of equal shapes may
share a batch."""


class Answer:
    """How a call ended. `outputs`: for tensors, per output (dims without the batch dim, bytes of all rows);
    for JSON, one JSON text a row. `retry_after_s` goes with 429 and 503."""

    __slots__ = ("error", "outcome", "outputs", "retry_after_s")

    def __init__(
        self, outcome: Outcome, outputs: Any = None, error: str = "", retry_after_s: float | None = None
    ) -> None:
        self.outcome = outcome
        self.outputs = outputs
        self.error = error
        self.retry_after_s = retry_after_s


class Call:
    """One request. `payload`: for tensors the bytes of all rows per input; for JSON the text of each row."""

    __slots__ = (
        "band",
        "body",
        "caller",
        "context",
        "deadline",
        "dispatched",
        "done",
        "part",
        "payload",
        "received",
        "rows",
        "shapes",
        "state",
        "trace",
        "tries",
        "weight",
    )

    def __init__(self, done: "Callable[[Call, Answer], None]") -> None:
        self.done = done
        self.part: Callable[[Call, bytes], None] | None = None
        self.rows = 1
        self.payload: list[bytes] = []
        self.shapes: Shapes = ()
        self.body: bytes = b""  # as received: read again when its pool's signature goes away
        self.band = 1
        self.caller = ""  # the name of its API key; the unit of fairness
        self.weight = 1
        self.received = 0.0
        self.deadline = 0.0
        self.dispatched = 0.0
        self.trace: str | None = None  # traceparent
        self.context: Any = None  # the front's own
        self.state: Any = None  # the exchange's own
        self.tries = 0
