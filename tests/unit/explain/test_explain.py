"""Words for every reason, and explanations of homes as they stand."""

import pytest
from msgspec.structs import replace
from tests.properties.strategies import Story, played
from tests.scenarios.home import GIB, RESUMABLE, Home, declared, fleet, job, node, published_by

from steersman.explain.history import _run_words, decision_words, history
from steersman.explain.words import describe, exit_words, fix
from steersman.explain.workload import explain
from steersman.model.decisions import Reserve
from steersman.model.errors import ConflictError
from steersman.model.events import Event, HomeCreated, NodeHealth, Observed, RankExited, RankUnknown
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.reasons import Code, Reason, reason
from steersman.model.workload import CheckpointPolicy


def _records(home: Home) -> list[tuple[int, int, Event]]:
    return [(item.position, item.at_ms, item.event) for item in home.log]


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_words_with_and_without_facts(code: Code) -> None:
    """Old journals may lack facts: a sentence is then shorter, never an error."""
    words = describe(Reason(code=code))
    assert words
    assert not words.endswith(".")
    told = fix(Reason(code=code))
    assert told is None or told


def test_every_reason_that_occurs_is_described_with_its_facts() -> None:
    for seed in range(12):
        home = played(Story(seed, 30))
        for cycle in home.cycles:
            for decision in cycle.plan.decisions:
                assert "None" not in describe(decision.reason), decision.reason
                assert decision_words(decision)
        for name, _ in home.snapshot.workloads.sorted_items():
            found = explain(home.snapshot, name, _records(home))
            assert found.where
            assert found.why
            assert found.moments


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"signal": 9}, "ended by signal 9"),
        ({"exit_code": 3}, "exited with 3"),
        ({"exit_code": 137}, "ended by signal 9"),
        ({"cause": "lost"}, "lost"),
        ({"cause": "start-failed"}, "could not be started"),
        ({"cause": "memory", "signal": 9}, "out of its memory: ended by signal 9"),
        ({"cause": "setup-failed", "exit_code": 2}, "setup failed: exited with 2"),
    ],
)
def test_how_it_ended(facts: dict[str, str | int], says: str) -> None:
    words = describe(reason(Code.RETRY_BACKOFF, attempt=1, delay_ms=2_000, **facts))
    assert says in words
    assert "2s" in words
    assert exit_words(0) == "exited with 0"


def test_counts_are_told() -> None:
    why = Reason(code=Code.NO_CORES, counts=((Code.NO_CORES, 3), (Code.NO_MEMORY, 1)))
    assert describe(why).endswith("(3 x too few free cores, 1 x too little free memory)")


def test_too_large_names_what_lacks() -> None:
    home = Home(fleet(node("a", cores=2, gib=4, devices=["A100"])))
    home.up(job("big", cores=4, gib=8, gpus=(("A100", 2),)))
    why = explain(home.snapshot, "big", ()).why
    assert "4 cores where the largest node has 2" in why
    assert "8 GiB of memory where the largest node has 4 GiB" in why
    assert "2 x A100 where the best node has 1" in why
    recorded = home.state("big").reason
    assert recorded is not None
    assert fix(recorded) is not None
    home.up(job("gang", ranks=5))
    assert "5 ranks where the whole fleet, empty, holds 2" in explain(home.snapshot, "gang", ()).why
    gang = home.state("gang").reason
    assert gang is not None
    assert "num_nodes: 2" in (fix(gang) or "")


def test_an_unknown_name_gets_the_nearest() -> None:
    home = Home()
    with pytest.raises(ConflictError, match="steer up"):
        explain(home.snapshot, "digits", ())
    home.up(job("digits"), job("urgent"))
    with pytest.raises(ConflictError, match="did you mean digits"):
        explain(home.snapshot, "digit", ())
    with pytest.raises(ConflictError, match="there are: digits, urgent"):
        explain(home.snapshot, "zzz", ())


