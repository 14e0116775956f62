"""A declared fleet: nodes, devices, counted nodes, and what is refused."""

import pytest

from steersman.model.errors import NotYetError, SpecError
from steersman.model.fleet import Fleet, Node
from steersman.model.resources import Device
from steersman.spec.parse import parse


def fleet(text: str) -> Fleet:
    parsed = parse(f"kind: fleet\n{text}".replace("ONE", "cpus: 1, memory: 1"), "my-fleet.yaml")
    assert parsed.workloads == ()
    assert parsed.fleet is not None
    return parsed.fleet


def test_a_fleet_is_sorted_and_written_out() -> None:
    assert fleet(
        "nodes:\n"
        "  - {name: gpu, cpus: 8, memory: 64GB, accelerators: {A100: 2, T4: 1},\n"
        "     site: berlin, labels: {z: 1, a: b}}\n"
        "  - {name: cpu, infra: local, cpus: 500m, memory: 1, count: 2}\n"
    ) == Fleet(
        name="my-fleet",
        nodes=(
            Node(id="cpu-0", cpu_milli=500, memory_bytes=2**30),  # type: ignore[arg-type]  # a NewType over str
            Node(id="cpu-1", cpu_milli=500, memory_bytes=2**30),  # type: ignore[arg-type]  # a NewType over str
            Node(
                id="gpu",  # type: ignore[arg-type]  # a NewType over str, plain in tests
                site="berlin",
                cpu_milli=8000,
                memory_bytes=64 * 2**30,
                devices=tuple(
                    Device(id=f"gpu/{kind}-{index}", kind=kind)  # type: ignore[arg-type]  # the same
                    for kind, index in (("A100", 0), ("A100", 1), ("T4", 0))
                ),
                labels=(("a", "b"), ("z", "1")),
            ),
        ),
    )
    assert fleet("name: lab\nnodes: [{name: n, ONE, count: 1}]").nodes[0].id == "n-0"
    assert fleet("name: lab\nnodes: [{name: n, ONE}]").name == "lab"


