"""Services: first start, models from jobs, replicas that die, the end, and what the gateway is told."""

from tests.scenarios.home import RESUMABLE, declared, fleet, job, node, told
from tests.scenarios.serving import Shop, replicas, service, target_of, up

from steersman.engine.publish import gateway_config
from steersman.model.events import NodeHealth, RankExited, RemoveRequested, StopRequested
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.reasons import Code
from steersman.model.service import GATEWAY_NAME, CallableModel
from steersman.model.snapshot import Phase
from steersman.model.workload import Retry

FOUR = fleet(node("here", cores=4))


def listed(shop: Shop, name: str = "digits") -> dict[int, list[str]]:
    """What the gateway is told to reach: runs by revision."""
    config = gateway_config(shop.snapshot, target_of)
    assert config is not None
    found = next(item for item in config.services if item.name == name)
    return {item.revision: [target.run for target in item.replicas] for item in found.revisions}


def test_a_service_starts() -> None:
    """First revision, gateway, replica placed, ready, promoted, and then nothing more to do."""
    shop = Shop(FOUR)
    plan = shop.serve(service())
    assert told(plan) == [
        "revise digits: first-revision",
        "spawn steersman.gateway: gateway-needed",
        "admit steersman.gateway: admitted",
        "start steersman.gateway: placed",
    ]
    plan = shop.cycle(after_ms=0)
    assert told(plan) == [
        "spawn digits: replica-needed",
        "hold digits: waiting-ready",
        "admit digits.1: admitted",
        "start digits.1: placed",
    ]
    job_made = shop.state("digits.1").spec
    assert job_made.body.program == "replica"
    assert job_made.body.replica is not None
    assert (job_made.body.replica.revision, job_made.body.replica.kind) == (1, "onnx")
    assert job_made.body.replica.batch_timeout_ms == 30_500, "it hangs when nobody waits for it any more"
    assert job_made.body.inputs[0].digest == "sha256:v1"
    gateway = shop.state(GATEWAY_NAME).spec
    assert (gateway.body.program, gateway.body.stop_grace_ms, gateway.priority) == ("gateway", 15_000, 1_000)
    assert (
        job_made.body.retry
        == gateway.body.retry
        == Retry(on_events=("error", "interruption"), attempts_max=1_000_000_000)
    ), "for ever"

    assert told(shop.cycle(*shop.world())) == [], "begun is not ready"
    assert shop.wanted()[0].begun_ms == shop.now_ms - 1_000
    plan = shop.cycle(*shop.world(), after_ms=700)
    assert told(plan) == ["promote digits: rolled-out"]
    assert told(shop.cycle(after_ms=0)) == ["hold digits: serving"]
    assert told(shop.cycle()) == []
    state = shop.service()
    assert state.serving is not None
    assert (state.serving.number, state.rolling, state.cold_start_ms) == (1, None, 1_000)
    assert shop.facts("digits.1") == {"node": "here", "nodes": 1, "ranks": 1}


def test_a_callable_is_served_from_its_workdir() -> None:
    """A revision of a callable is known by the content of its workdir."""
    spec = service()
    model = CallableModel(target="app:model", python="/venv/bin/python")
    first = type(spec)(
        name=spec.name, model=model, resources=spec.resources, workdir="/code", workdir_digest="sha256:a"
    )
    shop = up(FOUR, spec=first)
    serves = shop.state("digits.1").spec.body.replica
    assert serves is not None
    assert (serves.kind, serves.target, serves.python) == ("callable", "app:model", "/venv/bin/python")
    assert shop.state("digits.1").spec.body.inputs == ()
    assert [item.ref.revision for item in shop.wanted()] == [1]
    serving = shop.service().serving
    assert serving is not None
    assert serving.model_digest == "sha256:a"


# ---- a model that a job makes ----------------------------------------------------------------------------


def test_the_model_of_a_job_is_waited_for() -> None:
    """Undeclared, then training, then there: the service says what it waits for and starts by itself."""
    shop = Shop(FOUR)
    plan = shop.serve(service(artifact="train/model"))
    assert "hold digits: waiting-input" in told(plan)
    reason = shop.service().reason
    assert reason is not None
    assert dict(reason.facts) == {"workload": "train", "artifact": "model", "phase": "undeclared"}
    assert told(shop.cycle()) == []

    shop.up(job("train", artifacts=("model",)))
    reason = shop.service().reason
    assert reason is not None
    shop.begin("train")
    reason = shop.service().reason
    assert reason is not None
    assert dict(reason.facts)["phase"] == "active"
    shop.end("train", artifacts=("model",))
    shop.rest()
    assert shop.why() is Code.SERVING
    assert shop.state("digits.1").spec.body.inputs[0].workload == "train"


