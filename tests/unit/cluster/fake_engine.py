"""An engine in memory in the place of `dataplane.cluster.api`, for the fence: actors are records.

It does what was seen of Ray: an actor that was ended is listed for a moment more, room is given or not, and
what was remembered lives as long as the cluster. `silent` are hosts that never answer.
"""

import asyncio
import contextlib
import importlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steersman.model.errors import DriverError

PACKAGE = "steersman.dataplane.cluster"


class GoneError(Exception):
    """What a call of an actor that is gone raises."""


class Call:
    """`handle.METHOD.remote(…)`."""

    def __init__(self, actor: "Actor", method: str) -> None:
        self._actor, self._method = actor, method

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._actor.calls.append((self._method, *arguments))
        if self._actor.ended:
            answer.set_exception(GoneError("the actor died"))
        elif self._actor.name in self._actor.engine.silent:
            self._actor.waiting.append(answer)
        else:
            answer.set_result({"value": self._actor.answer(*arguments)})
        return answer


class Actor:
    """A host."""

    def __init__(self, engine: "FakeEngine", name: str, node: str) -> None:
        self.engine, self.name, self.node = engine, name, node
        self.ended = False
        self.calls: list[tuple[Any, ...]] = []
        self.waiting: list[asyncio.Future[Any]] = []
        self.order: dict[str, str] | None = None
        """What was begun on it."""
        self.do, self.hello = Call(self, "do"), Call(self, "hello")

    def answer(self, verb: str = "hello", *_: Any) -> Any:
        """What it says."""
        return {"order": self.order, "where": self.node}.get(verb, {"node_id": self.node})


class FakeEngine(types.ModuleType):
    """See the module."""

    ERRORS = (GoneError, TimeoutError)
    Handle = Any

    def __init__(self) -> None:
        super().__init__("steersman.dataplane.cluster.api")
        self.words: dict[str, str] = {}
        self.actors: dict[str, Any] = {}
        self.lingering: dict[str, int] = {}
        self.rooms: dict[str, list[str]] = {}
        self.made: list[str] = []
        self.full, self.silent = False, set[str]()
        self.begun = asyncio.Event()
        """A host is being made."""
        self.known: list[dict[str, Any]] = []

    def remember(self, key: str, text: str) -> None:
        self.words[key] = text

    def remembered(self, key: str) -> str:
        return self.words.get(key, "")

    def nodes(self) -> list[dict[str, Any]]:
        return self.known

    def names(self) -> list[str]:
        """Living ones, and those that were ended and are still listed."""
        listed = [*self.actors, *self.lingering]
        self.lingering = {name: left - 1 for name, left in self.lingering.items() if left > 1}
        return listed

    def find(self, name: str) -> Actor | None:
        return self.actors.get(name)

    def make_host(self, _actor: type, name: str, wish: Mapping[str, Any], *_spec: Any) -> Actor:
        self.begun.set()
        made: Actor = self.actors.setdefault(name, Actor(self, name, wish["node_id"]))
        return made

    def end(self, handle: Actor) -> None:
        handle.ended = True
        self.actors.pop(handle.name, None)
        self.lingering[handle.name] = 3
        for answer in handle.waiting:
            if not answer.done():
                answer.set_exception(GoneError("the actor died"))

    async def value(self, ref: asyncio.Future[Any], seconds: float) -> Any:
        return await asyncio.wait_for(ref, seconds)

    def told(self, error: BaseException, what: str) -> DriverError:
        return DriverError(f"{what}: {error}", code="host-gone")

    def group(self, name: str) -> str | None:
        return name if name in self.rooms else None

    def groups(self) -> list[str]:
        return [*self.rooms, "somebody-else"]

    def reserve(self, name: str, bundles: Sequence[Mapping[str, float]], nodes: Sequence[str]) -> str:
        assert len(bundles) == len(nodes)
        self.rooms[name] = list(nodes)
        self.made.append(name)
        return name

    def granted(self, _reservation: str, _seconds: float) -> bool:
        return not self.full

    def release(self, reservation: str) -> None:
        self.rooms.pop(reservation, None)


@contextlib.contextmanager
def over(engine: FakeEngine, *names: str) -> Iterator[list[Any]]:
    """Modules of the package as they are with this engine, the one they import first."""
    package = importlib.import_module(PACKAGE)
    whole = [f"{PACKAGE}.{name}" for name in ("api", *names)]
    kept = {name: sys.modules.pop(name, None) for name in whole}
    before = {name: getattr(package, name, None) for name in ("api", *names)}
    sys.modules[whole[0]] = engine
    package.api = engine  # type: ignore[attr-defined]  # as an import of the module would
    try:
        yield [importlib.import_module(name) for name in whole[1:]]
    finally:
        for name, module in kept.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module
        for name, value in before.items():
            if value is None:
                delattr(package, name)
            else:
                setattr(package, name, value)
