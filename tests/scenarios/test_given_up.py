"""A revision that cannot serve: a first one that never will, and one that is ready and does not last."""

from tests.scenarios.home import fleet, job, node, told
from tests.scenarios.serving import Shop, replicas, service, up
from tests.scenarios.test_rolling import ROOMY, decided, fewest_ready, most_at_once, version

from steersman.explain.services import given_up, standing
from steersman.explain.words import describe
from steersman.model.decisions import FailRollout
from steersman.model.events import NodeHealth
from steersman.model.ids import NodeId
from steersman.model.reasons import Code
from steersman.model.snapshot import RunState

# ---- a first revision that can never be loaded -----------------------------------------------------------


def hopeless(number: int = 1) -> Shop:
    """A service whose first model can never be loaded."""
    shop = Shop(ROOMY)
    shop.broken = {1: 78}
    shop.serve(version("v1", number))
    shop.rest()
    return shop


def test_a_first_model_that_can_never_be_loaded_is_given_up_too() -> None:
    """Nothing to fall back to: its replicas go, the service says why, and nothing is tried for an hour."""
    shop = hopeless()
    state = shop.service()
    assert decided(shop, FailRollout) == ["replica-crashed"]
    assert (shop.names(), state.replicas, state.rolling, state.serving) == ([], (), None, None)
    assert state.failed is not None
    assert (state.failed.number, state.reason, shop.why()) == (1, state.failed_reason, Code.REPLICA_CRASHED)
    found = standing(shop.snapshot, state, listening=True)
    assert given_up(state)
    assert (found.phase, found.ready) == ("failed", 0)
    assert found.why.startswith("revision 1 was given up: digits.1 exited with 78 before it was ready")
    shop.pass_ms(3_600_000, step_ms=60_000)
    assert (shop.service().spawned, told(shop.cycle())) == (1, [])


def test_it_is_tried_again_when_declared_again() -> None:
    """With another model, or after stop; in place it is not."""
    shop = hopeless()
    shop.serve(version("v1", replicas(1, 2)), restarts=False)
    shop.rest()
    assert shop.service().spawned == 1
    shop.stop("digits")
    shop.rest()
    assert shop.why() is Code.STOP_REQUESTED
    plan = shop.serve(version("v1", 1), restarts=False)
    assert told(plan)[0] == "revise digits: first-revision"
    shop.broken = {2: 78}
    shop.rest()
    assert (shop.service().revisions, shop.names()) == (2, [])
    shop.serve(version("v2", 1))
    shop.rest()
    assert (shop.why(), shop.names()) == (Code.SERVING, ["digits.3"])


def test_it_is_tried_again_when_the_job_makes_another_model() -> None:
    """Meanwhile it says that it waits for the job; the same content again is not tried."""
    shop = Shop(ROOMY)
    shop.broken = {1: 78}
    shop.up(job("train", artifacts=("model",)))
    shop.begin("train")
    shop.end("train", artifacts=("model",))
    shop.serve(service(artifact="train/model"))
    shop.rest()
    assert shop.why() is Code.REPLICA_CRASHED
    shop.up(job("train", artifacts=("model",), priority=1))
    assert shop.why() is Code.WAITING_INPUT
    shop.begin("train")
    shop.end("train", artifacts=("model",))
    shop.rest()
    assert (shop.service().spawned, shop.why()) == (1, Code.REPLICA_CRASHED)
    shop.up(job("train", artifacts=("model",), priority=2))
    shop.begin("train")
    better = shop.published("train", "model", digest="sha256:better")
    shop.cycle(better)
    shop.end("train")
    shop.rest()
    assert (shop.why(), shop.names()) == (Code.SERVING, ["digits.2"])