def test_ten_thousand_nodes() -> None:
    made = fleet("nodes: [{name: n, cpus: 64, memory: 256, accelerators: A100:8, count: 10000}]")
    assert len(made.nodes) == 10_000
    assert len({device.id for node in made.nodes for device in node.devices}) == 80_000
    assert [node.id for node in made.nodes] == sorted(node.id for node in made.nodes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\n", "a fleet has at least one node or cluster"),
        ("nodes: []\n", "a fleet has at least one node"),
        ("nodes:\n", "a fleet has at least one node"),
        ("nodes: {a: b}\n", "a list of nodes is wanted here, and this is a mapping"),
        ("nodes: [a]\n", "a node is a mapping of keys, and this is 'a'"),
        ("nodes: [{cpus: 1, memory: 1}]\n", "`name` is missing in a node"),
        ("nodes: [{name: a, memory: 1}]\n", "`cpus` is missing in a node"),
        ("nodes: [{name: a, cpus: 1}]\n", "`memory` is missing in a node"),
        ("nodes: [{name: a, cpus: 4+, memory: 1}]\n", "a node has one amount, not a range"),
        ("nodes: [{name: a, cpus: 4, memory: 1..2}]\n", "a node has one amount, not a range"),
        ("nodes: [{name: a, ONE, count: 0}]\n", "out of range"),
        ("nodes: [{name: a, ONE}, {name: a, ONE}]\n", "two nodes are called 'a'"),
        ("nodes: [{name: a, ONE, count: 2}, {name: a-1, ONE}]\n", "two nodes are called 'a-1'"),
        ("nodes: [{name: a, ONE, count: 60000}, {name: b, ONE, count: 60000}]\n", "at most 100,000 nodes"),
        ("nodes: [{name: a, ONE, count: 100000, accelerators: A100:11}]\n", "1,000,000 accelerators"),
        (f"nodes: [{{name: {'a' * 62}, ONE, count: 2}}]\n", "is too long"),
        ("nodes: [{name: a/b, ONE}]\n", "'a/b' cannot be a name"),
        ("nodes: [{name: a, ONE, accelerators: [A100, A100:2]}]\n", "a kind of accelerator stands twice"),
        ("nodes: [{name: a, cpu: 1, memory: 1}]\n", "'cpu' is not a key of a node"),
    ],
)
def test_bad_fleets(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        fleet(text)
    assert words in caught.value.message
    assert caught.value.hint


def test_nodes_elsewhere_are_not_built_yet() -> None:
    with pytest.raises(NotYetError):
        fleet("nodes: [{name: a, infra: aws, ONE}]")


def test_the_nodes_of_a_cluster_are_not_declared() -> None:
    with pytest.raises(SpecError, match="found, not declared") as caught:
        fleet("nodes: [{name: a, infra: ray, ONE}]")
    assert "clusters:" in caught.value.hint


def test_pools_markets_and_prices() -> None:
    made = fleet(
        "nodes:\n"
        "  - {name: e, ONE, zone: east, use_spot: true, price_usd_per_hour: 0.9731, count: 2}\n"
        "  - {name: w, ONE, zone: west, pool: cheap, use_spot: true, price_usd_per_hour: .5}\n"
        "  - {name: d, ONE, price_usd_per_hour: 3.06}\n"
        "  - {name: mine, ONE, zone: home, use_spot: false}\n"
    )
    assert [
        (node.id, node.zone, node.pool, node.market, node.price_usd_micro_per_hour) for node in made.nodes
    ] == [
        ("d", "", "d", "on-demand", 3_060_000),
        ("e-0", "east", "e", "spot", 973_100),
        ("e-1", "east", "e", "spot", 973_100),
        ("mine", "home", "", "on-demand", None),
        ("w", "west", "cheap", "spot", 500_000),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{name: a, ONE, use_spot: true}", "the price of the spot pool 'a' is not known"),
        (
            "{name: a, ONE, use_spot: true, price_usd_per_hour: 3}, {name: b, ONE, price_usd_per_hour: 3}",
            "the spot pool 'a' costs no less than on-demand",
        ),
    ],
)
def test_a_pool_that_no_job_would_choose_is_said(text: str, words: str) -> None:
    (warning,) = parse(f"kind: fleet\nnodes: [{text}]\n".replace("ONE", "cpus: 1, memory: 1"), "f").warnings
    assert words in warning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{name: a, ONE, price_usd_per_hour: 0}", "'0' is not a price in dollars an hour"),
        ("{name: a, ONE, price_usd_per_hour: -1}", "'-1' is not a price in dollars an hour"),
        ("{name: a, ONE, price_usd_per_hour: free}", "'free' is not a price in dollars an hour"),
        ("{name: a, ONE, price_usd_per_hour: 700.0}", "stands for a missing price in public catalogues"),
        ("{name: a, ONE, pool: on-demand}", "no pool can be called 'on-demand'"),
        ("{name: a, ONE, market: spot}", "'market' is not a key of a node"),
        (
            "{name: a, ONE, pool: p}, {name: b, ONE, pool: p, use_spot: true}",
            "the pool 'p' has nodes that differ in zone, `use_spot` or price",
        ),
        (
            "{name: a, ONE, pool: p, zone: x}, {name: b, ONE, pool: p, zone: y}",
            "the pool 'p' has nodes that differ",
        ),
    ],
)
def test_pools_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        fleet(f"nodes: [{text}]\n")
    assert words in caught.value.message
    assert caught.value.line is not None


@pytest.mark.parametrize(
    ("written", "modes"),
    [
        ("accelerators: A100", [("time-slice",)]),
        ("accelerators: A100, sharing: [mig, time-slice]", [("time-slice", "mig")]),
        ("accelerators: A100, sharing: mig", [("mig",)]),
        ("accelerators: A100, sharing: []", [()]),
        ("accelerators: TPU-v5e:2", [(), ()]),
    ],
)
def test_how_devices_may_be_shared(written: str, modes: list[tuple[str, ...]]) -> None:
    made = fleet(f"nodes: [{{name: n, ONE, {written}}}]").nodes[0]
    assert [device.sharing for device in made.devices] == modes


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("accelerators: T4, sharing: [mig]", "T4 cannot be shared by mig"),
        ("accelerators: TPU-v4, sharing: [time-slice]", "TPU-v4 cannot be shared by time-slice"),
        ("accelerators: A100:0.5", "a node has whole accelerators"),
        ("accelerators: any:2", "'any' is no kind of accelerator"),
    ],
)
def test_devices_that_cannot_be(written: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        fleet(f"nodes: [{{name: n, ONE, {written}}}]")