def test_a_newer_model_of_the_same_job_is_rolled_out() -> None:
    """The job is declared again and makes another content: a new revision; until then the old serves."""
    shop = Shop(FOUR)
    shop.up(job("train", artifacts=("model",)))
    shop.begin("train")
    shop.end("train", artifacts=("model",))
    shop.serve(service(artifact="train/model"))
    shop.rest()
    shop.up(job("train", artifacts=("model",), priority=1))
    shop.begin("train")
    shop.rest()
    assert shop.names() == ["digits.1"]
    assert shop.why() is Code.SERVING

    made = shop.end("train", artifacts=())  # no artifact this time: the old one must serve on
    assert "finish train: artifact-missing" in told(made)
    shop.rest()
    assert shop.names() == ["digits.1"]
    assert list(listed(shop)) == [1]

    shop.up(job("train", artifacts=("model",), priority=2))
    shop.begin("train")
    run = shop.run("train")
    from_job = shop.published("train", "model", digest="sha256:better")
    plan = shop.cycle(from_job, RankExited(run=run.id, rank=0, at_ms=shop.now_ms, exit_code=0))
    assert "revise digits: model-changed" in told(plan)
    shop.rest()
    assert shop.names() == ["digits.2"]
    assert shop.state("digits.2").spec.body.inputs[0].digest == "sha256:better"


def test_a_model_that_no_run_makes_is_pending_with_the_reason() -> None:
    """The job failed: the service waits and says so; when a later run makes it, the service starts."""
    shop = Shop(FOUR)
    shop.serve(service(artifact="train/model"))
    shop.up(job("train", artifacts=("model",)))
    shop.begin("train")
    shop.end("train", code=1)
    reason = shop.service().reason
    assert reason is not None
    assert reason.code is Code.INPUT_FAILED
    assert dict(reason.facts)["phase"] == "failed"
    assert shop.names() == []
    shop.up(job("train", artifacts=("model",), priority=1))
    assert shop.why() is Code.WAITING_INPUT
    shop.begin("train")
    shop.end("train", artifacts=("model",))
    shop.rest()
    assert shop.why() is Code.SERVING


def test_an_artifact_that_a_succeeded_job_never_declared() -> None:
    """The job succeeded and makes something else: pending, with the reason."""
    shop = Shop(FOUR)
    shop.up(job("train"))
    shop.begin("train")
    shop.end("train")
    shop.serve(service(artifact="train/model"))
    reason = shop.service().reason
    assert reason is not None
    assert (reason.code, dict(reason.facts)["phase"]) == (Code.INPUT_FAILED, "succeeded")


# ---- replicas that die -----------------------------------------------------------------------------------


def test_a_replica_that_had_served_comes_back_at_once() -> None:
    """Killed after ten seconds of serving: started again in the same cycle, on the same node."""
    shop = up(FOUR)
    shop.cycle(after_ms=10_000)
    plan = shop.kill("digits.1")
    assert told(plan) == [
        "requeue digits.1: retry-replica",
        "hold digits: waiting-ready",
        "start digits.1: placed",
    ]
    shop.rest()
    assert (shop.why(), shop.ready(), shop.names()) == (Code.SERVING, 1, ["digits.1"])


def test_a_first_revision_that_never_gets_ready_is_tried_for_ever() -> None:
    """Nothing to fall back to: the back-off doubles, the service says how its replica crashes."""
    shop = Shop(FOUR)
    shop.broken = {1: 1}
    shop.serve(service())
    delays = []
    for _ in range(5):
        shop.pass_ms(3_000)
        state = shop.state("digits.1")
        delays.append(state.not_before_ms - shop.now_ms)
        shop.cycle(after_ms=max(state.not_before_ms - shop.now_ms, 0))
    assert shop.why() is Code.REPLICA_CRASHED
    assert shop.names() == ["digits.1"]
    assert shop.service().rolling is not None
    shop.broken = {}
    shop.cycle(after_ms=300_000)
    shop.rest()
    assert shop.why() is Code.SERVING


