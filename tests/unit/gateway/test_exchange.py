"""The exchange, whole, in virtual time: what callers get when everything works."""

import asyncio
from typing import Any

import pytest
from tests.unit.gateway.exchange_scene import Scene, VirtualLoop, play

from steersman.model.sketch import quantile
from steersman.ports import replica_wire as wire


def test_every_request_gets_its_own_answer_and_they_share_batches() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a")
            asked = [scene.ask(f"row {number}") for number in range(100)]
            assert not any(request.answers for request in asked)  # never from within admit
            await scene.settled()
            assert [request.output for request in asked] == [[f"a|row {n}".encode()] for n in range(100)]
            sizes = scene.replicas["a"].sizes
            assert sizes[0] == 1  # nothing is measured: sizes double
            assert all(size <= 2 * max(sizes[:at]) for at, size in enumerate(sizes) if at)
            assert max(sizes) > 8
            assert sum(sizes) == 100
            scene.laws()
            stats = scene.stats(1)
            assert (stats.rows, stats.batches, stats.outcomes) == (100, len(sizes), {"ok": 100})
            assert stats.replica_cpu_us > 0
            for sketch in (stats.latency_us, stats.waited_us, stats.model_us):
                assert sum(sketch.values()) == 100
            latency = quantile(stats.latency_us, 990)
            waited = quantile(stats.waited_us, 990)
            assert latency is not None
            assert waited is not None
            assert latency > waited > 1_000

    play(story)


def test_rows_of_one_request_stay_together_and_tensors_are_cut_by_shape() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", kind="tensor")
            first = scene.ask("aaaabbbb;ccccdddd")
            second = scene.ask("eeeeffff")
            other = scene.ask("gggg")
            await scene.settled()
            assert first.output == [((2,), b"aaaabbbbccccdddd")]
            assert second.output == [((2,), b"eeeeffff")]
            assert other.output == [((1,), b"gggg")]
            for rows in scene.replicas["a"].batches:
                assert len({len(row) for row in rows}) == 1  # one shape a batch
            scene.laws()

    play(story)


def test_more_rows_than_a_batch_takes_are_refused_as_the_callers_mistake() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, limits={"batch_size_max": 2}) as scene:
            await scene.serve("a")
            request = scene.ask("a;b;c")
            assert request.outcome == "invalid"
            assert "3 rows" in request.answers[0].error
            assert scene.stats(0).outcomes == {"invalid": 1}

    play(story)


def test_work_goes_to_the_least_loaded_replica_in_turn() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, limits={"batch_size_max": 1}) as scene:
            await scene.serve("a", "b", "c", fixed_s=0.01)
            for number in range(30):
                scene.ask(str(number))
            await scene.settled()
            assert {run: len(replica.sizes) for run, replica in scene.replicas.items()} == {
                "a": 10, "b": 10, "c": 10,
            }  # fmt: skip
            assert all(replica.running_max == 1 for replica in scene.replicas.values())
            scene.laws()

    play(story)


@pytest.mark.parametrize(("fixed_s", "most", "under_way"), [(0.0005, 2, 2), (0.05, 2, 1), (0.05, 8, 8)])
def test_a_second_batch_is_sent_ahead_only_while_batches_are_short(
    fixed_s: float, most: int, under_way: int
) -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, limits={"batch_size_max": 1}) as scene:
            await scene.serve("a", fixed_s=fixed_s, batches_max=most)
            for number in range(50):
                scene.ask(str(number))
            await scene.settled()
            assert scene.replicas["a"].running_max == under_way

    play(story)


def test_a_filling_delay_waits_for_company_and_no_longer() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, limits={"batch_wait_ms": 30}) as scene:
            await scene.serve("a", fixed_s=0.01)
            for number in range(31):
                scene.ask(str(number))
            await scene.settled()
            replica = scene.replicas["a"]
            replica.sizes.clear()
            began = loop.time()
            early = scene.ask("early")
            await asyncio.sleep(0.01)
            late = scene.ask("late")
            await scene.settled()
            assert replica.sizes == [2]
            assert early.dispatched == late.dispatched == pytest.approx(began + 0.03)
            scene.laws()

    play(story)


