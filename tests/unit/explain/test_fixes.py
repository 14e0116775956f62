"""The nearest fix: what is suggested works, and asks for no more than it must."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.scenarios.home import Home, fleet, job, node

from steersman.decide.admit import too_large
from steersman.explain.fixes import nearest_fix
from steersman.explain.workload import explain
from steersman.model.fleet import Node
from steersman.model.reasons import Code
from steersman.model.resources import Resources
from steersman.model.snapshot import NodeSize, Phase
from steersman.model.workload import Topology, Workload

_kinds = st.lists(st.sampled_from(("A100", "H100")), max_size=3).map(tuple)
_nodes = st.lists(
    st.builds(lambda cores, gib, kinds: (cores, gib, kinds), st.integers(1, 8), st.integers(1, 8), _kinds),
    min_size=1,
    max_size=3,
)
_jobs = st.builds(
    job,
    st.just("large"),
    cores=st.integers(1, 12),
    gib=st.integers(1, 12),
    ranks=st.integers(1, 4),
    gpus=st.sampled_from(((), (), (("A100", 1),), (("A100", 2), ("H100", 1)), (("TPU", 1),))),
)
_parts = st.sampled_from(
    (
        Resources(),
        Resources(),
        Resources(accelerators=(("A100|H100", 2),)),
        Resources(accelerators=(("any", 1),)),
        Resources(accelerators=(("A100", 1),), device_milli=400),
        Resources(accelerators=(("H100|T4", 1),), device_milli=250, sharing="time-slice"),
        Resources(accelerators=(("A100", 1),), device_milli=300, sharing="mig"),
        Resources(accelerators=(("A100", 1),), mig_profile="3g.20gb"),
    )
)
_topologies = st.sampled_from(("", "", "node", "zone"))
_zones = st.lists(st.sampled_from(("", "a", "b")), min_size=3, max_size=3)


def _fleet(sizes: list[tuple[int, int, tuple[str, ...]]]) -> list[Node]:
    return [node(f"n{at}", cores=c, gib=g, devices=kinds) for at, (c, g, kinds) in enumerate(sizes)]


def _runs(spec: Workload, nodes: list[Node]) -> bool:
    home = Home(fleet(*nodes))
    home.up(spec)
    return home.phase(spec.name) is Phase.ACTIVE


@given(sizes=_nodes, spec=_jobs, part=_parts, topology=_topologies, zones=_zones)
def test_applying_the_fix_makes_it_run(
    sizes: list[tuple[int, int, tuple[str, ...]]],
    spec: Workload,
    part: Resources,
    topology: Topology,
    zones: list[str],
) -> None:
    """On an empty fleet: the smaller declaration starts, and so does the old one with the nodes added."""
    nodes = [replace(one, zone=zone) for one, zone in zip(_fleet(sizes), zones, strict=False)]
    spec = replace(spec, body=replace(spec.body, topology=topology))
    if part.accelerators:
        amount = spec.resources
        spec = replace(
            spec, resources=replace(part, cpu_milli=amount.cpu_milli, memory_bytes=amount.memory_bytes)
        )
    home = Home(fleet(*nodes))
    home.up(spec)
    found = nearest_fix(spec, home.snapshot.indexes.sizes)
    assert (found is None) == (home.phase("large") is Phase.ACTIVE)
    if found is None:
        return
    assert found.words == explain(home.snapshot, "large", ()).fix
    if found.resources is not None:
        body = replace(spec.body, num_nodes=found.num_nodes)
        assert _runs(replace(spec, resources=found.resources, body=body), nodes), found
    kinds = [(kind.split("|")[0].replace("any", "A100"), count) for kind, count in found.node.accelerators]
    devices = [kind for kind, count in kinds for _ in range(count)]
    added = [
        replace(
            node(f"x{at}", devices=devices),
            cpu_milli=found.node.cpu_milli,
            memory_bytes=found.node.memory_bytes,
            zone="" if found.zone is None else found.zone[1],
        )
        for at in range(found.add_nodes)
    ]
    assert _runs(spec, [*nodes, *added]), found


def test_words_name_only_what_must_change() -> None:
    home = Home(fleet(node("a", cores=2, gib=8), node("b", cores=8, gib=1)))
    assert home.up(job("large", cores=4, gib=4)).decisions[0].reason.code is Code.REFUSED_TOO_LARGE
    assert explain(home.snapshot, "large", ()).fix == (
        "ask for at most cpus: 2, or add 1 node with at least 4 cores, 4 GiB of memory to the fleet"
    )
    home.up(job("gang", cores=2, gib=4, ranks=3))
    assert explain(home.snapshot, "gang", ()).fix == (
        "ask for at most num_nodes: 1, or add 2 nodes with at least 2 cores, 4 GiB of memory to the fleet"
    )
    home.up(job("gpu", cores=1, gpus=(("A100", 2),)))
    assert explain(home.snapshot, "gpu", ()).fix == (
        "ask for at most no A100, or add 1 node with at least 1 cores, 1 GiB of memory, 2 x A100 to the fleet"
    )
    home.up(job("memory", gib=9))
    assert "memory: 8 GiB" in (explain(home.snapshot, "memory", ()).fix or "")


def test_some_devices_are_better_than_none() -> None:
    home = Home(fleet(node("a", cores=8, devices=["A100"]), node("b", cores=8)))
    home.up(job("gpu", gpus=(("A100", 2),)))
    assert (explain(home.snapshot, "gpu", ()).fix or "").startswith(
        "ask for at most accelerators: A100:1, or add"
    )


def test_a_fleet_with_nothing_to_offer_needs_nodes() -> None:
    """There is no cutting down to a node that has no cores."""
    spec = job("work")
    sizes = {NodeSize(0, 1 << 30): 2}
    assert too_large(spec, sizes) is not None
    found = nearest_fix(spec, sizes)
    assert found is not None
    assert found.resources is None
    assert found.words == "add 1 node with at least 1 cores, 1 GiB of memory to the fleet"
    assert found.node == Resources(cpu_milli=1_000, memory_bytes=1 << 30)


def test_spot_is_no_fix_for_who_did_not_ask_for_it() -> None:
    spot = replace(node("s", cores=8), market="spot", pool="p")
    home = Home(fleet(spot, node("a", cores=2)))
    home.up(job("large", cores=8))
    assert (explain(home.snapshot, "large", ()).fix or "").startswith(
        "ask for at most cpus: 2, or add 1 node"
    )
