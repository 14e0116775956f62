"""A new revision takes over: without a gap when it is good, without touching what serves when it is not."""

from tests.scenarios.home import fleet, node, told
from tests.scenarios.serving import Shop, replicas, served, service, target_of, up

from steersman.engine.publish import gateway_config
from steersman.model.decisions import FailRollout, Retire, Spawn
from steersman.model.events import RankReady
from steersman.model.reasons import Code
from steersman.model.service import RolloutPolicy, Scaling, Service

ROOMY = fleet(node("here", cores=10, gib=32))


def version(model: str, number: int | Scaling = 2, **fields: int) -> Service:
    """The service with another model."""
    scaling = replicas(number) if isinstance(number, int) else number
    return service(model=model, scaling=scaling, rollout=RolloutPolicy(**fields))


def fewest_ready(shop: Shop, since: int = 0) -> int:
    """The least number of ready replicas of any revision, after any cycle since."""
    least = 99
    for cycle in shop.cycles[since:]:
        view = Shop.of(cycle.after, 0)
        least = min(least, view.ready())
    return least


def most_at_once(shop: Shop, since: int = 0) -> int:
    """The largest number of replicas that were not being retired, after any cycle since."""
    return max(len(Shop.of(cycle.after, 0).names()) for cycle in shop.cycles[since:])


def decided(shop: Shop, kind: type) -> list[str]:
    return [
        str(item.reason.code)
        for cycle in shop.cycles
        for item in cycle.plan.decisions
        if isinstance(item, kind)
    ]


def test_one_at_a_time_and_never_fewer_than_wanted() -> None:
    """Three replicas replaced with one more at most; at every instant three of them are ready."""
    shop = up(ROOMY, spec=version("v1", 3))
    begun = len(shop.cycles)
    plan = shop.serve(version("v2", 3))
    assert told(plan) == ["revise digits: declaration-changed"]
    shop.rest()
    assert shop.names() == ["digits.4", "digits.5", "digits.6"]
    assert (fewest_ready(shop, begun), most_at_once(shop, begun)) == (3, 4)
    assert (shop.why(), shop.service().revisions) == (Code.SERVING, 2)
    assert {shop.state(name).spec.body.inputs[0].digest for name in shop.names()} == {"sha256:v2"}


def test_a_larger_surge_goes_faster_and_no_lower() -> None:
    shop = up(ROOMY, spec=version("v1", 3, surge_max=3))
    begun = len(shop.cycles)
    shop.serve(version("v2", 3, surge_max=3))
    shop.rest()
    assert (fewest_ready(shop, begun), most_at_once(shop, begun)) == (3, 6)


def test_old_replicas_that_are_not_ready_go_first() -> None:
    """One of the old is down when the first new one gets ready: that one goes, the ready one stays."""
    shop = up(ROOMY, spec=version("v1"))
    shop.hung = {"digits.1"}
    shop.cycle(after_ms=10_000)
    shop.kill("digits.1")
    shop.serve(version("v2"))
    while shop.ready(revision=2) == 0:
        shop.cycle(*shop.world(), after_ms=100)
    assert shop.names(revision=1) == ["digits.2"]
    shop.rest()
    assert shop.why() is Code.SERVING


def test_a_revision_that_crashes_is_given_up() -> None:
    """Three crashes before it was ever ready: its replicas go, the old were never touched, and it is over."""
    shop = up(ROOMY, spec=version("v1"))
    shop.broken = {2: 1}
    shop.serve(version("v2"))
    shop.pass_ms(20_000)
    assert decided(shop, FailRollout) == ["replica-crashed"]
    assert shop.names() == ["digits.1", "digits.2"]
    assert fewest_ready(shop, 20) == 2
    assert shop.run("digits.1").attempt == shop.run("digits.2").attempt == 1
    state = shop.service()
    assert state.failed is not None
    assert (state.failed.number, shop.why()) == (2, Code.REPLICA_CRASHED)
    assert state.reason is not None
    assert dict(state.reason.facts) == {
        "revision": 2, "replica": "digits.3", "failures": 3, "exit_code": 1
    }  # fmt: skip
    spawned = state.spawned
    shop.pass_ms(3_600_000, step_ms=60_000)
    assert shop.service().spawned == spawned, "it is not tried again"
    assert shop.why() is Code.REPLICA_CRASHED, "and people can still see why"


