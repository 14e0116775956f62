"""How many replicas: votes, delays, margins, bounds, zero; each through whole cycles of a home."""

import pytest
from tests.scenarios.home import declared, fleet, job, node, told
from tests.scenarios.serving import Shop, replicas, service, target_of, up

from steersman.decide.autoscale import desired
from steersman.engine.publish import HOLD_MS_MIN, gateway_config
from steersman.model.decisions import Scale
from steersman.model.reasons import Code
from steersman.model.service import RequestLimits, Scaling

TEN = fleet(node("here", cores=10, gib=32))
LOAD = 2_000
"""Requests in flight that one replica should carry, in thousandths: the default."""


def scaled(scaling: Scaling, **values: int | None) -> Shop:
    """A shop whose service is ready at its first size, with these signals known."""
    shop = up(TEN, spec=service(scaling=scaling))
    shop.tell(**values)  # type: ignore[arg-type]  # signals only, none of its own words
    return shop


def moves(shop: Shop) -> list[tuple[int, Code]]:
    """Every change of a target so far and why."""
    found: list[tuple[int, Code]] = []
    for cycle in shop.cycles:
        scales = [item for item in cycle.plan.decisions if isinstance(item, Scale)]
        before = cycle.seen.services
        found += [(it.target, it.reason.code) for it in scales if it.target != before[it.workload].target]
    return found


def hold_ms(shop: Shop) -> int:
    config = gateway_config(shop.snapshot, target_of)
    assert config is not None
    return config.services[0].hold_ms


def test_a_fixed_number_is_kept_whatever_the_load() -> None:
    shop = scaled(replicas(2), ongoing_milli=50_000)
    shop.pass_ms(600_000, step_ms=60_000)
    assert (moves(shop), shop.names()) == ([], ["digits.1", "digits.2"])


def test_it_begins_with_the_initial_number_and_holds_it_while_nothing_is_known() -> None:
    shop = up(TEN, spec=service(scaling=replicas(1, 5, initial_replicas=3)))
    assert shop.ready() == 3
    shop.pass_ms(600_000, step_ms=60_000)
    assert (moves(shop), shop.ready()) == ([], 3)


def test_up_after_the_delay_and_not_before() -> None:
    """Load for five: recorded at once, wanted for three seconds, then the whole way in one step."""
    shop = scaled(replicas(1, 8), ongoing_milli=LOAD)
    plan = shop.tell(ongoing_milli=9_500)
    assert told(plan) == ["scale digits: scale-load"]
    assert (shop.service().target, shop.service().desired) == (1, 5)
    assert plan.wake_at_ms == shop.now_ms + 3_000
    assert told(shop.cycle(after_ms=2_999)) == []
    assert told(shop.cycle(after_ms=1))[:2] == ["scale digits: scale-load", "spawn digits: replica-needed"]
    assert shop.service().target == 5
    shop.rest()
    assert shop.ready() == 5


def test_up_to_what_is_desired_when_the_delay_is_over() -> None:
    shop = scaled(replicas(1, 8), ongoing_milli=LOAD)
    shop.tell(ongoing_milli=5 * LOAD)
    shop.tell(ongoing_milli=3 * LOAD)
    shop.pass_ms(2_000)
    assert moves(shop) == [(3, Code.SCALE_LOAD)]


def test_a_spike_shorter_than_the_delay_changes_nothing() -> None:
    """Up and back within the delay: the next spike has a delay of its own."""
    shop = scaled(replicas(1, 8), ongoing_milli=LOAD)
    for _ in range(4):
        shop.tell(ongoing_milli=5 * LOAD, after_ms=2_500)
        shop.tell(ongoing_milli=LOAD, after_ms=2_500)
    assert moves(shop) == []
    assert shop.service().desired == 1


def test_never_above_the_most_nor_below_the_least() -> None:
    shop = scaled(replicas(2, 4), ongoing_milli=100 * LOAD)
    shop.pass_ms(4_000)
    shop.tell(ongoing_milli=0)
    shop.pass_ms(30_000)
    assert [target for target, _ in moves(shop)] == [4, 2]


def test_down_only_with_a_margin() -> None:
    """Three could carry it exactly: the fourth stays. With a tenth to spare: it goes after its delay."""
    shop = scaled(replicas(1, 4, initial_replicas=4), ongoing_milli=3 * LOAD)
    shop.pass_ms(60_000)
    assert moves(shop) == []
    shop.tell(ongoing_milli=5_455)  # a tenth more than 6000 = three times 2000
    shop.pass_ms(60_000)
    assert moves(shop) == []
    shop.tell(ongoing_milli=5_454)
    shop.pass_ms(9_999)
    assert moves(shop) == []
    shop.pass_ms(1)
    assert moves(shop) == [(3, Code.SCALE_LOAD)]
    shop.rest()
    assert shop.names() == ["digits.1", "digits.2", "digits.3"], "the youngest goes"