def _busy() -> Home:
    """Five nodes' worth of reasons: who is in the way of a waiting job, and why each need not yield."""
    home = Home(fleet(*(node(name, cores=2, gib=2) for name in ("a", "b", "c", "d")), node("e", cores=2)))
    home.up(
        job("plain", cores=2),
        job("peer", cores=2, priority=9, checkpoint=RESUMABLE),
        job("meek", cores=2, checkpoint=CheckpointPolicy(enabled=True)),
        job("going", cores=2, checkpoint=RESUMABLE),
    )
    for name in ("plain", "peer", "meek", "going"):
        home.begin(name)
    home.cycle(NodeHealth(node=NodeId("e"), health="unknown"), after_ms=10_000)
    return home


def test_who_waits_is_told_what_is_in_the_way() -> None:
    home = _busy()
    home.stop("going")
    home.up(job("young", cores=2, gib=2, priority=-1))
    home.up(job("wants", cores=2, gib=1, gpus=(("A100", 1),), priority=9))
    home.cycle(
        fleet(*(node(name, cores=2, gib=2) for name in ("a", "b", "c", "d")), node("g", devices=["A100"]))
    )
    home.up(job("later", cores=2, gib=2, priority=9))
    found = explain(home.snapshot, "later", _records(home))
    assert found.refused
    assert sum(count for _, count in found.refused) >= 4
    verdicts = {rival.workload: rival.why_not for rival in found.rivals}
    assert all(why or name == "meek" for name, why in verdicts.items())
    assert len(found.rivals) == 3


def test_each_constraint_is_told_with_what_is_free() -> None:
    home = Home(
        fleet(
            node("a", cores=2, gib=1),
            node("b", cores=1, gib=8),
            node("c", cores=4),
            node("d", devices=["A100"]),
        )
    )
    home.up(job("hog", gpus=(("A100", 1),), checkpoint=RESUMABLE), job("filler", cores=4))
    home.cycle(NodeHealth(node=NodeId("c"), health="unknown"))
    home.up(job("wants", cores=2, gib=4, priority=9), job("gpu", gpus=(("A100", 1),), priority=9))
    found = {item.node: item for item in explain(home.snapshot, "wants", ()).refusals}
    assert (found[NodeId("a")].code, found[NodeId("a")].free) == (Code.NO_MEMORY, GIB)
    assert (found[NodeId("b")].code, found[NodeId("b")].free) == (Code.NO_CORES, 1_000)
    assert found[NodeId("c")].code is Code.NO_NODES
    gpu = explain(home.snapshot, "gpu", ())
    assert {item.code for item in gpu.refusals} == {Code.NO_DEVICES, Code.NO_NODES}
    assert [(rival.workload, rival.why_not) for rival in gpu.rivals] == [("hog", "is already on its way out")]


def test_devices_that_are_free_are_not_what_lacks() -> None:
    home = Home(fleet(node("a", cores=2, devices=["A100"])))
    home.up(job("filler", cores=2))
    home.up(job("wants", cores=2, gpus=(("A100", 1),)))
    (found,) = explain(home.snapshot, "wants", ()).refusals
    assert (found.code, found.asked, found.free) == (Code.NO_CORES, 2_000, 0)


def test_a_rival_that_may_be_preempted_is_told_first() -> None:
    """Its room alone is too little, so it need not yield; nothing else is in its favour."""
    home = Home(fleet(node("a", cores=4)))
    home.up(job("firm", cores=2), job("meek", cores=2, checkpoint=RESUMABLE))
    home.begin("firm")
    home.begin("meek")
    home.cycle(after_ms=600_000)
    home.up(job("wants", cores=4, priority=9))
    assert [(rival.workload, rival.why_not) for rival in explain(home.snapshot, "wants", ()).rivals] == [
        ("meek", ""),
        ("firm", "cannot resume: it saves no checkpoints"),
    ]


def test_a_gang_is_not_told_of_nodes_that_have_room() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(job("filler"))
    home.up(job("gang", cores=2, ranks=2))
    assert [item.node for item in explain(home.snapshot, "gang", ()).refusals] == ["a"]


def test_a_job_that_has_just_begun_is_told_to_be_protected() -> None:
    home = Home(fleet(node("a", cores=2)))
    home.up(job("young", cores=2, checkpoint=RESUMABLE))
    home.up(job("wants", cores=2, priority=9))
    assert explain(home.snapshot, "wants", ()).rivals[0].why_not == "has only just begun"
    home.cycle(NodeHealth(node=NodeId("a"), health="alive"))