def test_a_revision_killed_by_a_signal_names_it() -> None:
    shop = up(ROOMY, spec=version("v1", 1, crashes_max=1))
    shop.hung = {"digits.2"}
    shop.serve(version("v2", 1, crashes_max=1))
    shop.pass_ms(2_000)
    shop.kill("digits.2", signal=11)
    reason = shop.service().failed_reason
    assert reason is not None
    assert dict(reason.facts) == {"revision": 2, "replica": "digits.2", "failures": 1, "signal": 11}


def test_a_replica_that_could_never_be_started_counts_as_crashed() -> None:
    """No exit code and no signal: the reason has neither."""
    shop = up(ROOMY, spec=version("v1", 1, crashes_max=1))
    shop.serve(version("v2", 1, crashes_max=1))
    shop.cycle(after_ms=0)
    shop.end("digits.2", code=None)
    reason = shop.service().failed_reason
    assert reason is not None
    assert dict(reason.facts) == {"revision": 2, "replica": "digits.2", "failures": 1}


def test_a_model_that_can_never_be_loaded_is_given_up_at_once() -> None:
    """Exit 78: one try is enough."""
    shop = up(ROOMY, spec=version("v1"))
    shop.broken = {2: 78}
    shop.serve(version("v2"))
    shop.pass_ms(3_000)
    state = shop.service()
    assert state.failed_reason is not None
    assert dict(state.failed_reason.facts)["failures"] == 1
    shop.rest()
    assert shop.names() == ["digits.1", "digits.2"]


def test_a_model_that_hangs_is_given_up_when_its_time_is_over() -> None:
    """Loading past `ready_timeout`: given up at that instant, for the plan asked to be woken then."""
    shop = up(ROOMY, spec=version("v1"))
    shop.hung = {"digits.3"}
    shop.serve(version("v2", 2, ready_timeout_ms=30_000))
    shop.rest()
    run = shop.run("digits.3")
    assert run.started_ms is not None
    wake = shop.cycles[-1].plan.wake_at_ms
    assert wake == run.started_ms + 30_000
    assert told(shop.cycle(after_ms=wake - 1 - shop.now_ms)) == []
    assert told(shop.cycle(after_ms=1)) == ["fail-rollout digits: replica-stuck"]
    shop.rest()
    assert shop.names() == ["digits.1", "digits.2"]


def test_one_that_waits_for_room_does_not_hang() -> None:
    """The timeout counts from when it runs: a replica that queues is not given up."""
    shop = up(fleet(node("here", cores=2)), spec=version("v1"))
    shop.serve(version("v2"))
    shop.pass_ms(600_000, step_ms=60_000)
    assert (shop.names(), shop.why()) == (["digits.1", "digits.2", "digits.3"], Code.WAITING_READY)
    assert shop.code("digits.3") is Code.NO_CORES
    shop.cycle(fleet(node("here", cores=3)))
    shop.rest()
    assert shop.why() is Code.SERVING


def test_declared_again_it_is_tried_again() -> None:
    """After it was given up: a declaration that needs a revision, or up after stop, tries once more."""
    shop = up(ROOMY, spec=version("v1", 1))
    shop.broken = {2: 78, 3: 78}
    shop.serve(version("v2", 1))
    shop.rest()
    shop.serve(version("v2", replicas(1, 2)), restarts=False)
    shop.rest()
    assert shop.service().revisions == 2, "other bounds are no other revision"
    shop.serve(version("v2", 1))
    shop.rest()
    assert (shop.service().revisions, shop.names()) == (3, ["digits.1"])
    shop.stop("digits")
    shop.rest()
    shop.serve(version("v2", 1), restarts=False)
    shop.rest()
    assert shop.service().revisions == 4
    assert (shop.why(), shop.names(revision=4)) == (Code.SERVING, shop.names())