def test_down_to_the_most_that_was_desired_meanwhile() -> None:
    """Low, then a little higher: the target follows the higher of the two, a whole delay after it."""
    shop = scaled(replicas(1, 6, initial_replicas=6), ongoing_milli=1_000)
    shop.pass_ms(5_000)
    shop.tell(ongoing_milli=5_400)
    shop.tell(ongoing_milli=1_000)
    assert (shop.service().target, shop.service().desired) == (6, 3)
    shop.pass_ms(9_000)
    assert moves(shop) == [(3, Code.SCALE_LOAD)]
    shop.pass_ms(11_000)
    assert moves(shop)[1:] == [(1, Code.SCALE_LOAD)]


def test_factors_go_a_part_of_the_way() -> None:
    """Half of the way up, rounded up, and a quarter of it down; each step after a delay of its own."""
    factors = replicas(1, 9, upscaling_factor_milli=500, downscaling_factor_milli=250)
    shop = scaled(factors, ongoing_milli=9 * LOAD)
    shop.pass_ms(15_000)
    assert [target for target, _ in moves(shop)] == [5, 7, 8, 9]
    shop.tell(ongoing_milli=0)
    shop.pass_ms(200_000)
    assert [target for target, _ in moves(shop)][4:] == [7, 5, 4, 3, 2, 1]


def test_an_unknown_signal_holds_what_there_is() -> None:
    """Unknown is not zero: neither up nor down, and what had begun to count begins anew."""
    shop = scaled(replicas(1, 5, initial_replicas=3), ongoing_milli=0)
    shop.pass_ms(9_000)
    plan = shop.tell(ongoing_milli=None, after_ms=500)
    assert told(plan) == ["scale digits: scale-unknown"]
    assert shop.service().desired == 3
    shop.pass_ms(600_000, step_ms=60_000)
    assert moves(shop) == []
    shop.tell(ongoing_milli=0)
    shop.pass_ms(9_999)
    assert moves(shop) == []
    shop.pass_ms(1)
    assert moves(shop) == [(1, Code.SCALE_LOAD)]


def test_the_queue_asks_for_more_and_never_for_less() -> None:
    shop = scaled(replicas(1, 9, queued_requests_milli=1_000), ongoing_milli=LOAD, queued_milli=1_000)
    shop.pass_ms(10_000)
    assert moves(shop) == []
    shop.tell(queued_milli=4_001)
    shop.pass_ms(4_000)
    assert moves(shop) == [(5, Code.SCALE_QUEUE)]
    shop.tell(queued_milli=0)
    shop.pass_ms(11_000)
    assert moves(shop)[1:] == [(2, Code.SCALE_LOAD)], "the load of one and a tenth: two carry it"


def test_an_unknown_queue_holds() -> None:
    shop = scaled(replicas(1, 9, initial_replicas=2, queued_requests_milli=1_000), ongoing_milli=0)
    shop.pass_ms(60_000)
    assert moves(shop) == []


@pytest.mark.parametrize(("p99_ms", "target"), [(100, 2), (101, 3), (150, 3), (151, 4), (900, 4)])
def test_latency_above_its_limit_asks_for_more_in_proportion(p99_ms: int, target: int) -> None:
    """At most double at once."""
    shop = scaled(replicas(2, 9, latency_p99_ms=100), ongoing_milli=LOAD, latency_p99_us=p99_ms * 1_000)
    shop.pass_ms(4_000)
    assert shop.service().target == target
    assert [code for _, code in moves(shop)] == [Code.SCALE_LATENCY] * (target > 2)


def test_latency_lets_one_go_only_when_the_others_would_stay_below_the_limit() -> None:
    """Four at 74 ms: three would have four thirds of it, which is below a hundred; at 75 ms not."""
    shop = scaled(
        replicas(1, 9, initial_replicas=4, latency_p99_ms=100), ongoing_milli=0, latency_p99_us=75_000
    )
    shop.pass_ms(60_000)
    assert moves(shop) == []
    shop.tell(latency_p99_us=74_000)
    shop.pass_ms(12_000)
    assert moves(shop) == [(3, Code.SCALE_LATENCY)]


def test_latency_is_no_reason_to_stay_when_nobody_asks() -> None:
    """Without requests there is no latency: that is not unknown. With some it is, and holds."""
    shop = scaled(replicas(1, 9, initial_replicas=4, latency_p99_ms=100), ongoing_milli=1)
    shop.pass_ms(60_000)
    assert moves(shop) == []
    shop.tell(ongoing_milli=0)
    shop.pass_ms(11_000)
    assert moves(shop) == [(1, Code.SCALE_LOAD)]


