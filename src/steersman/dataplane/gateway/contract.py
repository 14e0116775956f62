"""What the front needs of the exchange and the codec, as it sees them.

The front knows its neighbours by these shapes only, so that it can be tried with a small real exchange in
the same process. `main` puts the real ones in.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.signature import Signature
from steersman.dataplane.gateway.tracing import Span
from steersman.ports.gateway import GatewayConfig, ModelStats, Outcome, ServiceConfig


class Codec(Protocol):
    """Bodies to calls and answers to bodies, for one signature. Wrong input raises `Parts.bad_request`."""

    def read_predict(self, call: Call, body: bytes) -> None: ...

    def read_infer(self, call: Call, body: bytes, headers_len: int | None) -> None: ...

    def write_predict(self, call: Call, answer: Answer) -> bytes: ...

    def write_infer(self, call: Call, answer: Answer) -> tuple[bytes, int | None]: ...

    def metadata(self, name: str, revisions: Sequence[int]) -> bytes: ...


class Pool(Protocol):
    """Replicas of one revision. `admit` calls `call.done` exactly once, maybe before it returns."""

    @property
    def signature(self) -> Signature: ...

    @property
    def revision(self) -> int: ...

    @property
    def codec(self) -> Codec: ...

    def admit(self, call: Call) -> None: ...

    def cancel(self, call: Call) -> None: ...


class Entry(Protocol):
    """One service. `hold` answers at once when the call may not wait, and else calls the waiter once."""

    @property
    def config(self) -> ServiceConfig: ...

    def pool(self) -> Pool | None: ...

    def ready(self) -> bool: ...

    def hold(self, waiter: Callable[[Pool | None], None], deadline: float) -> Answer | None: ...


class Exchange(Protocol):
    """All services of this process."""

    def configure(self, config: GatewayConfig) -> None: ...

    def entry(self, name: str) -> Entry | None: ...

    def models(self) -> tuple[ModelStats, ...]: ...

    def count(self, service: str, outcome: Outcome) -> None: ...

    async def close(self) -> None: ...


class Tracer(Protocol):
    """Spans of the requests that are to be traced."""

    def begin(self, traceparent: bytes | None) -> Span | None: ...

    def finish(self, context: Span, name: str, outcome: str, times: Mapping[str, float]) -> None: ...


class WrongInput(Protocol):
    """What `bad_request` carries: an HTTP status, what is wrong, and what to do."""

    status: int
    message: str
    hint: str


class Parts(NamedTuple):
    """The neighbours of one worker's front. `bad_request` has the fields of `WrongInput`. `tracer` None: no
    request is traced."""

    exchange: Exchange
    bad_request: type[Exception]
    tracer: Tracer | None = None
    close: Callable[[], None] = lambda: None
