"""Whatever happens to replicas and callers, every call let in gets exactly one answer, and its own.

Theory: a random story of requests, kills, drains, new replicas, configurations and leaving callers is played
against the whole exchange in virtual time, on real sockets and frames. At the end replicas are put in place,
everything comes to rest, and the laws of the scene are checked.
"""

import asyncio
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gateway.exchange_scene import Replica, Scene, VirtualLoop, play

from steersman.ports.gateway import Outcome

POSSIBLE = frozenset(get_args(Outcome)) - {"invalid", "unauthorized", "rate-limited"}
"""How a request that the exchange was given may end: what the front refuses never gets there."""

EVENTS = ["kill", "drain", "add", "unconfigure", "leave", "poison", "garbage"]
STEP = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 20)),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(
        st.sampled_from(["kill", "drain", "add", "unconfigure", "leave", "poison", "garbage"]),
        st.integers(0, 7),
    ),
)


class _Story:
    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.configured: list[tuple[str, int]] = []
        self.asked = 0

    def alive(self) -> list[Replica]:
        return [
            replica for replica in self.scene.replicas.values() if not replica.dead and not replica.drained
        ]

    async def add(self, number: int) -> None:
        run = f"r{len(self.scene.replicas)}"
        revision = 1 + number % 2
        batch_size_max = 16 if number < 6 else 8  # a signature of its own now and then
        await self.scene.replica(run, revision=revision, fixed_s=0.005, batch_size_max=batch_size_max)
        self.configured.append((run, revision))
        self.scene.configure(*self.configured)

    def ask(self, count: int, word: str = "row") -> None:
        pool = self.scene.entry.pool()
        if pool is None:
            return
        for _ in range(count):
            self.asked += 1
            caller = f"caller {self.asked % 3}"
            self.scene.ask(
                f"{word} {self.asked}", caller=caller, band=self.asked % 3, pool=pool, timeout_s=20
            )

    async def step(self, kind: str, number: int) -> None:
        alive = self.alive()
        chosen = alive[number % len(alive)] if alive else None
        if kind == "wait":
            await asyncio.sleep(number / 1000)
        elif kind == "add":
            await self.add(number)
        elif kind in ("ask", "poison"):
            self.ask(
                number if kind == "ask" else 1,
                "row" if kind == "ask" else ["kill", "fail", "bend"][number % 3],
            )
        elif kind == "leave":
            for request in self.scene.requests[-number:]:
                if not request.answers:
                    next(iter(self.scene.entry._pools.values())).cancel(request)
        elif chosen is not None:
            self.strike(kind, chosen)

    def strike(self, kind: str, chosen: Replica) -> None:
        if kind == "kill":
            chosen.kill()
        elif kind == "drain":
            chosen.drain()
        elif kind == "garbage":
            chosen.raw(b"\xff" * 40)
        else:
            self.configured = [each for each in self.configured if each[0] != chosen.run]
            self.scene.configure(*self.configured)

    async def end(self) -> None:
        await self.add(0)
        await self.scene.settled()
        for request in self.scene.requests:
            if request.outcome == "ok":
                assert request.output[0].split(b"|")[1] == request.body
            assert request.outcome in POSSIBLE
            assert request.tries <= 1
        await asyncio.sleep(1)
        self.scene.laws()


@given(st.lists(STEP, max_size=40), st.sampled_from([0, 500]))
def test_nothing_is_lost_and_nobody_gets_anothers_answer(steps: list[tuple[str, int]], hold_ms: int) -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, hold_ms=hold_ms, limits={"queued_max": 50}) as scene:
            told = _Story(scene)
            await told.add(0)
            await told.add(1)
            await scene.until(lambda: scene.linked() > 0)
            for kind, number in steps:
                await told.step(kind, number)
                assert scene.entry.waiting.queued <= 50 + 20 * 2  # second tries were let in before
            await told.end()

    play(story)
