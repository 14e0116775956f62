"""The exchange when replicas fail, leave, hang, lie or change: nothing is lost or mixed up."""

import asyncio

import pytest
from tests.unit.gateway.exchange_scene import SERVICE, Scene, VirtualLoop, play

from steersman.ports import replica_wire as wire


def test_a_killed_replicas_calls_are_tried_once_elsewhere_and_go_first() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", "b", fixed_s=0.05)
            asked = [scene.ask(str(number)) for number in range(40)]
            await asyncio.sleep(0.12)
            scene.replicas["a"].kill()
            await scene.settled()
            assert [request.outcome for request in asked] == ["ok"] * 40
            assert {request.tries for request in asked} == {0, 1}
            assert scene.stats(1).retried > 0
            scene.laws()

    play(story)


def test_a_request_that_kills_replicas_does_so_twice_at_most() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", "b", "c")
            poison = scene.ask("kill")
            await scene.settled()
            assert poison.outcome == "replica-lost"
            assert sorted(replica.dead for replica in scene.replicas.values()) == [False, True, True]
            fine = scene.ask("fine")
            await scene.settled()
            assert fine.outcome == "ok"
            scene.laws()

    play(story)


def test_only_the_row_at_fault_fails_and_the_others_are_tried_alone() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", fixed_s=0.01)
            for number in range(15):
                scene.ask(str(number))
            asked = [scene.ask("fail" if number == 5 else f"x{number}") for number in range(8)]
            await scene.settled()
            assert [request.outcome for request in asked].count("model-error") == 1
            assert asked[5].outcome == "model-error"
            assert asked[5].answers[0].error == "it failed"
            together = next(rows for rows in scene.replicas["a"].batches if b"fail" in rows and len(rows) > 1)
            after = scene.replicas["a"].batches[scene.replicas["a"].batches.index(together) + 1 :]
            assert [len(rows) for rows in after[: len(together)]] == [1] * len(together)
            scene.laws()

    play(story)


def test_a_result_of_the_wrong_length_is_an_error_of_its_batch_only() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a")
            bent = scene.ask("bend")
            await scene.settled()
            assert bent.outcome == "model-error"
            assert "wrong-shape" in bent.answers[0].error
            fine = scene.ask("fine")
            await scene.settled()
            assert fine.output == [b"a|fine"]
            scene.laws()

    play(story)


def test_a_row_without_a_finite_output_fails_alone() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", kind="tensor")
            for _ in range(7):
                scene.ask("aaaa")
            rows = [scene.ask("bbbb"), scene.ask("aaaa;nan!"), scene.ask("cccc")]
            await scene.settled()
            assert [request.outcome for request in rows] == ["ok", "model-error", "ok"]
            assert scene.stats(1).retried == 0
            scene.laws()

    play(story)


@pytest.mark.parametrize(
    "more",
    [{}, {"64": "?"}, {"x": "?"}],
    ids=["as it is", "a row that is not there", "no row at all"],
)
def test_a_row_that_the_model_raised_on_fails_alone(more: dict[str, str]) -> None:
    """Also when the replica names rows that are not there: such an answer is not believed, and each row is
    tried alone."""

    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", more_errors=more)
            for _ in range(7):
                scene.ask("even")
            rows = [scene.ask("even"), scene.ask("odd"), scene.ask("even")]
            await scene.settled()
            assert [request.outcome for request in rows] == ["ok", "model-error", "ok"]
            assert (rows[1].answers[0].error == "it is odd") == (not more)
            assert (scene.stats(1).retried > 0) == bool(more)
            scene.laws()

    play(story)


def test_draining_is_answered_at_once_and_loses_nothing() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", "b", fixed_s=0.05)
            first = [scene.ask(str(number)) for number in range(20)]
            await asyncio.sleep(0.01)
            scene.replicas["a"].drain()
            await asyncio.sleep(0.001)
            assert scene.replicas["a"].drained
            seen = len(scene.replicas["a"].sizes)
            second = [scene.ask(str(number)) for number in range(20)]
            await scene.settled()
            assert {request.outcome for request in first + second} == {"ok"}
            assert {request.tries for request in first + second} == {0}
            assert len(scene.replicas["a"].sizes) == seen
            assert scene.linked() == 1
            scene.laws()

    play(story)