def test_held_requests_are_let_go_in_order_or_told_that_there_is_none() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, hold_ms=500, limits={"queued_max": 3}) as scene:
            scene.configure(("a", 1))
            assert scene.entry.pool() is None
            assert not scene.entry.ready()
            came: list[tuple[str, Any]] = []
            for name, wait_s in (("short", 0.1), ("one", 9.0), ("two", 9.0)):
                assert (
                    scene.entry.hold(lambda pool, name=name: came.append((name, pool)), loop.time() + wait_s)  # type: ignore[misc]  # a default binds the loop's value
                    is None
                )
            refused = scene.entry.hold(lambda pool: came.append(("three", pool)), loop.time() + 9)
            assert refused is not None
            assert refused.outcome == "queue-full"
            assert (scene.stats(0).ongoing, scene.stats(0).queued) == (3, 3)
            await asyncio.sleep(0.2)
            assert came == [("short", None)]
            await scene.replica("a")
            await scene.until(lambda: len(came) == 3)
            assert came[1:] == [("one", scene.pool), ("two", scene.pool)]
            assert scene.stats(0).queued == 0
            assert scene.outcomes() == {"queue-full": 1, "no-replica": 1}

    play(story)


def test_without_a_hold_time_a_request_is_refused_at_once() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            scene.configure(("a", 1))
            answer = scene.entry.hold(lambda pool: None, loop.time() + 1)
            assert answer is not None
            assert answer.outcome == "no-replica"

    play(story)


def test_the_queue_is_bounded_and_the_rest_is_refused_with_a_time() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, limits={"queued_max": 10, "batch_size_max": 1}) as scene:
            await scene.serve("a", fixed_s=0.02, row_s=0)
            asked = [scene.ask(str(number)) for number in range(25)]
            refused = [request for request in asked if request.answers]
            assert [request.outcome for request in refused] == ["queue-full"] * 15
            assert all((request.answers[0].retry_after_s or 0) > 0 for request in refused)
            await scene.settled()
            scene.laws()

    play(story)


def test_a_flood_of_one_caller_leaves_room_for_another() -> None:
    async def story(loop: VirtualLoop) -> None:
        limits = {"queued_max": 80, "batch_size_max": 1}
        async with Scene(loop, limits=limits, keys=("flood", "polite")) as scene:
            await scene.serve("a", fixed_s=0.02, row_s=0)
            scene.ask("learn")
            await scene.settled()
            for number in range(200):
                scene.ask(f"flood {number}", caller="flood")
            polite = [scene.ask(f"polite {number}", caller="polite") for number in range(2)]
            assert not any(request.answers for request in polite)
            await scene.settled()
            assert [request.outcome for request in polite] == ["ok", "ok"]
            assert max(request.answered[0] - request.received for request in polite) < 0.15
            scene.laws()

    play(story)


def test_a_deadline_that_cannot_be_met_is_refused_at_the_door() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", fixed_s=0.05)
            for _ in range(8):
                scene.ask("learn")
            await scene.settled()
            hopeless = scene.ask("now!", timeout_s=0.01)
            assert hopeless.outcome == "deadline"
            fine = scene.ask("later", timeout_s=0.5)
            await scene.settled()
            assert fine.outcome == "ok"
            passed = scene.ask("passed", timeout_s=-1)
            assert passed.outcome == "deadline"
            scene.laws()

    play(story)


def test_overload_is_shed_and_those_let_in_keep_to_the_objective() -> None:
    """Ten times what the replicas can do, for a second: 99 of 100 admitted stay within twice the unloaded."""

    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, slo_latency_ms=9, limits={"batch_size_max": 16}) as scene:
            await scene.serve("a", "b", fixed_s=0.004, row_s=0.0005)
            for number in range(200):  # unloaded
                scene.ask(str(number))
                await asyncio.sleep(0.02)
            await scene.settled()
            unloaded = _p99(scene)
            capacity = 2 * 4 / (0.004 + 4 * 0.0005)
            scene.requests.clear()
            for number in range(int(10 * capacity)):
                scene.ask(str(number))
                if number % 10 == 9:
                    await asyncio.sleep(1 / capacity)
            await scene.settled()
            assert _p99(scene) <= 2 * unloaded
            answered = [request for request in scene.requests if request.outcome == "ok"]
            assert len(answered) >= 0.9 * 2 / 0.0045  # it works on: at least what two do row by row
            assert {request.outcome for request in scene.requests} == {"ok", "deadline"}
            await asyncio.sleep(0.1)
            late = scene.ask("after")  # and it has recovered
            await scene.settled()
            assert late.answered[0] - late.received <= 2 * unloaded

    play(story)


