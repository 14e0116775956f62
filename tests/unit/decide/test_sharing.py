"""Parts of devices: which one is taken, in which mode, and what is said of it."""

import pytest
from msgspec.structs import replace
from tests.scenarios.home import GIB, RESUMABLE, Home, fleet, job, node

from steersman.decide.fit import largest_part, ranks_on, what_lacks
from steersman.decide.placer import Flavor, Placer, as_packed, look_at
from steersman.explain.refusals import refuse
from steersman.explain.words import describe, fix
from steersman.explain.workload import explain
from steersman.model.decisions import Placement, Start
from steersman.model.events import NodeHealth
from steersman.model.ids import NodeId, RunId, WorkloadName
from steersman.model.reasons import Code
from steersman.model.resources import Resources, Sharing
from steersman.model.snapshot import Shape
from steersman.model.workload import Topology, Workload
from steersman.state.check import holds
from steersman.state.draft import Draft


def part(
    name: str,
    milli: int = 500,
    *,
    kind: str = "A100",
    sharing: Sharing = "auto",
    profile: str = "",
    ranks: int = 1,
    priority: int = 0,
) -> Workload:
    spec = job(name, ranks=ranks, priority=priority, checkpoint=RESUMABLE)
    resources = Resources(
        cpu_milli=1_000,
        memory_bytes=GIB,
        accelerators=((kind, 1),),
        device_milli=1000 if profile else milli,
        sharing=sharing,
        mig_profile=profile,
    )
    return replace(spec, resources=resources)


def together(name: str, ranks: int, topology: Topology, cores: int = 1) -> Workload:
    spec = job(name, ranks=ranks, cores=cores)
    return replace(spec, body=replace(spec.body, topology=topology))


def placed(home: Home, name: str) -> tuple[Placement, ...]:
    return next(
        item.placements
        for cycle in reversed(home.cycles)
        for item in cycle.plan.decisions
        if isinstance(item, Start) and item.workload == name
    )


def told(home: Home, name: str) -> str:
    state = home.snapshot.workloads[name]
    assert state.reason is not None
    return describe(state.reason)


def test_two_halves_share_one_device_and_a_whole_one_stays_whole() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4", "T4"])))
    home.up(part("one", 600, kind="T4"), part("two", 400, kind="T4"), job("whole", gpus=(("T4", 1),)))
    (one,), (two,), (whole,) = (placed(home, name) for name in ("one", "two", "whole"))
    assert one.devices == two.devices != whole.devices
    assert (one.device_milli, two.device_milli, whole.device_milli) == (600, 400, 1000)
    assert "60 % of a device: nothing keeps it and its neighbours apart" in told(home, "one")


def test_a_part_is_an_instance_where_there_is_one_and_says_what_it_keeps_apart() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4"]), node("b", cores=8, devices=["A100"])))
    home.up(part("one", 250, kind="any"), part("slice", 250, kind="any", sharing="time-slice"))
    (one,), (other,) = placed(home, "one"), placed(home, "slice")
    assert (one.node, one.mig_profile) == ("b", "2g.10gb")
    assert (other.node, other.mig_profile) == ("a", "")
    assert "a MIG instance 2g.10gb: memory and faults are its own" in told(home, "one")


def test_a_node_with_two_open_devices_counts_once() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4", "T4"]), node("b", cores=8, devices=["T4"])))
    pair = part("pair", 600, kind="T4", ranks=2)
    home.up(replace(pair, body=replace(pair.body, topology="node")))
    home.up(part("gang", 300, kind="T4", ranks=3))
    assert sorted(str(item.node) for item in placed(home, "gang")) == ["a", "a", "b"]


def test_an_instance_where_none_fits_becomes_a_slice_only_when_that_will_do() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4"])))
    home.up(part("auto", 300, kind="any"))
    assert placed(home, "auto")[0].device_milli == 300
    home.up(part("mig", 300, kind="any", sharing="mig"))
    assert home.code("mig") is Code.REFUSED_TOO_LARGE


