"""A gateway's exchange and its replicas in one process: real frames on real Unix sockets, in virtual time.

Theory: within one process what is written to a Unix socket can be read at once, so a loop that finds nothing
to read may jump to its next timer. Hours pass in milliseconds, and the same test is the same run each time.
"""

import asyncio
import selectors
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from steersman.dataplane.gateway.call import Answer, Call
from steersman.dataplane.gateway.exchange.entry import Entry
from steersman.dataplane.gateway.exchange.exchange import Exchange
from steersman.dataplane.gateway.exchange.pool import Pool
from steersman.dataplane.gateway.signature import Signature
from steersman.model.service import ApiKey, Gateway, RequestLimits
from steersman.ports import replica_wire as wire
from steersman.ports.gateway import GatewayConfig, ModelStats, ReplicaTarget, RevisionConfig, ServiceConfig

SERVICE = "digits"
STUCK_S = 5.0
"""Real seconds without any event and any timer: the test waits for something that never comes."""


class _Jump(selectors.DefaultSelector):
    """A selector that moves a clock on instead of waiting."""

    now = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or timeout == 0:
            return found
        if timeout is None:
            found = super().select(STUCK_S)
            assert found, "nothing will ever happen"
            return found
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self.clock = _Jump()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


class Replica(asyncio.Protocol):
    """A replica that runs one batch at a time. JSON rows are answered with ``<run>|<row>``; FP32 rows are
    echoed. A row that contains ``slow``, ``fail``, ``kill`` or ``bend`` does as it says; ``odd`` fails
    alone."""

    def __init__(self, scene: "Scene", run: str, **options: Any) -> None:
        self.scene, self.run, self.options = scene, run, options
        self.path = scene.folder / run / "replica.sock"
        self.fixed_s: float = options.get("fixed_s", 0.001)
        self.row_s: float = options.get("row_s", 0.0001)
        self.sizes: list[int] = []
        self.batches: list[list[bytes]] = []
        self.cancelled: list[int] = []
        self.drained = self.dead = False
        self.busy_until = 0.0
        self.running = 0
        self.running_max = 0
        self.transport: asyncio.Transport | None = None
        self.server: asyncio.Server | None = None
        self.buffer = b""

    async def start(self) -> "Replica":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        relative = self.path.relative_to(Path.cwd()) if len(str(self.path)) > 100 else self.path
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(lambda: self, str(relative))
        return self

    def hello(self) -> dict[str, Any]:
        tensor = self.options.get("kind") == "tensor"
        tensors = [{"name": "x", "dtype": "FP32", "shape": [None]}] if tensor else []
        said: dict[str, Any] = {
            "protocol": 1,
            "run": self.run,
            "service": SERVICE,
            "revision": self.options.get("revision", 1),
            "kind": "tensor" if tensor else "json",
            "stream": bool(self.options.get("stream")),
            "inputs": tensors,
            "outputs": tensors,
            "batch_size_max": self.options.get("batch_size_max", 64),
            "batches_max": self.options.get("batches_max", 2),
            "load_ms": 5,
            "signature": "sha256:0",
        }
        said.update(self.options.get("hello", {}))
        return said

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""
        self.send(wire.HELLO, 0, 0, self.hello())

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def send(self, kind: int, batch: int, rows: int, meta: dict[str, Any], *payload: bytes) -> None:
        if self.transport is not None and not self.dead:
            self.transport.writelines(wire.pack(kind, batch, rows, meta, *payload))

    def raw(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= wire.HEADER_BYTES:
            size = wire.HEADER.unpack(self.buffer[: wire.HEADER_BYTES])[0]
            end = wire.HEADER_BYTES + size
            if len(self.buffer) < end:
                return
            frame = wire.unpack(self.buffer[: wire.HEADER_BYTES], self.buffer[wire.HEADER_BYTES : end])
            self.buffer = self.buffer[end:]
            self.read(frame)

    def read(self, frame: wire.Frame) -> None:
        if frame.kind == wire.CANCEL:
            self.cancelled.append(frame.batch)
        elif frame.kind == wire.DRAINED:
            self.drained = True
        elif frame.kind == wire.INFER:
            self.infer(frame)

    def infer(self, frame: wire.Frame) -> None:
        rows = self.rows(frame)
        self.sizes.append(frame.rows)
        self.batches.append(rows)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        if any(b"kill" in row for row in rows):
            self.kill()
            return
        if any(b"hang" in row for row in rows):
            return
        loop = self.scene.loop
        took = self.fixed_s + self.row_s * frame.rows
        side = self.options.get("batches_max", 2) > 2
        self.busy_until = max(loop.time(), 0 if side else self.busy_until) + took
        loop.call_at(self.busy_until, self.answer, frame, rows, took)

    def rows(self, frame: wire.Frame) -> list[bytes]:
        data, rows, at = bytes(frame.payload), [], 0
        if self.options.get("kind") == "tensor":
            size = len(data) // frame.rows
            return [data[index * size : (index + 1) * size] for index in range(frame.rows)]
        for length in frame.meta["lengths"]:
            rows.append(data[at : at + length])
            at += length
        return rows

    def answer(self, frame: wire.Frame, rows: list[bytes], took: float) -> None:
        if self.dead:
            return
        self.running -= 1
        costs: dict[str, Any] = {"run_us": int(took * 1e6), "cpu_us": int(took * 1e6)}
        if any(b"fail" in row for row in rows):
            self.send(wire.ERROR, frame.batch, frame.rows, {"error": "it failed", "code": "model-error"})
            return
        if self.options.get("kind") == "tensor":
            meta: dict[str, Any] = {"shapes": {"x": list(frame.meta["shapes"]["x"])}, **costs}
            invalid = [index for index, row in enumerate(rows) if row.startswith(b"nan!")]
            if invalid:
                meta["invalid"] = invalid
            payload = b"".join(rows)
        else:
            texts = [self.run.encode() + b"|" + row for row in rows]
            meta, payload = {"lengths": [len(text) for text in texts], **costs}, b"".join(texts)
        odd = {str(index): "it is odd" for index, row in enumerate(rows) if b"odd" in row}
        if odd:
            meta["errors"] = odd | self.options.get("more_errors", {})
        if any(b"bend" in row for row in rows):
            payload += b"?"
        self.send(wire.RESULT, frame.batch, frame.rows, meta, payload)

    def drain(self) -> None:
        self.send(wire.DRAIN, 0, 0, {})

    def kill(self) -> None:
        """Gone at once, its name too."""
        self.dead = True
        self.close()

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
            with suppress(FileNotFoundError):
                self.path.unlink()
        if self.transport is not None:
            self.transport.abort()


class Request(Call):
    """A call that keeps what became of it."""

    __slots__ = ("answered", "answers", "pieces")

    def __init__(self, text: str) -> None:
        super().__init__(self._keep)
        self.answers: list[Answer] = []
        self.answered: list[float] = []
        self.pieces: list[bytes] = []
        self.body = text.encode()
        self.part = lambda _, piece: self.pieces.append(piece)

    def _keep(self, call: Call, answer: Answer) -> None:
        assert call is self
        self.answers.append(answer)
        self.answered.append(asyncio.get_running_loop().time())

    @property
    def outcome(self) -> str:
        """How it ended; exactly once, or this fails."""
        assert len(self.answers) == 1, f"{len(self.answers)} answers"
        return self.answers[0].outcome

    @property
    def output(self) -> Any:
        assert self.outcome == "ok", self.answers[0].error
        return self.answers[0].outputs


class Codec:
    """Reads a body as JSON rows between ``;``, or as FP32 rows of equal lengths."""

    def __init__(self, signature: Signature, config: ServiceConfig) -> None:
        self.signature, self.config = signature, config

    def read(self, call: Call) -> None:
        rows = call.body.split(b";")
        call.rows = len(rows)
        if self.signature.kind == "tensor":
            call.payload = [b"".join(rows)]
            call.shapes = ((len(rows[0]) // 4,),)
        else:
            call.payload = rows


class Scene:
    """One exchange with one service. As a context manager it ends everything."""

    def __init__(self, loop: VirtualLoop, **options: Any) -> None:
        self.loop = loop
        self.folder = Path(tempfile.mkdtemp(prefix="exchange-"))
        self.exchange = Exchange(loop, Codec)
        self.exchange.reread = self.reread
        self.options = options
        self.replicas: dict[str, Replica] = {}
        self.requests: list[Request] = []
        self.reread_calls = 0

    async def __aenter__(self) -> "Scene":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.exchange.close()
        for replica in self.replicas.values():
            replica.close()
        await asyncio.sleep(0.1)
        shutil.rmtree(self.folder)

    def reread(self, call: Call, pool: Pool) -> Answer | None:
        self.reread_calls += 1
        pool.codec.read(call)
        return None

    async def replica(self, run: str, **options: Any) -> Replica:
        replica = self.replicas[run] = await Replica(self, run, **options).start()
        return replica

    def configure(self, *runs: tuple[str, int], **changes: Any) -> None:
        self.options |= changes
        self.exchange.configure(self.config(*runs))

    def config(self, *runs: tuple[str, int]) -> GatewayConfig:
        limits = RequestLimits(**self.options.get("limits", {}))
        revisions = tuple(
            RevisionConfig(
                revision=revision,
                replicas=tuple(
                    ReplicaTarget(run=run, socket=str(self.folder / run / "replica.sock"))
                    for run, of in runs
                    if of == revision
                ),
            )
            for revision in sorted({of for _, of in runs})
        )
        service = ServiceConfig(
            name=SERVICE,
            revisions=revisions,
            limits=limits,
            slo_latency_ms=self.options.get("slo_latency_ms"),
            hold_ms=self.options.get("hold_ms", 0),
        )
        keys = tuple(ApiKey(name=name, digest="0" * 64) for name in self.options.get("keys", ()))
        return GatewayConfig(epoch=1, position=1, gateway=Gateway(), services=(service,), keys=keys)

    async def serve(self, *runs: str, **options: Any) -> None:
        """Replicas of revision 1, started, configured and ready."""
        for run in runs:
            await self.replica(run, **options)
        self.configure(*((run, 1) for run in runs))
        await self.until(lambda: self.linked() == len(runs))

    @property
    def entry(self) -> Entry:
        entry = self.exchange.entry(SERVICE)
        assert entry is not None
        return entry

    @property
    def pool(self) -> Pool:
        pool = self.entry.pool()
        assert pool is not None
        return pool

    def linked(self) -> int:
        return sum(stats.ready_replicas for stats in self.exchange.models())

    def stats(self, revision: int) -> ModelStats:
        return next(stats for stats in self.exchange.models() if stats.revision == revision)

    def outcomes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for stats in self.exchange.models():
            for name, count in stats.outcomes.items():
                found[name] = found.get(name, 0) + count
        return found

    def ask(self, text: str, timeout_s: float = 30.0, pool: Pool | None = None, **fields: Any) -> Request:
        request = Request(text)
        request.received = self.loop.time()
        request.deadline = request.received + timeout_s
        for name, value in fields.items():
            setattr(request, name, value)
        pool = pool or self.pool
        pool.codec.read(request)
        self.requests.append(request)
        pool.admit(request)
        return request

    async def until(self, condition: Callable[[], bool], most_s: float = 120.0) -> None:
        end = self.loop.time() + most_s
        while not condition():
            assert self.loop.time() < end, "it never came"
            await asyncio.sleep(0.005)

    async def settled(self) -> None:
        await self.until(lambda: all(request.answers for request in self.requests))

    def laws(self) -> None:
        """What holds whenever nothing is live: every call answered once, every credit back, every count 0."""
        for request in self.requests:
            assert request.outcome
            assert request.state is None
        assert self.entry.wheel.live == 0
        for pool in self.entry._pools.values():
            live = sum(len(link.batches) for link in pool.credits.links)
            assert pool.credits.acquired == pool.credits.released + live
            assert pool.waiting == pool.queue.live == 0
        for stats in self.exchange.models():
            assert stats.ongoing == stats.queued == 0
        assert sum(self.outcomes().values()) == len(self.requests)


def play(story: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a story in a virtual loop of its own."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(story(loop))
    finally:
        loop.close()