def test_events_of_nobody_say_nothing() -> None:
    assert history("w", [(1, 0, Observed(now_ms=1)), (2, 0, HomeCreated(home_id="h"))]) == ()
    assert _run_words(HomeCreated(home_id="h")) is None


def test_where_it_is_in_every_phase() -> None:
    home = _busy()
    assert "is running on" in explain(home.snapshot, "plain", ()).where
    home.save("meek", 7, save_ms=300)
    saving = " ".join(explain(home.snapshot, "meek", ()).facts)
    assert "newest checkpoint: step 7" in saving
    assert "automatic (Young/Daly)" in saving
    home.end("peer", signal=9)
    assert "before its next try" in explain(home.snapshot, "peer", ()).where
    home.end("plain", artifacts=["model"])
    done = explain(home.snapshot, "plain", ())
    assert done.where.startswith("succeeded after 1 run")
    assert "artifact model" in " ".join(done.facts)
    home.up(job("held", cores=9))
    assert explain(home.snapshot, "held", ()).where == "declared, and held"
    home.up(job("waits", inputs=["nobody/x"], cores=9))
    assert explain(home.snapshot, "waits", ()).fix == "declare nobody"
    home.fold(declared(job("fresh", cores=9)))
    fresh = explain(home.snapshot, "fresh", ())
    assert "largest node" in fresh.why


def test_gangs_and_devices_are_sized_in_words() -> None:
    home = Home(fleet(node("a", cores=4, devices=["A100", "A100"])))
    home.up(job("gang", ranks=2, gpus=(("A100", 1),)))
    found = explain(home.snapshot, "gang", ())
    assert found.size == "2 ranks of 1 core(s), 1 GiB of memory, 1 x A100 each, as declared"
    assert "2 ranks on 1 node(s)" in found.why
    home.down("gang")
    assert "will be forgotten once it has ended" in explain(home.snapshot, "gang", ()).facts


def test_room_kept_and_yielded_is_told() -> None:
    home = Home(fleet(node("a", cores=2)))
    home.up(job("low", cores=2, checkpoint=RESUMABLE))
    home.begin("low")
    home.save("low", 1, after_ms=3_000)
    home.save("low", 2, after_ms=3_000)
    home.up(job("top", cores=2, priority=9))
    assert "room is reserved for it on a" in explain(home.snapshot, "top", ()).facts
    home.cycle(RankUnknown(run=home.run("low").id, rank=0))
    home.cycle(published_by(home.run("low"), "low", "model"))
    home.end("low", code=75)
    moments = history("low", _records(home))
    words = [moment.words for moment in moments]
    assert words[0] == "declared, priority 0"
    assert [word for word in words if "saved in" in word] == ["checkpoint of step 2 saved in 200ms"]
    assert any("yields to top (priority 9 over 0)" in word for word in words)
    assert any("nobody can tell" in word for word in words)
    assert any("saved and yielded (exit 75)" in word for word in words)
    assert any(word.startswith("artifact model stored") for word in words)
    assert "1 preempted" in " ".join(explain(home.snapshot, "low", ()).facts)
    let_go = Reserve(workload=WorkloadName("top"), reservations=(), reason=reason(Code.NO_CORES))
    assert decision_words(let_go).startswith("lets go of the room")
    home.stop("low")
    home.down("low")
    assert {"a person asked it to stop", "a person took its declaration down"} <= {
        moment.words for moment in history("low", _records(home))
    }


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"cause": "lost"}, "rank 0 was lost"),
        ({"cause": "start-failed", "detail": "no such file"}, "rank 0 could not be started: no such file"),
        ({"cause": "memory", "signal": 9}, "more memory"),
        ({"signal": 15, "stop_delivered": True}, "signal 15 as told"),
        ({"signal": 9}, "signal 9, not by Steersman"),
        ({"exit_code": 1}, "rank 0 exited with 1"),
    ],
)
def test_ends_in_the_timeline(event: dict[str, object], says: str) -> None:
    gone = RankExited(run="w.1", rank=0, at_ms=0, **event)  # type: ignore[arg-type]  # fields of that event
    assert says in history("w", [(1, 0, gone)])[0].words
    assert history("other", [(1, 0, gone)]) == ()