def test_named_profiles_fill_a_device_and_give_it_back() -> None:
    home = Home(fleet(node("a", cores=8, devices=["A100"])))
    home.up(part("p", profile="4g.20gb"), part("q", profile="3g.20gb"), part("r", profile="1g.5gb"))
    assert [placed(home, name)[0].mig_start for name in ("p", "q")] == [0, 4]
    assert home.code("r") is Code.NO_SHARE
    for name in ("p", "q"):
        home.begin(name)
        home.end(name)
    home.settle()
    state = home.snapshot.nodes["a"]
    assert [one.instances for one in state.shares] == [(("1g.5gb", 3),)]
    home.begin("r")
    home.end("r")
    assert home.snapshot.nodes["a"].free_devices == ("a/0",)
    assert home.snapshot.nodes["a"].shares == ()


def test_a_shared_device_is_in_one_mode() -> None:
    home = Home(fleet(node("a", cores=8, devices=["A100"])))
    home.up(part("slice", 100, sharing="time-slice"), part("instance", 100, sharing="mig"))
    assert home.code("instance") is Code.NO_SHARE


def test_gangs_of_parts_lie_on_as_few_devices_as_hold_them() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4", "T4", "T4"])))
    home.up(part("gang", 500, kind="T4", ranks=4))
    assert len({item.devices for item in placed(home, "gang")}) == 2


def test_who_runs_on_parts_yields_to_who_outranks_it() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4"])))
    home.up(part("low", 700, kind="T4"))
    home.begin("low")
    home.cycle(after_ms=10_000)
    home.up(part("high", 700, kind="T4", priority=9))
    assert home.snapshot.nodes["a"].reserved_shares == 1
    assert largest_part(home.snapshot.nodes["a"], Shape(1, 1, (("T4", 1),), 1, 100)) == 0
    home.up(part("other", 100, kind="T4"))
    assert home.snapshot.workloads["other"].run is None, "what is kept is nobody else's"
    home.end("low", code=143)
    home.settle()
    assert placed(home, "high")[0].device_milli == 700
    assert home.snapshot.nodes["a"].reserved_shares == 0
    assert placed(home, "other")[0].device_milli == 100


def test_a_fleet_declared_anew_keeps_what_is_leased() -> None:
    a100 = node("a", cores=8, devices=["A100", "A100"])
    home = Home(fleet(a100))
    home.up(part("m", profile="3g.20gb"), part("s", 300, sharing="time-slice"))
    before = home.snapshot.nodes["a"]
    home.cycle(fleet(replace(a100, cpu_milli=16_000)))
    assert home.snapshot.nodes["a"].shares == before.shares
    home.cycle(fleet(replace(a100, devices=())))
    assert not home.snapshot.nodes["a"].shares
    home.begin("m")
    home.end("m")
    home.cycle(fleet(a100))
    back = home.snapshot.nodes["a"]
    assert [one.free_milli for one in back.shares] == [700]


@pytest.mark.parametrize(
    ("topology", "ranks", "nodes"),
    [("node", 6, {"b"}), ("zone", 6, {"b"}), ("zone", 7, {"c", "d"}), ("", 9, {"a", "b", "c", "d"})],
)
def test_ranks_that_must_be_together(topology: Topology, ranks: int, nodes: set[str]) -> None:
    """The zone with the least room to spare, then the one with the fewest nodes."""
    names = {"a": ("x", 2), "b": ("y", 6), "c": ("z", 3), "d": ("z", 4)}
    home = Home(fleet(*(replace(node(name, cores=n), zone=zone) for name, (zone, n) in names.items())))
    home.up(together("gang", ranks, topology))
    assert {item.node for item in placed(home, "gang")} <= nodes
    home.up(job("filler", cores=3))
    home.up(together("more", 6, topology or "node"))
    if topology:
        assert home.code("more") is Code.NO_ROOM_TOGETHER