def test_a_replica_out_of_the_configuration_finishes_and_is_closed() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", "b", fixed_s=0.05)
            asked = [scene.ask(str(number)) for number in range(2)]
            await asyncio.sleep(0.01)
            scene.configure(("b", 1))
            assert scene.replicas["a"].transport is not None  # its batch is under way
            await scene.settled()
            await asyncio.sleep(0.1)
            assert [request.outcome for request in asked] == ["ok", "ok"]
            assert {request.tries for request in asked} == {0}
            assert scene.replicas["a"].transport is None
            scene.laws()

    play(story)


def test_calls_move_to_the_other_signature_when_theirs_goes() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.replica("old", revision=1, kind="tensor", fixed_s=0.05)
            scene.configure(("old", 1))
            await scene.until(lambda: scene.linked() == 1)
            old = scene.pool
            asked = [scene.ask(f"row{number}") for number in range(8)]
            await scene.replica("new", revision=2, fixed_s=0.05)
            scene.configure(("old", 1), ("new", 2))
            await asyncio.sleep(0.03)
            assert scene.linked() == 2
            scene.replicas["old"].kill()
            await asyncio.sleep(0.001)
            straggler = scene.ask("late", pool=old)  # the front found its pool before that
            await scene.settled()
            assert {request.outcome for request in [*asked, straggler]} == {"ok"}
            assert straggler.output == [b"new|late"]
            assert scene.reread_calls == 9
            assert scene.pool.revision == 2
            scene.laws()

    play(story)


def test_two_signatures_share_new_requests_by_ready_replicas() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            for run, revision in (("a", 1), ("b", 1), ("c", 1), ("d", 2)):
                await scene.replica(run, revision=revision, batch_size_max=8 * revision)
            scene.configure(("a", 1), ("b", 1), ("c", 1), ("d", 2))
            await scene.until(lambda: scene.linked() == 4)
            chosen = [scene.pool.revision for _ in range(40)]
            assert chosen.count(2) == 10
            assert [chosen[index : index + 4].count(2) for index in range(0, 40, 4)] == [1] * 10

    play(story)


def test_waiting_calls_outlive_the_last_replica_for_the_hold_time() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, hold_ms=1_000) as scene:
            await scene.serve("a", fixed_s=0.05)
            saved = [scene.ask(str(number)) for number in range(5)]
            await asyncio.sleep(0.01)
            scene.replicas["a"].kill()
            await asyncio.sleep(0.5)
            await scene.replica("b", fixed_s=0.05)
            scene.configure(("b", 1))
            await scene.settled()
            assert {request.outcome for request in saved} == {"ok"}
            lost = [scene.ask(str(number)) for number in range(5)]
            await asyncio.sleep(0.01)
            scene.replicas["b"].kill()
            gone = loop.time()
            await scene.settled()
            assert sorted(request.outcome for request in lost)[-1] == "replica-lost"
            assert {request.outcome for request in lost} == {"no-replica", "replica-lost"}
            assert max(request.answered[0] for request in lost) == pytest.approx(gone + 1, abs=0.05)
            scene.laws()

    play(story)


def test_a_hanging_replica_is_cut_off_and_its_calls_are_answered_elsewhere() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, limits={"timeout_ms": 1_000}) as scene:
            await scene.serve("a")
            stuck = scene.ask("hang", timeout_s=60)
            await scene.replica("b")
            scene.configure(("a", 1), ("b", 1))
            await asyncio.sleep(4.9)
            assert scene.linked() == 2
            await asyncio.sleep(0.2)
            assert scene.linked() == 1  # "a" listens again but is left alone for a while
            assert "hangs" in scene.entry.problems()[0]
            assert not stuck.answers
            await scene.settled()
            assert stuck.outcome == "replica-lost"  # it hung the second one as well
            scene.laws()

    play(story)


def test_only_its_own_deadline_ends_a_call_that_was_let_in() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", fixed_s=0.3)
            early = scene.ask("early", timeout_s=0.1)
            waiting = scene.ask("waiting", timeout_s=0.2)
            fine = scene.ask("fine", timeout_s=30)
            await scene.settled()
            assert (early.outcome, waiting.outcome, fine.outcome) == ("timeout", "timeout", "ok")
            assert 0.1 <= early.answered[0] - early.received < 0.15
            assert scene.replicas["a"].cancelled == [1]  # nobody waited for the first batch any more
            scene.laws()

    play(story)