def test_the_failure_of_an_earlier_model_is_no_news_once_a_later_one_serves() -> None:
    """Same declaration, three contents of its model: the second fails, the third serves and says so."""
    shop = up(ROOMY, spec=version("v1", 1))
    shop.broken = {2: 78}
    shop.serve(version("v2", 1), restarts=False)
    shop.rest()
    assert shop.why() is Code.REPLICA_CRASHED
    shop.serve(version("v3", 1), restarts=False)
    shop.rest()
    assert (shop.why(), shop.service().revisions) == (Code.SERVING, 3)


def test_back_to_the_first_model_after_a_failure_needs_nothing() -> None:
    shop = up(ROOMY, spec=version("v1", 1))
    shop.broken = {2: 78}
    shop.serve(version("v2", 1), restarts=False)
    shop.rest()
    shop.serve(version("v1", 1), restarts=False)
    shop.rest()
    assert (shop.names(), shop.service().revisions) == (["digits.1"], 2)


def test_declared_again_what_serves_is_no_rollout() -> None:
    """After a failure, back to the declaration that serves, with other bounds: it serves on as it is."""
    shop = up(ROOMY, spec=version("v1", 1))
    shop.broken = {2: 78}
    shop.serve(version("v2", 1))
    shop.rest()
    assert shop.why() is Code.REPLICA_CRASHED
    plan = shop.serve(version("v1", 2, ready_timeout_ms=9_000))
    assert [word for word in told(plan) if "revise" in word] == []
    shop.rest()
    state = shop.service()
    assert (state.failed, state.failed_reason, shop.why()) == (None, None, Code.SERVING)
    assert state.serving is not None
    assert (state.generation, state.revisions) == (state.serving.generation, 2)
    assert shop.names(revision=1) == shop.names() == ["digits.1", "digits.3"]
    shop.broken = {}
    shop.serve(version("v2", 2))
    shop.rest()
    assert (shop.ready(revision=3), shop.service().revisions) == (2, 3), "what failed may be tried once more"


def test_back_while_the_change_still_rolls_is_a_change() -> None:
    """What serves may have lost replicas to it: the newest declaration is rolled out like any other."""
    shop = up(ROOMY, spec=version("v1", 2))
    shop.serve(version("v2", 2))
    while shop.ready(revision=2) < 1:
        shop.cycle(*shop.world(), after_ms=100)
    assert told(shop.serve(version("v1", 2)))[0] == "revise digits: declaration-changed"
    shop.rest()
    assert (shop.ready(revision=3), len(shop.names())) == (2, 2)


def test_a_second_change_while_the_first_rolls() -> None:
    """The newest wins; both older ones give way, the abandoned one first, and never below what is wanted."""
    shop = up(ROOMY, spec=version("v1", 3))
    begun = len(shop.cycles)
    shop.serve(version("v2", 3))
    while shop.ready(revision=2) < 2:
        shop.cycle(*shop.world(), after_ms=100)
    shop.serve(version("v3", 3))
    shop.rest()
    serving = shop.service().serving
    assert serving is not None
    assert serving.number == 3
    assert len(shop.names()) == len(shop.names(revision=3)) == 3
    assert (fewest_ready(shop, begun), most_at_once(shop, begun)) == (3, 4)


def test_a_second_change_that_fails_while_the_first_was_half_done() -> None:
    """Back to what serves, without a gap: what the abandoned one has ready goes as that gets ready again."""
    shop = up(ROOMY, spec=version("v1", 3))
    begun = len(shop.cycles)
    shop.serve(version("v2", 3))
    while shop.ready(revision=2) < 2:
        shop.cycle(*shop.world(), after_ms=100)
    shop.broken = {3: 78}
    shop.serve(version("v3", 3))
    shop.pass_ms(10_000)
    shop.rest()
    assert decided(shop, FailRollout) == ["replica-crashed"]
    assert len(shop.names()) == len(shop.names(revision=1)) == 3
    assert (fewest_ready(shop, begun), most_at_once(shop, begun)) == (3, 4)


def test_a_second_change_while_the_first_hangs() -> None:
    """The surge is taken by a replica that never gets ready: it goes at once, for it never served."""
    shop = up(fleet(node("here", cores=3)), spec=version("v1"))
    shop.hung = {"digits.3"}
    shop.serve(version("v2"))
    shop.rest()
    shop.serve(version("v3"))
    shop.rest()
    assert (shop.names(), shop.why()) == (["digits.4", "digits.5"], Code.SERVING)