def test_pools_are_kept_to_and_told() -> None:
    home = Home(fleet(replace(node("a"), pool="p"), replace(node("b"), pool="q")))
    draft = Draft(home.snapshot)
    shape = Shape(1_000, GIB, (), 1, pools=("q",))
    placer = Placer()
    placer.begin(home.snapshot)
    found = placer.place(draft, shape)
    assert found is not None
    assert found.node == "b"
    assert placer.place(draft, shape._replace(pools=("none",))) is None
    assert what_lacks(draft, shape._replace(pools=("none",))) is Code.NO_POOL
    assert what_lacks(draft, shape._replace(memory_bytes=99 * GIB, pools=("q",))) is Code.NO_MEMORY
    home.cycle(NodeHealth(node=NodeId("b"), health="dead"))
    assert placer.begin(home.snapshot) is None
    assert placer.place(Draft(home.snapshot), shape) is None


def test_nodes_with_several_kinds_are_left_to_best_fit() -> None:
    home = Home(fleet(node("mixed", cores=8, devices=["T4", "V100"]), node("plain", cores=8)))
    home.up(job("t", gpus=(("T4", 1),)), job("both", gpus=(("T4", 1), ("V100", 1))))
    assert placed(home, "t")[0].node == "mixed"
    assert home.snapshot.workloads["both"].run is None


def test_what_is_kept_is_not_offered_to_the_packer() -> None:
    state = Home(fleet(node("a", devices=["T4", "T4"]))).snapshot.nodes["a"]
    look = look_at(state.node)
    assert as_packed(state, look).devices == (1000, 1000)
    assert as_packed(replace(state, reserved_accelerators=(("T4", 1),)), look).devices == (0, 1000)
    assert as_packed(replace(state, reserved_shares=1), look).devices == (0, 0)
    assert look.flavor.name == "T4"
    assert Flavor(("T4",), sliced=False, cut=False, spot=True, pool="spot").name == "T4/whole@spot"
    assert ranks_on(replace(state, reserved_shares=1), Shape(1, 1, (("T4", 1),), 9, 100)) == 0


def test_each_node_says_what_it_lacks_of_a_part() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4"]), node("b")))
    home.up(part("one", 700, kind="T4"), part("two", 400, kind="T4"))
    waiting = home.snapshot.workloads["two"]
    refusals = [refuse(home.snapshot.nodes[name], waiting) for name in ("a", "b")]
    assert [(item.code, item.asked, item.free) for item in refusals if item] == [
        (Code.NO_SHARE, 400, 300),
        (Code.NO_SHARE, 400, 0),
    ]


def test_the_first_kind_that_has_enough_is_taken() -> None:
    home = Home(fleet(node("a", cores=8, devices=["H100", "T4", "T4"])))
    home.up(job("two", gpus=(("H100|T4", 2),)))
    assert placed(home, "two")[0].devices == ("a/1", "a/2")


def test_a_node_that_cannot_cut_is_passed_over() -> None:
    home = Home(fleet(node("a", cores=8, devices=["A100", "T4"]), node("b", cores=8, devices=["T4"])))
    home.up(part("one", profile="7g.40gb", kind="any"), part("two", profile="7g.40gb", kind="any"))
    assert placed(home, "one")[0].devices == ("a/0",)
    assert home.code("two") is Code.NO_SHARE
    waiting = home.snapshot.workloads["two"]
    lacks = refuse(home.snapshot.nodes["b"], waiting)
    assert lacks is not None
    assert (lacks.code, lacks.free) == (Code.NO_SHARE, 1000)