def test_a_caller_who_leaves_is_forgotten_wherever_the_call_is() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", fixed_s=0.05)
            first, second, third = (scene.ask(name) for name in ("one", "two", "three"))
            await asyncio.sleep(0.001)
            scene.pool.cancel(first)
            scene.pool.cancel(second)
            scene.pool.cancel(second)
            assert (first.outcome, second.outcome) == ("client-gone", "client-gone")
            await scene.settled()
            assert third.outcome == "ok"
            assert [b"two"] not in scene.replicas["a"].batches
            assert scene.replicas["a"].cancelled == [1]
            await asyncio.sleep(0.1)
            scene.laws()

    play(story)


def test_a_stream_that_has_begun_is_not_begun_again() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.serve("a", "b", stream=True)
            begun, not_begun = scene.ask("hang begun"), scene.ask("hang not")
            await asyncio.sleep(0.01)
            replica = next(each for each in scene.replicas.values() if each.batches == [[b"hang begun"]])
            replica.send(wire.PART, 1, 1, {"row": 0, "last": False}, b"1")
            await asyncio.sleep(0.001)
            replica.kill()
            await asyncio.sleep(0.01)
            other = next(each for each in scene.replicas.values() if not each.dead)
            assert begun.outcome == "replica-lost"
            assert not not_begun.answers
            other.send(wire.PART, 1, 1, {"row": 0, "last": True})
            await scene.settled()
            scene.laws()

    play(story)


def test_a_service_that_is_removed_answers_everyone() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop, hold_ms=60_000) as scene:
            await scene.serve("a", fixed_s=0.05)
            entry, pool = scene.entry, scene.pool
            asked = [scene.ask(str(number)) for number in range(4)]
            await asyncio.sleep(0.01)
            config = scene.config()
            scene.exchange.configure(
                type(config)(epoch=1, position=2, gateway=config.gateway, services=(), keys=())
            )
            assert scene.exchange.entry(SERVICE) is None
            await scene.settled()
            assert [request.outcome for request in asked] == ["ok", *["no-replica"] * 3]
            straggler = scene.ask("late", pool=pool)
            assert straggler.outcome == "no-replica"
            await scene.until(entry.quiet)
            assert scene.exchange.models() == ()

    play(story)


def test_closing_answers_what_is_live() -> None:
    async def story(loop: VirtualLoop) -> None:
        scene = Scene(loop, hold_ms=60_000)
        async with scene:
            await scene.serve("a", fixed_s=0.5)
            asked = [scene.ask(str(number)) for number in range(3)]
            await asyncio.sleep(0.01)
        assert sorted(request.outcome for request in asked) == ["no-replica", "no-replica", "replica-lost"]

    play(story)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"protocol": 2}, "protocol 2"),
        ({"service": "other"}, "not 'digits' revision 1"),
        ({"revision": 7}, "revision 7"),
        ({"kind": "soup"}, "kind"),
        ({"batches_max": 0}, "at least 1"),
        ({"inputs": [{"name": "x", "dtype": "BYTES", "shape": []}]}, "BYTES"),
        ({"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1]}]}, "below zero"),
    ],
)
def test_a_replica_that_says_the_wrong_thing_first_is_never_used(
    change: dict[str, object], word: str
) -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            await scene.replica("a", hello=change)
            scene.configure(("a", 1))
            await asyncio.sleep(0.5)
            assert scene.entry.pool() is None
            assert word in scene.entry.problems()[0]

    play(story)


def test_a_silent_replica_is_cut_off() -> None:
    async def story(loop: VirtualLoop) -> None:
        async with Scene(loop) as scene:
            replica = await scene.replica("a")
            replica.dead = True  # sends nothing
            scene.configure(("a", 1))
            await asyncio.sleep(5.2)
            assert "said nothing" in scene.entry.problems()[0]
            replica.dead = False
            await scene.until(lambda: scene.linked() == 1)

    play(story)