def test_to_zero_last_and_from_zero_at_once() -> None:
    """To one after the usual delay, to zero after its own; a waiting request brings one back at once."""
    shop = scaled(replicas(0, 4, initial_replicas=3), ongoing_milli=0)
    shop.pass_ms(10_000)
    assert moves(shop) == [(1, Code.SCALE_LOAD)]
    shop.pass_ms(20_000)
    assert moves(shop)[1:] == [], "the delay of the last one begins when it is the last"
    shop.pass_ms(1_000)
    assert moves(shop)[1:] == [(0, Code.SCALE_LOAD)]
    shop.rest()
    assert (shop.names(), shop.why()) == ([], Code.SERVING)
    assert hold_ms(shop) == HOLD_MS_MIN
    shop.pass_ms(600_000, step_ms=60_000)
    assert shop.service().target == 0
    plan = shop.tell(queued_milli=1_000)
    assert told(plan)[:2] == ["scale digits: scale-demand", "spawn digits: replica-needed"]
    shop.rest()
    assert (shop.ready(), moves(shop)[-1]) == (1, (1, Code.SCALE_DEMAND))


def test_unknown_at_zero_starts_nothing() -> None:
    shop = scaled(replicas(0, 4), ongoing_milli=0)
    shop.rest()
    assert shop.service().target == 0
    shop.tell(ongoing_milli=None, queued_milli=None)
    shop.pass_ms(60_000)
    assert shop.service().target == 0


def test_a_first_revision_proves_itself_even_at_zero() -> None:
    """Nothing is wanted yet: one replica is started, gets ready, and goes again."""
    shop = up(TEN, spec=service(scaling=replicas(0, 4)))
    assert shop.service().serving is not None
    assert (shop.names(), shop.service().target) == ([], 0)
    assert shop.service().spawned == 1


def test_not_to_zero_when_a_start_takes_longer_than_a_request_may_wait() -> None:
    """A cold start of five seconds, requests that wait four: one replica stays, and the reason says why."""
    slow = service(scaling=replicas(0, 2, initial_replicas=1), limits=RequestLimits(timeout_ms=4_000))
    shop = Shop(TEN)
    shop.hung = {"digits.1"}
    shop.serve(slow)
    shop.pass_ms(5_000)
    shop.hung = set()
    shop.rest()
    assert shop.service().cold_start_ms is not None
    shop.tell(ongoing_milli=0)
    shop.pass_ms(120_000)
    assert (shop.service().target, moves(shop)) == (1, [])
    shop.hung = {"digits.2"}  # as slow as the first
    shop.tell(ongoing_milli=100_000)
    shop.pass_ms(4_000)
    shop.tell(ongoing_milli=0)
    shop.pass_ms(11_000)
    assert moves(shop) == [(2, Code.SCALE_LOAD), (1, Code.SCALE_COLD_START)]
    why = desired(shop.snapshot, shop.service()).reason
    assert dict(why.facts) == {"cold_start_ms": shop.service().cold_start_ms, "timeout_ms": 4_000}


def test_requests_are_held_for_a_few_cold_starts() -> None:
    """Measured: 5 s, so 15 s, but never longer than a request may take in all; 0 once it was stopped."""
    shop = Shop(TEN)
    shop.hung = {"digits.1"}
    shop.serve(service())
    shop.cycle(*shop.world(), after_ms=0)
    shop.cycle(*shop.world(), after_ms=0)
    assert hold_ms(shop) == HOLD_MS_MIN
    shop.cycle(after_ms=5_000)
    shop.hung = set()
    shop.rest(step_ms=0)
    assert (shop.service().cold_start_ms, hold_ms(shop)) == (5_000, 15_000)
    shop.serve(service(limits=RequestLimits(timeout_ms=12_000)), restarts=False)
    assert hold_ms(shop) == 12_000
    shop.stop("digits")
    assert hold_ms(shop) == 0


def test_new_bounds_move_the_target_without_a_new_revision() -> None:
    shop = scaled(replicas(1, 4, initial_replicas=2), ongoing_milli=2 * LOAD)
    plan = shop.serve(service(scaling=replicas(3, 4)), restarts=False)
    assert told(plan)[:2] == ["scale digits: scale-bounds", "spawn digits: replica-needed"]
    shop.rest()
    assert (shop.ready(), shop.service().revisions) == (3, 1)
    shop.serve(service(scaling=replicas(1, 1)), restarts=False)
    assert shop.service().target == 1, "at once: it is an order, not a load"
    shop.rest()
    assert (shop.names(), shop.service().revisions) == (["digits.1"], 1)


def test_signals_of_what_is_no_service_are_nobodys() -> None:
    shop = scaled(replicas(1, 4), ongoing_milli=LOAD)
    shop.cycle(declared(job("train")))
    shop.tell("train", ongoing_milli=9_000)
    shop.tell("ghost", ongoing_milli=9_000)
    shop.pass_ms(60_000)
    assert moves(shop) == []
    assert [item.name for item in shop.service().signals] == ["ongoing_milli"]


def test_steady_load_decides_nothing() -> None:
    """A thousand looks at a settled service, signals told again each time: no decision and no wake-up."""
    shop = scaled(replicas(1, 4), ongoing_milli=2 * LOAD, queued_milli=0, latency_p99_us=1_000)
    shop.pass_ms(10_000)
    shop.rest()
    for _ in range(1_000):
        plan = shop.tell(ongoing_milli=2 * LOAD, queued_milli=0, latency_p99_us=1_000)
        assert (plan.decisions, plan.wake_at_ms) == ((), None)
