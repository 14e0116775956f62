"""The fence: epochs, room that is given back, hosts that are gone; on an engine in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.unit.cluster.fake_engine import FakeEngine, over

from steersman.model.errors import DriverError

HOME = "abc"


class Place:
    """A cluster of two nodes that take connections, and a home's fence."""

    def __init__(self, engine: FakeEngine, fence: Any) -> None:
        self.engine, self._fence = engine, fence
        self.fence = self.anew()

    def anew(self) -> Any:
        """The fence as it is after its process died."""
        return self._fence.Fence({"home_id": HOME, "code": "x"}, object)

    def wish(self, run: str, rank: int = 0, *nodes: str) -> dict[str, Any]:
        gang = [{"node_id": node, "resources": {"CPU": 1.0}} for node in nodes or ("n1",)]
        return {
            "run": run,
            "rank": rank,
            "gang": gang,
            "environment": {},
            "node_dir": "",
            "lease_ms": 30_000,
        }

    @property
    def rooms(self) -> list[str]:
        return sorted(name.rpartition(".")[2] for name in self.engine.rooms)


Test = Callable[[Place], Awaitable[None]]


@pytest.fixture
def at_place() -> Iterator[Callable[[Test], None]]:
    """Runs a test with the fence's module over the fake engine."""
    engine = FakeEngine()

    def run(test: Test) -> None:
        async def whole() -> None:
            server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            engine.known = [
                {"id": name, "alive": True, "ip": "127.0.0.1", "port": port} for name in ("n1", "n2")
            ]
            async with server:
                await test(Place(engine, fence))

        asyncio.run(whole())

    with over(engine, "fence") as (fence,):
        yield run


async def refused(work: Awaitable[Any]) -> DriverError:
    with pytest.raises(DriverError) as error:
        await work
    return error.value


def test_the_highest_epoch_is_obeyed_also_by_a_fence_that_was_made_anew(
    at_place: Callable[[Test], None],
) -> None:
    async def test(place: Place) -> None:
        await place.fence.take(7)
        assert (await refused(place.fence.make(6, place.wish("a-1")))).code == "driver-fenced"
        anew = place.anew()
        assert (await refused(anew.drop(6, "a-1", 0))).code == "driver-fenced"
        assert await anew.hello() == {"code": "x", "epoch": 7}
        assert place.engine.made == []

    at_place(test)


def test_a_gang_has_one_room_and_gives_it_back_with_its_last_rank(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        for rank in (0, 1):
            await place.fence.make(1, place.wish("a-1", rank, "n1", "n2"))
        assert place.engine.made == [f"steersman.{HOME}.a-1"]
        await place.fence.drop(1, "a-1", 0)
        assert place.rooms == ["a-1"]
        await place.fence.drop(1, "a-1", 1)
        assert place.rooms == []

    at_place(test)


def test_both_ends_of_a_gang_at_one_time_leave_no_room(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        for rank in (0, 1):
            await place.fence.make(1, place.wish("a-1", rank, "n1", "n2"))
        await asyncio.gather(*[place.fence.drop(1, "a-1", rank) for rank in (0, 1)])
        assert place.rooms == []

    at_place(test)


@pytest.mark.parametrize("silent", [False, True])
def test_no_room_is_asked_of_a_node_that_is_gone_or_silent(
    at_place: Callable[[Test], None], silent: bool
) -> None:
    async def test(place: Place) -> None:
        node = place.engine.known[1]
        node |= {"port": 1} if silent else {"alive": False}
        error = await refused(place.fence.make(1, place.wish("a-1", 0, "n1", "n2")))
        assert (error.code, bool(error.hint)) == ("node-gone", True)
        assert ("does not answer" in error.message) == silent
        assert (place.engine.made, place.engine.actors) == ([], {})

    at_place(test)


def test_room_that_is_not_given_is_not_waited_for(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        place.engine.full = True
        error = await refused(place.fence.make(1, place.wish("a-1")))
        assert error.code == "cluster-busy"
        assert "CPU 1" in error.message
        assert (place.rooms, place.engine.actors) == ([], {})

    at_place(test)


def test_a_host_that_cannot_be_made_leaves_nothing(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        name = f"steersman.{HOME}.a-1.0"
        place.engine.silent.add(name)
        making = asyncio.ensure_future(place.fence.make(1, place.wish("a-1")))
        await place.engine.begun.wait()
        host = place.engine.actors[name]
        await place.fence.sweep(1, [])
        assert place.rooms == ["a-1"]  # it is being made
        await place.fence.drop(1, "a-1", 0)  # told to end before that
        assert (await refused(making)).code == "host-gone"
        assert [call[0] for call in host.calls] == ["hello"]  # nothing else is asked of who does not answer
        assert (place.rooms, place.engine.actors) == ([], {})

    at_place(test)


def test_the_sweep_gives_back_what_nobody_holds(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        for run in ("kept-1", "lives-2", "left-3"):
            await place.fence.make(1, place.wish(run))
        for run in ("kept-1", "left-3"):
            place.engine.actors.pop(f"steersman.{HOME}.{run}.0")
        assert (await refused(place.fence.sweep(0, []))).code == "driver-fenced"
        await place.fence.sweep(1, ["kept-1"])
        assert place.rooms == ["kept-1", "lives-2"]

    at_place(test)


def test_who_was_heard_and_what_is_there(at_place: Callable[[Test], None]) -> None:
    async def test(place: Place) -> None:
        await place.fence.make(1, place.wish("a-1"))
        place.engine.actors["steersman.other.b-1.0"] = place.engine.actors[f"steersman.{HOME}.a-1.0"]
        found = await place.fence.look(30_000)
        assert (found["hosts"], found["heard"], found["young"]) == ([["a-1", 0]], {"a-1/0": True}, True)
        found = await place.fence.look(-5_001)  # as if lease and margin were over
        assert (found["heard"], found["young"]) == ({"a-1/0": False}, False)
        place.fence.renew("a-1", 0)
        assert (await place.anew().look(30_000))["heard"] == {}

    at_place(test)