def test_one_that_says_never_counts_for_more_than_one_that_crashes() -> None:
    """Two replicas: the first crashes three times, which is tried for ever; then the second says never."""
    shop = Shop(ROOMY)
    shop.hung = {"digits.1", "digits.2"}
    shop.serve(version("v1", 2))
    shop.rest()
    for _ in range(3):
        shop.kill("digits.1", signal=None, code=1)
        shop.pass_ms(10_000)
    assert (shop.why(), decided(shop, FailRollout)) == (Code.REPLICA_CRASHED, [])
    shop.kill("digits.2", signal=None, code=78)
    why = shop.service().failed_reason
    assert why is not None
    assert dict(why.facts) == {"revision": 1, "replica": "digits.2", "failures": 1, "exit_code": 78}
    shop.rest()
    assert shop.names() == []


def test_what_answers_of_an_earlier_one_serves_on_and_follows_the_target() -> None:
    """Never promoted, for one of three hung: of the two that answer, as many stay as there should be."""
    shop = Shop(ROOMY)
    shop.hung = {"digits.3"}
    shop.serve(version("v1", 3))
    shop.rest()
    shop.broken = {2: 78}
    shop.serve(version("v2", 3))
    shop.rest()
    assert (shop.names(), fewest_ready(shop, len(shop.cycles) - 5)) == (["digits.1", "digits.2"], 2)
    assert standing(shop.snapshot, shop.service(), listening=True).phase == "serving"
    shop.serve(version("v2", 1), restarts=False)
    shop.rest()
    assert (shop.names(), shop.why()) == (["digits.1"], Code.REPLICA_CRASHED)


# ---- ready, and not for long -----------------------------------------------------------------------------


def test_a_new_replica_takes_over_once_it_has_been_ready_for_long_enough() -> None:
    """Until then the old one stays; the plan asks to be woken at that very instant."""
    shop = up(ROOMY, spec=version("v1", 1, ready_ms_min=0))
    shop.serve(version("v2", 1, ready_ms_min=4_000))
    while not shop.ready(revision=2):
        shop.cycle(*shop.world(), after_ms=100)
    since_ms = shop.run("digits.2").ready_ms
    assert since_ms is not None
    shop.rest()
    assert (shop.names(), shop.cycles[-1].plan.wake_at_ms) == (["digits.1", "digits.2"], since_ms + 4_000)
    assert told(shop.cycle(after_ms=since_ms + 3_999 - shop.now_ms)) == []
    assert told(shop.cycle(after_ms=1))[0] == "retire digits: replica-replaced"
    shop.rest()
    serving = shop.service().serving
    assert serving is not None
    assert (serving.number, shop.names(), shop.why()) == (2, ["digits.2"], Code.SERVING)


def test_nothing_is_waited_for_once_it_counts() -> None:
    """Ready at this instant and nothing more to ask: no cycle follows, neither at once nor later."""
    shop = up(ROOMY, spec=version("v1", 1))
    shop.cycle(after_ms=20_000)
    shop.kill("digits.1")
    plan = shop.cycle(after_ms=100)
    while not shop.ready():
        plan = shop.cycle(*shop.world(), after_ms=0)
    assert (told(plan), plan.wake_at_ms) == (["hold digits: serving"], None)
    shop.serve(version("v1", 1, ready_ms_min=5_000), restarts=False)
    since_ms = shop.run("digits.1").ready_ms
    assert since_ms is not None
    assert shop.cycle(after_ms=0).wake_at_ms == since_ms + 5_000
    assert shop.cycle(after_ms=since_ms + 5_000 - shop.now_ms).wake_at_ms is None


def test_a_first_revision_answers_meanwhile() -> None:
    """Nobody waits for it: what is ready is in service at once."""
    shop = up(ROOMY, spec=version("v1", 1, ready_ms_min=60_000))
    assert (shop.ready(), shop.service().serving, shop.why()) == (1, None, Code.SERVING)
    assert standing(shop.snapshot, shop.service(), listening=True).phase == "serving"
    shop.cycle(after_ms=60_000)
    assert shop.service().serving is not None


def dies_while_new(shop: Shop, name: str, after_ms: int) -> None:
    """It gets ready, and is gone so long after."""
    while not any(item.ready for item in shop.wanted() if item.ref.name == name):
        shop.cycle(*shop.world(), after_ms=100)
    shop.cycle(after_ms=after_ms)
    shop.end(name, signal=11, after_ms=0)