def test_a_long_load_that_ends_in_a_crash_counts_as_one() -> None:
    """A model that loads for twelve seconds before it crashes is no better than one that crashes at once."""
    shop = Shop(FOUR)
    shop.hung = {"digits.1"}
    shop.serve(service())
    for failures in (1, 2, 3):
        shop.pass_ms(12_000)
        shop.kill("digits.1", signal=None, code=1)
        assert shop.state("digits.1").failures == failures
        shop.cycle(after_ms=10_000)
    assert shop.why() is Code.REPLICA_CRASHED


def test_a_first_revision_that_hangs_is_replaced() -> None:
    """Loading for longer than it may: another replica takes its place, and the service says why."""
    shop = Shop(fleet(node("here", cores=1)))
    shop.hung = {"digits.1"}
    shop.serve(service())
    shop.rest()
    wake = shop.cycles[-1].plan.wake_at_ms
    run = shop.run("digits.1")
    assert run.started_ms is not None
    assert wake == run.started_ms + 120_000
    plan = shop.cycle(after_ms=wake - shop.now_ms)
    assert told(plan)[:3] == [
        "retire digits: replica-stuck",
        "spawn digits: replica-needed",
        "hold digits: replica-stuck",
    ]
    shop.rest()
    assert (shop.why(), shop.names()) == (Code.SERVING, ["digits.2"])


def test_a_replica_that_hangs_after_it_was_restarted_is_replaced() -> None:
    """The serving revision too: one that does not get ready again gives way to another of its revision."""
    shop = up(FOUR)
    shop.hung = {"digits.1"}
    shop.cycle(after_ms=10_000)
    shop.kill("digits.1")
    shop.pass_ms(119_000)
    assert shop.names() == ["digits.1"]
    shop.pass_ms(3_000)
    assert shop.names() == ["digits.2"]
    assert "digits.1" not in shop.snapshot.workloads


def test_a_dead_node_takes_its_replicas_elsewhere() -> None:
    """Proof of death frees the lease, and the replica starts on the node that is left."""
    shop = up(fleet(node("a", cores=1), node("b", cores=1)))
    shop.cycle(after_ms=10_000)
    there = shop.run("digits.1").ranks[0].placement.node
    plan = shop.cycle(NodeHealth(node=there, health="dead"))
    assert "start digits.1: placed" in told(plan)
    assert shop.run("digits.1").ranks[0].placement.node != there
    shop.rest()
    assert shop.why() is Code.SERVING


def test_a_node_of_which_nothing_is_known_keeps_serving() -> None:
    """Unknown destroys nothing: the replica stays listed and nothing is decided."""
    shop = up(FOUR)
    before = listed(shop)
    plan = shop.cycle(NodeHealth(node=NodeId("here"), health="unknown"))
    assert (told(plan), listed(shop)) == ([], before)


def test_the_gateway_comes_back_at_once_when_it_had_served() -> None:
    """It does not say that it is ready: having run for a while is enough; soon after its start: back-off."""
    shop = up(FOUR)
    plan = shop.kill(GATEWAY_NAME)
    assert shop.phase(GATEWAY_NAME) is Phase.BACKOFF
    shop.pass_ms(20_000)
    plan = shop.kill(GATEWAY_NAME)
    assert told(plan) == [
        "requeue steersman.gateway: retry-replica",
        "start steersman.gateway: placed",
    ]
    assert shop.state(GATEWAY_NAME).failures == 0


# ---- stop, up again, down --------------------------------------------------------------------------------


def test_stop_and_up_again() -> None:
    """Stopped: replicas drain, the declaration stays. Up again: the same revision, and no new one."""
    shop = up(FOUR, spec=service(scaling=replicas(2)))
    plan = shop.stop("digits")
    assert told(plan) == [
        "retire digits: stop-requested",
        "retire digits: stop-requested",
        "hold digits: stop-requested",
        "stop digits.1 (removed): removed",
        "stop digits.2 (removed): removed",
    ]
    assert listed(shop) == {}
    shop.rest()
    assert (shop.names(), shop.why()) == ([], Code.STOP_REQUESTED)
    assert GATEWAY_NAME in shop.snapshot.workloads, "it tells callers that nobody serves"
    shop.serve(service(scaling=replicas(2)), restarts=False)
    shop.rest()
    assert (shop.names(), shop.service().revisions) == (["digits.3", "digits.4"], 1)
    assert shop.why() is Code.SERVING


