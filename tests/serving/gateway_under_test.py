"""A real gateway (master, workers, sockets, parser, keys, deadlines) before a small exchange of its own.

Run as a program it is what `steersman.dataplane.gateway.main` is, with two differences: the exchange
answers by itself what the service's name says, and the limits come from the environment variable
GATEWAY_TEST_LIMITS (JSON), so that a test of a deadline takes a second.

    echo      the JSON that came                 slow      the same after 0.3 s; slower: 1.5 s
    stream    as many events as the number says  fails     a model error that tells a path
    big       8 MiB                              none      no replica
    endless   events for ever
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.contract import Parts, Pool
from steersman.dataplane.gateway.http.limits import Limits
from steersman.dataplane.gateway.master import run_master
from steersman.dataplane.gateway.signature import Signature
from steersman.dataplane.gateway.worker import run_worker
from steersman.ports.gateway import GatewayConfig, ModelStats, Outcome, ServiceConfig

LIMITS = "GATEWAY_TEST_LIMITS"
DELAYS_S = {"slow": 0.3, "slower": 1.5}
BIG = b"[" + b"0," * (4 * 2**20) + b"0]"


class BadInput(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.status, self.message, self.hint = 400, message, "send JSON"


class EchoCodec:
    """One row of JSON."""

    def read_predict(self, call: Call, body: bytes) -> None:
        try:
            msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadInput("the body is not JSON") from error
        call.payload = [body]

    def read_infer(self, call: Call, body: bytes, headers_len: int | None) -> None:
        self.read_predict(call, body if headers_len is None else body[:headers_len])

    def write_predict(self, call: Call, answer: Answer) -> bytes:
        data: bytes = answer.outputs[0]
        return data

    def write_infer(self, call: Call, answer: Answer) -> tuple[bytes, int | None]:
        return answer.outputs[0], None

    def metadata(self, name: str, revisions: Sequence[int]) -> bytes:
        return msgspec.json.encode({"name": name, "versions": [str(one) for one in revisions]})


class EchoPool:
    """Answers by itself; `calls` has those under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, outcomes: "Counter[Outcome]") -> None:
        self._loop = loop
        self._name = name
        self._outcomes = outcomes
        self.signature = Signature("json", stream=name in {"stream", "endless"})
        self.revision = 1
        self.codec = EchoCodec()
        self.calls: dict[Call, asyncio.TimerHandle | None] = {}

    def admit(self, call: Call) -> None:
        self.calls[call] = None
        if self._name in DELAYS_S:
            self.calls[call] = self._loop.call_later(
                DELAYS_S[self._name], self._end, call, Answer("ok", call.payload)
            )
        elif self._name == "fails":
            self._end(call, Answer("model-error", error='File "/srv/model.py", line 3: 10.0.0.7 refused'))
        elif self._name == "big":
            self._end(call, Answer("ok", [BIG]))
        elif self._name in {"stream", "endless"}:
            self._step(call, 0)
        else:
            self._end(call, Answer("ok", call.payload))

    def cancel(self, call: Call) -> None:
        self._end(call, Answer("client-gone"))

    def _step(self, call: Call, count: int) -> None:
        if call not in self.calls:
            return
        if self._name == "stream" and count >= int(call.payload[0]):
            self._end(call, Answer("ok"))
            return
        assert call.part is not None
        call.part(call, b'{"n":%d}' % count)
        if call in self.calls:
            self.calls[call] = self._loop.call_later(0.005, self._step, call, count + 1)

    def _end(self, call: Call, answer: Answer) -> None:
        if call not in self.calls:
            return
        handle = self.calls.pop(call)
        if handle is not None:
            handle.cancel()
        self._outcomes[answer.outcome] += 1
        call.done(call, answer)


class EchoEntry:
    def __init__(self, loop: asyncio.AbstractEventLoop, config: ServiceConfig) -> None:
        self.config = config
        self.outcomes: Counter[Outcome] = Counter()
        self._pool = None if config.name == "none" else EchoPool(loop, config.name, self.outcomes)

    def pool(self) -> Pool | None:
        return self._pool

    def ready(self) -> bool:
        return self._pool is not None

    def hold(self, waiter: Callable[[Pool | None], None], deadline: float) -> Answer | None:
        return Answer("no-replica", retry_after_s=2.0)

    def model(self) -> ModelStats:
        ongoing = len(self._pool.calls) if self._pool is not None else 0
        outcomes = {str(outcome): count for outcome, count in self.outcomes.items()}
        return ModelStats(service=self.config.name, revision=1, ongoing=ongoing, outcomes=outcomes)


class EchoExchange:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: dict[str, EchoEntry] = {}

    def configure(self, config: GatewayConfig) -> None:
        for service in config.services:
            entry = self._entries.setdefault(service.name, EchoEntry(self._loop, service))
            entry.config = service

    def entry(self, name: str) -> EchoEntry | None:
        return self._entries.get(name)

    def models(self) -> tuple[ModelStats, ...]:
        return tuple(entry.model() for entry in self._entries.values())

    def count(self, service: str, outcome: Outcome) -> None:
        self._entries[service].outcomes[outcome] += 1

    async def close(self) -> None:
        self._entries.clear()


def make_parts(loop: asyncio.AbstractEventLoop, _home: Path) -> Parts:
    return Parts(EchoExchange(loop), BadInput)


def main(argv: list[str]) -> None:
    limits = msgspec.json.decode(os.environ.get(LIMITS, "{}").encode(), type=Limits)
    if argv[1] == "--worker":
        run_worker(argv[2:], make_parts, limits)
    else:
        run_master(Path(argv[1]), [sys.executable, argv[0], "--worker"], limits)


if __name__ == "__main__":
    main(sys.argv)
