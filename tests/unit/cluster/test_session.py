"""The end of a bridge's life: what has ended is let go of, what runs is left; on an engine in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.cluster.fake_engine import FakeEngine, over

from steersman.dataplane.cluster.mirror import Mirror
from steersman.dataplane.cluster.words import answered, fence_name, group_name, host_name
from steersman.ports import run_dir

HOME = "abc"
CLUSTER = {"name": "gpu", "address": "head:6379", "lease_ms": 30_000, "node_dir": "", "runtime_env": {}}


def handle(do: Callable[[str, list[Any]], Awaitable[Any]]) -> SimpleNamespace:
    """An actor whose `do` is this."""
    return SimpleNamespace(do=SimpleNamespace(remote=lambda *said: asyncio.ensure_future(do(*said))))


class Place:
    """A home with a session, on a cluster of one node."""

    def __init__(self, engine: FakeEngine, fence: Any, session: Any, home: Path) -> None:
        self.engine, self.home = engine, home
        engine.known = [{"id": "n1", "alive": True, "ip": "127.0.0.1", "port": 1}]
        made = fence.Fence({"home_id": HOME, "code": "x"}, object)
        engine.actors[fence_name(HOME)] = handle(
            lambda verb, arguments: answered(lambda: getattr(made, verb)(*arguments))
        )
        settings = {"cluster": CLUSTER, "home": str(home), "home_id": HOME, "epoch": 1}
        self.session = session.Session(settings, home, lambda: None)

    def host(self, run: str, *, ended: bool, known: bool = True) -> None:
        """One with its room, as it is once its rank has begun; `known` to this session."""
        where = {"node_id": "n1"}
        self.engine.make_host(object, host_name(HOME, run, 0), where)
        self.engine.reserve(group_name(HOME, run), [{}], ["n1"])
        mirror = Mirror(self.home, run, 0)
        mirror.claim(1, {"driver": "ray", "cluster": "gpu"})
        mirror.keep(begun=True, node_id="n1")
        if ended:
            (mirror.folder / run_dir.EXIT).write_text(json.dumps({"exit_code": 0}))
        if known:
            self.session._mirrors[mirror.key] = mirror

    @property
    def hosts(self) -> list[str]:
        prefix = f"steersman.{HOME}."
        return sorted(name.removeprefix(prefix) for name in self.engine.actors if not name.endswith("fence"))

    @property
    def rooms(self) -> list[str]:
        return sorted(name.rpartition(".")[2] for name in self.engine.rooms)


Test = Callable[[Place], Awaitable[None]]


@pytest.fixture
def at_place(tmp_path: Path) -> Iterator[Callable[[Test], None]]:
    """Runs a test with the session's modules over the fake engine."""
    engine = FakeEngine()

    def run(test: Test) -> None:
        async def whole() -> None:
            await test(Place(engine, fence, session, tmp_path))

        asyncio.run(whole())

    with over(engine, "fence", "actors", "session") as (fence, _, session):
        yield run


def test_at_the_end_the_hosts_of_what_has_ended_are_gone_and_no_others(
    at_place: Callable[[Test], None],
) -> None:
    async def test(place: Place) -> None:
        place.host("ended-1", ended=True)
        place.host("ended-2", ended=True, known=False)
        place.host("runs-3", ended=False)
        await place.session.finish()
        assert (place.hosts, place.rooms) == (["runs-3.0"], ["runs-3"])

    at_place(test)


def test_the_end_does_not_wait_for_a_host_that_does_not_answer(
    at_place: Callable[[Test], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(place: Place) -> None:
        monkeypatch.setitem(place.session.finish.__globals__, "FINISH_SECONDS_MAX", 0.2)
        place.host("ended-1", ended=True)
        place.host("ended-2", ended=True)
        place.engine.silent.add(host_name(HOME, "ended-1", 0))
        async with asyncio.timeout(5.0):
            await place.session.finish()
        assert place.hosts == ["ended-1.0"]

    at_place(test)


def test_the_end_does_not_wait_for_a_cluster_that_is_away(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        place.host("ended-1", ended=True)
        place.engine.actors[fence_name(HOME)] = handle(away)
        await place.session.finish()
        assert place.hosts == ["ended-1.0"]

    async def away(*_: object) -> None:
        raise TimeoutError

    at_place(test)


async def seen(place: Place, holds: Callable[[], bool]) -> None:
    """Looks until it is so."""
    async with asyncio.timeout(10.0):
        while not holds():
            await place.session._look()
            await asyncio.sleep(0.01)


def test_a_host_that_a_dying_fence_left_half_made_is_let_go_of(at_place: Callable[[Test], None]) -> None:
    """Its order was taken back as the fence did not answer, but for the epoch; then it came after all."""

    async def test(place: Place) -> None:
        place.host("half-1", ended=False, known=False)
        Mirror(place.home, "half-1", 0).unclaim()
        place.host("runs-2", ended=False)
        await seen(place, lambda: place.hosts == ["runs-2.0"])
        assert place.rooms == ["runs-2"]
        assert not Mirror(place.home, "half-1", 0).claimed()

    at_place(test)


def test_a_rank_that_runs_and_that_nobody_knows_is_taken_in(at_place: Callable[[Test], None]) -> None:
    """Also when its folder has seen a higher epoch than its order is of."""

    async def test(place: Place) -> None:
        place.host("stray-1", ended=False, known=False)
        mirror = Mirror(place.home, "stray-1", 0)
        mirror.accept(4)
        mirror.unclaim()
        order = json.dumps({"decision": "7.0", "epoch": 2})
        place.engine.actors[host_name(HOME, "stray-1", 0)].order = {"text": order}
        await seen(place, lambda: ("stray-1", 0) in place.session._mirrors)
        assert place.hosts == ["stray-1.0"]
        taken = Mirror(place.home, "stray-1", 0)
        assert (taken.order()["decision"], taken.begun, taken.node_id) == ("7.0", True, "n1")

    at_place(test)


def test_what_is_being_started_is_no_stray(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        key = ("new-1", 0)
        place.host("new-1", ended=False, known=False)
        Mirror(place.home, *key).unclaim()
        async with place.session._locks.setdefault(key, asyncio.Lock()):
            await place.session._look()
            await asyncio.sleep(0.05)
            place.session._mirrors[key] = Mirror(place.home, *key)
        await asyncio.gather(*place.session._tenders.values())
        assert place.hosts == ["new-1.0"]

    at_place(test)