def test_one_that_is_ready_and_dies_before_it_counts_is_a_failure_of_the_rollout() -> None:
    """Three times: given up as if it had never been ready, and the reason says what it was."""
    shop = up(ROOMY, spec=version("v1", 1))
    begun = len(shop.cycles)
    shop.serve(version("v2", 1, ready_ms_min=20_000))
    for count in (1, 2, 3):
        assert decided(shop, FailRollout) == [], count
        dies_while_new(shop, "digits.2", 15_000)
    why = shop.service().failed_reason
    assert why is not None
    assert dict(why.facts) == {"revision": 2, "replica": "digits.2", "failures": 3, "signal": 11, "ready": 1}
    assert describe(why) == "digits.2 ended by signal 11 soon after it was ready, 3 times in a row"
    shop.rest()
    assert (shop.names(), fewest_ready(shop, begun)) == (["digits.1"], 1)


def test_crashes_before_and_soon_after_ready_add_up() -> None:
    """One crash while it loads, then ready and gone: two failures of two."""
    shop = up(ROOMY, spec=version("v1", 1))
    shop.hung = {"digits.2"}
    shop.serve(version("v2", 1, crashes_max=2, ready_ms_min=5_000))
    shop.pass_ms(3_000)
    shop.kill("digits.2", signal=None, code=1)
    assert decided(shop, FailRollout) == []
    shop.hung = set()
    dies_while_new(shop, "digits.2", 1_000)
    assert decided(shop, FailRollout) == ["replica-crashed"]


def test_one_that_counted_and_is_gone_later_is_no_failure_of_the_rollout() -> None:
    """Two wanted and no room for the second: the first served for a while, and comes back."""
    shop = up(fleet(node("here", cores=3)), spec=version("v1", 2, crashes_max=1))
    shop.hung = {"digits.4"}
    shop.serve(version("v2", 2, crashes_max=1, ready_ms_min=2_000))
    while len(shop.names(revision=1)) > 1:
        shop.cycle(*shop.world(), after_ms=500)
    shop.pass_ms(12_000)
    shop.kill("digits.3", signal=11)
    shop.pass_ms(5_000)
    assert (decided(shop, FailRollout), shop.ready(revision=2)) == ([], 1)


def test_a_node_lost_while_a_new_revision_loads_is_no_failure_of_the_rollout() -> None:
    """`max_crashes` of one, and the machine goes away under it: it is started again, and takes over."""
    shop = up(fleet(node("a", cores=1)), spec=version("v1", 1, crashes_max=1))
    shop.hung = {"digits.2"}
    shop.cycle(fleet(node("a", cores=1), node("b", cores=1)))
    shop.serve(version("v2", 1, crashes_max=1))
    shop.rest()
    assert shop.run("digits.2").state is RunState.RUNNING
    shop.cycle(NodeHealth(node=NodeId("b"), health="unknown"))
    shop.cycle(NodeHealth(node=NodeId("b"), health="dead"))
    assert decided(shop, FailRollout) == []
    shop.hung = set()
    shop.cycle(NodeHealth(node=NodeId("b"), health="alive"))
    shop.rest()
    assert (shop.why(), shop.names()) == (Code.SERVING, ["digits.2"])


def test_ready_and_not_for_long_ends_no_other() -> None:
    """Three replaced one by one: each new one makes an old one go when it counts, and not before."""
    shop = up(ROOMY, spec=version("v1", 3))
    begun = len(shop.cycles)
    shop.serve(version("v2", 3, ready_ms_min=3_000))
    shop.rest()
    assert (shop.ready(revision=2), shop.ready(revision=1)) == (1, 3)
    shop.pass_ms(5_000, step_ms=100)
    assert (shop.ready(revision=2), shop.ready(revision=1)) == (2, 2)
    shop.pass_ms(20_000)
    assert (shop.ready(revision=2), len(shop.names())) == (3, 3)
    assert (fewest_ready(shop, begun), most_at_once(shop, begun)) == (3, 4)