def test_a_first_revision_that_hangs_gives_way_to_a_second() -> None:
    """Room for one replica only, taken by one that never gets ready: the mended declaration gets it."""
    shop = Shop(fleet(node("here", cores=1)))
    shop.hung = {"digits.1"}
    shop.serve(version("v1", 1))
    shop.rest()
    shop.serve(version("v2", 1))
    shop.rest()
    assert (shop.names(), shop.why()) == (["digits.2"], Code.SERVING)


def test_an_old_replica_that_hangs_gives_way_too() -> None:
    """Restarted, it does not get ready again, and holds the room that the new revision needs."""
    shop = up(fleet(node("here", cores=1)), spec=version("v1", 1))
    shop.hung = {"digits.1"}
    shop.cycle(after_ms=10_000)
    shop.kill("digits.1")
    shop.serve(version("v2", 1))
    shop.pass_ms(119_000)
    assert shop.code("digits.2") is Code.NO_CORES
    shop.pass_ms(5_000)
    assert (shop.names(), shop.why()) == (["digits.2"], Code.SERVING)


def test_a_failed_change_of_a_first_revision_keeps_what_is_ready() -> None:
    """Never promoted, for one of two was missing: what is ready serves on while the change crashes."""
    shop = Shop(ROOMY)
    shop.hung = {"digits.2"}
    shop.serve(version("v1"))
    shop.rest()
    assert (shop.ready(revision=1), shop.service().serving) == (1, None)
    shop.broken = {2: 78}
    shop.serve(version("v2"))
    shop.pass_ms(30_000)
    assert (shop.names(revision=1), shop.ready()) == (["digits.1"], 1)
    assert shop.why() is Code.REPLICA_CRASHED
    assert shop.names(revision=2) == [], "with nothing to fall back to, it is given up all the same"
    shop.broken = {}
    shop.serve(version("v2"))
    shop.rest()
    assert (shop.ready(revision=3), shop.names(revision=1)) == (2, [])


def test_scaling_up_during_a_roll() -> None:
    """The new revision grows to the new target at once; the old goes as it is replaced."""
    shop = up(ROOMY, spec=version("v1", replicas(1, 6)))
    shop.serve(version("v2", replicas(1, 6)))
    shop.tell(ongoing_milli=8_000, after_ms=0)
    shop.cycle(after_ms=3_000)
    assert (shop.service().target, shop.names(revision=1)) == (4, ["digits.1"])
    assert len(shop.names(revision=2)) == 4
    shop.rest()
    assert shop.ready(revision=2) == len(shop.names()) == 4


def test_scaling_down_during_a_roll() -> None:
    """Four wanted and then one: surplus of the old goes though no new one is ready, and the roll goes on."""
    bounds = replicas(1, 4, initial_replicas=4)
    shop = up(ROOMY, spec=version("v1", bounds))
    shop.cycle(served(version("v2", bounds)))
    shop.serve(version("v2", 1), restarts=False)
    shop.cycle(after_ms=0)
    assert shop.names(revision=1) == ["digits.1"]
    shop.rest()
    assert (len(shop.names()), shop.ready(revision=2)) == (1, 1)


def test_scaling_down_when_both_revisions_are_larger() -> None:
    """New ones beyond the target go as well, the youngest first."""
    shop = up(ROOMY, spec=version("v1", 4, surge_max=4))
    shop.serve(version("v2", 4, surge_max=4))
    shop.cycle(after_ms=0)
    assert len(shop.names()) == 8
    shop.serve(version("v2", 1, surge_max=4), restarts=False)
    assert (shop.names(revision=1), shop.names(revision=2)) == (["digits.1"], ["digits.5"])
    shop.rest()
    assert shop.names() == ["digits.5"]


def test_a_crashing_old_revision_with_a_smaller_target_is_replaced() -> None:
    """None of the old is ready, and fewer are wanted: the surplus goes, and makes room for a new one."""
    shop = up(ROOMY, spec=version("v1", 3))
    shop.broken = {1: 1}
    shop.cycle(after_ms=10_000)
    for name in ("digits.1", "digits.2", "digits.3"):
        shop.kill(name)
    shop.pass_ms(3_000)
    shop.cycle(served(version("v2", 1)))
    shop.rest()
    assert (shop.names(), shop.why()) == (["digits.4"], Code.SERVING)


