"""How long a replica that ended waits for its next try, and what counts as a failure of its own."""

from tests.scenarios.serving import Shop, service, up
from tests.scenarios.test_services import FOUR

from steersman.model.decisions import Stop
from steersman.model.events import Decided, NodeHealth, RankExited
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.reasons import Code, reason
from steersman.model.service import GATEWAY_NAME, RolloutPolicy
from steersman.model.snapshot import Phase


def ready_for(shop: Shop, served_ms: int, name: str = "digits.1") -> None:
    """Let it start, and be ready for so long."""
    while not shop.wanted()[0].ready:
        shop.cycle(*shop.world(), after_ms=10)
    since_ms = shop.run(name).ready_ms
    assert since_ms is not None
    shop.cycle(after_ms=since_ms + served_ms - shop.now_ms)


def waited_after(shop: Shop, *, code: int | None = None, signal: int | None = None) -> int:
    """Its program ends at once: how long it has to wait, in milliseconds."""
    shop.end("digits.1", code=code, signal=signal, after_ms=0)
    wait_ms = shop.state("digits.1").not_before_ms - shop.now_ms
    shop.cycle(after_ms=wait_ms)
    return wait_ms


def test_a_replica_that_gets_ready_and_dies_soon_backs_off_longer_each_time() -> None:
    """Ready and gone within seconds, again and again: doubled up to the most, and not a restart a second."""
    shop = up(FOUR)
    waits = []
    for failures in range(1, 12):
        ready_for(shop, 3_000)
        waits.append(waited_after(shop, signal=9))
        assert shop.state("digits.1").failures == failures
    assert waits == [1_000 * 2**at for at in range(9)] + [300_000] * 2
    ready_for(shop, 9_999)
    assert waited_after(shop, signal=9) == 300_000
    ready_for(shop, 10_000)
    assert waited_after(shop, signal=9) == 0, "it had served for a while"
    ready_for(shop, 3_000)
    assert waited_after(shop, signal=9) == 1_000, "and that is not held against it"
    shop.rest()
    assert shop.ready() == 1


def test_soon_is_counted_from_ready_and_not_from_the_start() -> None:
    """A model that loads for a minute and is gone three seconds later had not served for a while."""
    shop = up(FOUR)
    ready_for(shop, 20_000)
    shop.hung = {"digits.1"}
    waited_after(shop, code=1)
    shop.pass_ms(60_000)
    shop.hung = set()
    ready_for(shop, 3_000)
    assert waited_after(shop, code=1) == 1_000


def test_soon_is_as_long_as_it_must_be_ready() -> None:
    """`ready_ms_min` beyond the ten seconds of a crash loop: an end before it is over comes soon."""
    shop = up(FOUR, spec=service(rollout=RolloutPolicy(ready_ms_min=30_000)))
    ready_for(shop, 29_999)
    assert waited_after(shop, code=1) == 1_000
    ready_for(shop, 30_000)
    assert waited_after(shop, code=1) == 0


def lost_after(shop: Shop, load_ms: int) -> int:
    """Its node dies while it loads, and is back at once: how long the replica waits, in milliseconds."""
    while shop.snapshot.workloads["digits.1"].phase is not Phase.ACTIVE:
        shop.cycle(after_ms=1_000)
    shop.cycle(*shop.world(), after_ms=load_ms)
    here = NodeId("here")
    shop.cycle(NodeHealth(node=here, health="unknown"), after_ms=0)
    shop.cycle(NodeHealth(node=here, health="dead"), NodeHealth(node=here, health="alive"), after_ms=0)
    return shop.state("digits.1").not_before_ms - shop.now_ms


def test_a_node_lost_while_a_replica_loads_is_no_crash_of_it() -> None:
    """Unknown, then dead, four times: not one is counted, and each waits a little, for nothing may storm."""
    shop = Shop(FOUR)
    shop.hung = {"digits.1"}
    shop.serve(service(rollout=RolloutPolicy(crashes_max=1)))
    shop.rest()
    assert [lost_after(shop, 5_000) for _ in range(4)] == [1_000] * 4
    state = shop.state("digits.1")
    assert (state.failures, state.attempts, state.interruptions) == (0, 0, 4)
    assert shop.why() is Code.WAITING_READY
    shop.pass_ms(9_000)
    assert waited_after(shop, code=1) == 1_000, "the first crash of its own"
    assert (shop.state("digits.1").failures, shop.why()) == (1, Code.REPLICA_CRASHED)


def test_a_replica_that_had_to_yield_is_no_crash_of_it() -> None:
    """Preempted, in a recorded plan of another build: it was told to, and that is not counted."""
    shop = Shop(FOUR)
    shop.hung = {"digits.1"}
    shop.serve(service())
    shop.rest()
    yields = Stop(
        workload=WorkloadName("digits.1"), run=shop.run("digits.1").id, cause="preempted", grace_ms=0,
        reason=reason(Code.PREEMPTED),
    )  # fmt: skip
    shop.fold(Decided(observed_at=shop.snapshot.observed_at, decisions=(yields,)))
    assert waited_after(shop, code=1) == 1_000
    assert (shop.state("digits.1").failures, shop.state("digits.1").preemptions) == (0, 1)


def test_a_lost_gateway_backs_off_as_ever() -> None:
    """It is of no revision: each of its ends is counted."""
    shop = up(FOUR)
    for failures in (1, 2):
        run = shop.run(GATEWAY_NAME)
        shop.cycle(RankExited(run=run.id, rank=0, at_ms=shop.now_ms, cause="lost"), after_ms=0)
        state = shop.state(GATEWAY_NAME)
        assert (state.failures, state.not_before_ms - shop.now_ms) == (failures, 1_000 * failures)
        shop.cycle(after_ms=1_000 * failures)