def test_an_objective_below_two_batches_lets_a_few_wait_and_a_flood_hardly_at_all() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, slo_latency_ms=5, limits={"batch_size_max": 1}) as scene:
            await scene.serve("a", fixed_s=0.004, row_s=0.0, batches_max=1)
            for number in range(50):  # two at a time: the second waits for the first, and nobody is refused
                scene.ask(f"{number}")
                scene.ask(f"{number} again")
                await asyncio.sleep(0.05)
            await scene.settled()
            assert {request.outcome for request in scene.requests} == {"ok"}
            scene.requests.clear()
            for number in range(2_500):  # ten times what the replica can do
                scene.ask(str(number))
                await asyncio.sleep(0.0004)
            await scene.settled()
            del scene.requests[:100]  # the first 40 ms: until it is seen to be a flood
            answered = [request for request in scene.requests if request.outcome == "ok"]
            assert len(answered) >= 0.85 * 0.96 / 0.004
            assert _p99(scene) <= 1.5 * 0.004

    play(story)


def _p99(scene: Scene) -> float:
    times = sorted(r.answered[0] - r.received for r in scene.requests if r.outcome == "ok")
    return times[int(0.99 * (len(times) - 1))]


def test_a_stream_comes_piece_by_piece_and_ends_once() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", stream=True, batches_max=64)
            request = scene.ask("hang")  # the stub says nothing by itself
            await scene.until(lambda: bool(scene.replicas["a"].sizes))
            replica = scene.replicas["a"]
            for piece in (b"1", b"2"):
                replica.send(wire.PART, 1, 1, {"row": 0, "last": False}, piece)
            replica.send(wire.PART, 1, 1, {"row": 0, "last": True})
            await scene.settled()
            assert request.pieces == [b"1", b"2"]
            assert request.outcome == "ok"
            failed = scene.ask("hang")
            await scene.until(lambda: len(replica.sizes) == 2)
            replica.send(wire.PART, 2, 1, {"row": 0, "last": False}, b"3")
            replica.send(wire.PART, 2, 1, {"row": 0, "last": True, "error": "no more"})
            await scene.settled()
            assert (failed.pieces, failed.outcome, failed.answers[0].error) == (
                [b"3"],
                "model-error",
                "no more",
            )
            scene.laws()

    play(story)


def test_the_same_configuration_twice_changes_nothing() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a")
            pool = scene.pool
            link = next(iter(pool.credits.links))
            codec = pool.codec
            for _ in range(3):
                scene.configure(("a", 1))
                await asyncio.sleep(0.1)
            assert list(scene.pool.credits.links) == [link]
            assert scene.pool.codec is codec
            scene.configure(("a", 1), limits={"batch_size_max": 3})
            assert scene.pool.codec is not codec
            for number in range(20):
                scene.ask(str(number))
            await scene.settled()
            assert max(scene.replicas["a"].sizes) <= 3

    play(story)


def test_figures_are_of_configured_services_only() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a")
            scene.exchange.count("digits", "unauthorized")
            for number in range(100):
                scene.exchange.count(f"made-up-{number}", "unauthorized")
            assert {stats.service for stats in scene.exchange.models()} == {"digits"}
            assert scene.outcomes() == {"unauthorized": 1}
            scene.configure(("b", 2))
            await asyncio.sleep(1)
            assert [stats.revision for stats in scene.exchange.models()] == [0, 1, 2]
            await asyncio.sleep(20)
            assert [stats.revision for stats in scene.exchange.models()] == [0, 2]

    play(story)


def test_the_integral_of_requests_under_way_is_exact() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, limits={"batch_size_max": 1}) as scene:
            await scene.serve("a", fixed_s=0.1, row_s=0.0)
            scene.ask("one")
            scene.ask("two")
            await scene.settled()
            await asyncio.sleep(1)
            waiting, served = scene.stats(0), scene.stats(1)
            assert waiting.queued_us == pytest.approx(100_000, rel=0.02)
            assert served.ongoing_us == pytest.approx(200_000, rel=0.02)
            assert served.queued_us == 0

    play(story)