def test_down_drains_and_forgets() -> None:
    """Removed: off the gateway at once, drained, forgotten; with the last service goes the gateway."""
    shop = up(FOUR)
    shop.down("digits")
    config = gateway_config(shop.snapshot, target_of)
    assert config is not None
    assert config.services == ()
    shop.rest()
    assert len(shop.snapshot.services) == 0
    assert len(shop.snapshot.workloads) == 0
    assert gateway_config(shop.snapshot, target_of) is None


def test_down_of_one_of_two_keeps_the_gateway() -> None:
    shop = up(FOUR)
    shop.serve(service("other"))
    shop.rest()
    shop.down("digits")
    shop.rest()
    left = [name for name, _ in shop.snapshot.workloads.sorted_items()]
    assert left == ["other.1", "steersman.gateway"]


def test_up_again_while_it_goes_down() -> None:
    """Declared again before its replicas are gone: it stays, with replicas of its own number."""
    shop = up(FOUR)
    shop.down("digits")
    plan = shop.serve(service(), restarts=False)
    assert told(plan)[0] == "spawn digits: replica-needed"
    shop.rest()
    assert (shop.names(), shop.why()) == (["digits.2"], Code.SERVING)


def test_down_and_up_while_the_gateway_goes() -> None:
    """The gateway was told to end with the last service: another is started once that one is gone."""
    shop = up(FOUR)
    shop.down("digits")
    while not shop.state(GATEWAY_NAME).removing:
        shop.cycle(
            *[event for event in shop.world() if getattr(event, "run", "") != shop.run(GATEWAY_NAME).id]
        )
    first = shop.run(GATEWAY_NAME).id
    shop.serve(service())
    assert shop.run(GATEWAY_NAME).id == first
    shop.rest()
    assert shop.run(GATEWAY_NAME).id != first
    assert shop.why() is Code.SERVING


def test_down_while_a_new_revision_rolls() -> None:
    """Replicas of both revisions go, and then the service."""
    shop = up(FOUR)
    shop.serve(service(model="v2"))
    shop.cycle(after_ms=0)
    assert shop.names() == ["digits.1", "digits.2"]
    shop.down("digits")
    assert shop.names() == []
    shop.rest()
    assert len(shop.snapshot.services) == 0


def test_nobody_ends_a_replica_behind_its_service() -> None:
    """A stop or removal of what a service owns changes nothing: its number is the service's to say."""
    shop = up(FOUR)
    for name in ("digits.1", GATEWAY_NAME):
        plan = shop.cycle(
            StopRequested(workload=WorkloadName(name)), RemoveRequested(workload=WorkloadName(name))
        )
        assert told(plan) == []


# ---- services and jobs on one fleet ----------------------------------------------------------------------


def test_a_replica_waits_behind_a_job_that_cannot_yield() -> None:
    """No room: the replica says what it lacks, and starts when the job is done."""
    shop = Shop(fleet(node("here", cores=1)))
    shop.up(job("train"))
    shop.begin("train")
    shop.serve(service(priority=10))
    shop.rest()
    assert (shop.code("digits.1"), shop.why()) == (Code.NO_CORES, Code.WAITING_READY)
    shop.end("train")
    shop.rest()
    assert shop.why() is Code.SERVING


def test_a_service_that_is_too_large_is_held() -> None:
    """More than any node has: its replica is pending with the reason until the fleet grows."""
    shop = Shop(fleet(node("here", cores=1)))
    shop.serve(service(cores=2))
    shop.rest()
    assert shop.code("digits.1") is Code.REFUSED_TOO_LARGE
    shop.cycle(fleet(node("here", cores=4)))
    shop.rest()
    assert shop.why() is Code.SERVING


def test_a_burst_takes_a_training_jobs_cores_and_gives_them_back() -> None:
    """Load: the service grows and the job with a lower priority yields; calm: it shrinks, the job resumes."""
    shop = Shop(fleet(node("here", cores=3)))
    shop.serve(service(scaling=replicas(1, 3), priority=10))
    shop.cycle(declared(job("train", cores=2, checkpoint=RESUMABLE)))
    shop.rest()
    shop.cycle(after_ms=10_000)
    shop.tell(ongoing_milli=6_000)
    shop.pass_ms(4_000)
    assert shop.service().target == 3
    shop.rest()
    assert (shop.ready(), shop.phase("train"), shop.state("train").preemptions) == (3, Phase.QUEUED, 1)
    shop.tell(ongoing_milli=500)
    shop.pass_ms(12_000)
    shop.rest()
    assert (shop.ready(), shop.phase("train")) == (1, Phase.ACTIVE)
    assert shop.run("train").attempt == 2