def test_what_a_dead_node_took_with_it_is_told() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2), node("c", cores=2)))
    home.up(job("gang", ranks=2, cores=2), job("other", cores=2))
    home.begin("gang")
    home.begin("other")
    first = home.run("gang").ranks[0].placement.node
    home.cycle(NodeHealth(node=first, health="unknown"), NodeHealth(node=first, health="dead"))
    home.cycle(NodeHealth(node=first, health="dead"))
    ends = [moment.words for moment in history("gang", _records(home)) if moment.code == "rank-exited"]
    assert ends == [f"rank 0 was lost: node {first} was declared dead"]
    home.end("gang", rank=1)
    second = home.run("other").ranks[0].placement.node
    home.end("other")
    home.cycle(NodeHealth(node=second, health="dead"))
    codes = [moment.code for moment in history("other", _records(home))]
    assert codes.count("rank-exited") == 1


def _told_rivals(home: Home, name: str) -> list[str]:
    return [str(rival.workload) for rival in explain(home.snapshot, name, ()).rivals]


def test_only_who_holds_what_lacks_is_in_the_way() -> None:
    nodes = (node("a", cores=8, gib=8, devices=["A100"]), node("t", cores=8, gib=8, devices=["T4"]))
    home = Home(fleet(*nodes, node("m", cores=8, gib=1), node("u", cores=8)))
    home.up(job("holds", gpus=(("A100", 1),)), job("other", gpus=(("T4", 1),)), job("small", cores=2, gib=1))
    home.cycle(NodeHealth(node=NodeId("u"), health="unknown"))
    home.up(job("wants", gpus=(("A100", 1),)), job("either", gpus=(("A100|T4", 1),)))
    home.up(job("large", cores=1, gib=8))
    assert _told_rivals(home, "wants") == ["holds"]
    assert _told_rivals(home, "either") == ["holds", "other"]
    assert set(_told_rivals(home, "large")) == {"holds", "other", "small"}


def test_a_gang_waits_for_whoever_holds_what_its_ranks_need() -> None:
    nodes = (node("a", cores=2, devices=["A100", "A100"]), node("b", cores=2, devices=["A100"]))
    home = Home(fleet(*nodes, node("c", cores=2)))
    home.up(job("holds", gpus=(("A100", 1),)), job("cores", cores=2))
    home.up(job("gang", ranks=3, gpus=(("A100", 1),)), job("wide", ranks=5))
    assert _told_rivals(home, "gang") == ["holds"]
    assert set(_told_rivals(home, "wide")) == {"holds", "cores"}


def test_who_cannot_be_made_to_yield_is_waited_for() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(job("firm", cores=2), job("firmer", cores=2))
    home.up(job("wants", cores=2, priority=9))
    assert "none yields to a higher priority" in (explain(home.snapshot, "wants", ()).fix or "")
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(job("firm", cores=2), job("meek", cores=2, checkpoint=RESUMABLE))
    home.up(job("wants", cores=2))
    assert "raise its priority" in (explain(home.snapshot, "wants", ()).fix or "")


def test_who_holds_no_core_is_not_waited_for_by_who_needs_one() -> None:
    home = Home(fleet(node("a", cores=2, devices=["T4", "T4"])))
    light = job("light", gpus=(("T4", 1),))
    home.up(replace(light, resources=replace(light.resources, cpu_milli=0)), job("heavy", cores=2))
    home.up(job("wants", cores=1))
    assert _told_rivals(home, "wants") == ["heavy"]


def test_a_node_with_room_holds_nobody_back() -> None:
    """It is the head of its queue in name only: the next cycle starts it."""
    home = Home(fleet(node("a", cores=2)))
    home.up(job("holds", cores=2), job("wants", cores=1))
    roomy = replace(home.snapshot, nodes=Home(fleet(node("a", cores=2))).snapshot.nodes)
    assert explain(roomy, "wants", ()).rivals == ()