def test_spot_is_not_for_who_did_not_ask_for_it() -> None:
    home = Home(fleet(replace(node("s"), market="spot", pool="p"), node("a", cores=1)))
    home.up(job("one"), job("two"))
    lacks = refuse(home.snapshot.nodes["s"], home.snapshot.workloads["two"])
    assert lacks is not None
    assert lacks.code is Code.NO_POOL


def test_too_much_for_one_node_is_told_with_its_topology() -> None:
    home = Home(fleet(node("a", cores=2), node("b", cores=2)))
    home.up(together("pair", 4, "node"))
    assert home.code("pair") is Code.REFUSED_TOO_LARGE
    assert home.facts("pair")["topology"] == "node"


def test_what_is_kept_of_alternatives_is_what_comes_free() -> None:
    """The A100 is another's for good; what yields is the H100, and that is what is kept."""
    home = Home(fleet(node("a", cores=8, devices=["A100", "H100"])))
    home.up(job("stays", gpus=(("A100", 1),)), job("yields", gpus=(("H100", 1),), checkpoint=RESUMABLE))
    for name in ("stays", "yields"):
        home.begin(name)
    home.cycle(after_ms=10_000)
    home.up(job("wins", gpus=(("A100|H100", 1),), priority=9))
    (kept,) = home.snapshot.workloads["wins"].reservations
    assert kept.amount.accelerators == (("H100", 1),)
    home.end("yields", code=143)
    assert placed(home, "wins")[0].devices == ("a/1",)


def test_what_asks_for_nothing_starts_where_less_than_nothing_is_free() -> None:
    """All cores are leased, and one is kept beside for who waits."""
    home = Home(fleet(node("a", cores=4)))
    home.up(job("low", cores=4, checkpoint=RESUMABLE))
    home.begin("low")
    home.cycle(after_ms=10_000)
    home.up(job("high", cores=1, priority=9))
    assert home.snapshot.nodes["a"].reserved_cpu_milli == 1_000
    home.up(job("nothing", cores=0, gib=0), job("gang", cores=0, gib=0, ranks=2))
    assert home.run("nothing").ranks[0].placement.node == "a"
    assert len(home.run("gang").ranks) == 2
    home.cycle(fleet(node("a", cores=3)))
    home.up(job("later", cores=0, gib=0), job("others", cores=0, gib=0, ranks=2))
    assert (home.state("later").run, home.state("others").run) == (None, None), (
        "the node is over its capacity"
    )


def test_a_part_is_told_as_it_was_asked_for() -> None:
    home = Home(fleet(node("a", cores=8, devices=["A100"])))
    home.up(part("share", 250), part("instance", profile="1g.5gb"))
    assert ", 0.25 x A100, as declared" in explain(home.snapshot, "share", ()).size
    assert ", 1g.5gb x A100, as declared" in explain(home.snapshot, "instance", ()).size
    home.up(together("pair", 9, "node"), job("tpu", gpus=(("TPU", 1),)))
    assert told(home, "pair").endswith("asks for 9 ranks where one node, empty, holds 8")
    why = home.snapshot.workloads["tpu"].reason
    assert why is not None
    assert (fix(why) or "").startswith("name a kind that is there (A100), or add")


def test_a_node_with_several_open_devices_is_looked_at_once() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4", "T4"])))
    home.up(part("one", 600, kind="T4"), part("two", 500, kind="T4"))
    home.up(part("gang", 400, kind="T4", ranks=2))
    assert {item.devices for item in placed(home, "gang")} == {("a/0",), ("a/1",)}


def test_a_start_whose_device_was_taken_meanwhile_does_not_hold() -> None:
    home = Home(fleet(node("a", cores=8, devices=["T4"])))
    home.up(job("first", gpus=(("T4", 1),)))
    (start,) = [item for item in home.cycles[-1].plan.decisions if isinstance(item, Start)]
    home.up(job("second", gpus=(("T4", 1),)))
    late = replace(start, workload=WorkloadName("second"), run=RunId("second.9"))
    assert not holds(Draft(home.snapshot), late)