def test_a_new_replica_that_hangs_beside_a_ready_one_is_replaced() -> None:
    """The revision has proven itself: the one that hangs gives way to another of it."""
    shop = up(ROOMY, spec=version("v1"))
    shop.hung = {"digits.4"}
    shop.serve(version("v2"))
    shop.pass_ms(130_000)
    shop.rest()
    assert (decided(shop, FailRollout), shop.names()) == ([], ["digits.3", "digits.5"])


def test_a_roll_at_zero_proves_the_new_revision_and_goes_back_to_zero() -> None:
    shop = up(ROOMY, spec=version("v1", replicas(0, 2)))
    assert shop.names() == []
    shop.serve(version("v2", replicas(0, 2)))
    shop.rest()
    state = shop.service()
    assert state.serving is not None
    assert (state.serving.number, state.spawned, shop.names()) == (2, 2, [])


def test_the_gateway_knows_both_revisions_and_no_retiring_replica() -> None:
    """Listed from the moment a run is decided, until it is told to go; told to end only after that."""
    shop = up(ROOMY, spec=version("v1"))
    shop.serve(version("v2"))
    for _ in range(40):
        shop.cycle(*shop.world(), after_ms=100)
        config = gateway_config(shop.snapshot, target_of)
        assert config is not None
        reached = {target.run for item in config.services[0].revisions for target in item.replicas}
        wanted = {item.run.id for item in shop.wanted() if item.run is not None}
        assert reached == wanted
        numbers = [item.revision for item in config.services[0].revisions]
        assert numbers == sorted(set(numbers))
    assert shop.names() == ["digits.3", "digits.4"]


def test_ready_twice_and_after_the_end() -> None:
    """A report that comes again or too late moves nothing."""
    shop = up(ROOMY, spec=version("v1", 1))
    run = shop.run("digits.1")
    before = shop.service()
    shop.cycle(RankReady(run=run.id, rank=0, at_ms=shop.now_ms + 500, load_ms=9))
    shop.cycle(RankReady(run=run.id, rank=1, at_ms=shop.now_ms, load_ms=9))
    assert (shop.service(), shop.run("digits.1").ready_ms) == (before, run.ready_ms)
    shop.kill("digits.1")
    shop.cycle(RankReady(run=run.id, rank=0, at_ms=shop.now_ms, load_ms=9))
    assert shop.ready() == 0


def test_every_spawn_and_retirement_says_why() -> None:
    shop = up(ROOMY, spec=version("v1"))
    shop.serve(version("v2"))
    shop.rest()
    shop.serve(version("v2", 1), restarts=False)
    shop.rest()
    assert set(decided(shop, Spawn)) == {"gateway-needed", "replica-needed"}
    assert set(decided(shop, Retire)) == {"replica-replaced", "replica-surplus"}


def test_back_given_up_and_up_after_stop_is_no_rollout() -> None:
    """The way back was begun as a revision and given up: what serves is what is declared, and is not begun
    once more when the service is up again."""
    shop = up(ROOMY, spec=version("v1", 2))
    shop.serve(version("v2", 2))
    while shop.ready(revision=2) < 1:
        shop.cycle(*shop.world(), after_ms=100)
    shop.broken = {3: 78}
    shop.serve(version("v1", 2))
    shop.rest()
    assert shop.why() is Code.REPLICA_CRASHED
    shop.stop("digits")
    shop.rest()
    shop.serve(version("v1", 2), restarts=False)
    shop.rest()
    state = shop.service()
    assert (shop.why(), state.revisions, state.failed) == (Code.SERVING, 3, None)
    assert shop.names() == shop.names(revision=1) != []


def test_there_and_back_before_anything_was_begun_is_no_rollout() -> None:
    """Two requests, of which the second was made without knowledge of the first."""
    shop = up(ROOMY, spec=version("v1", 1))
    shop.cycle(
        served(version("v2", 1)),
        served(version("v1", 1, ready_timeout_ms=9_000), restarts=False),
    )
    shop.rest()
    assert (shop.names(revision=1), shop.service().revisions) == (["digits.1"], 1)
