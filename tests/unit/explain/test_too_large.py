"""What is said of a job that the whole fleet, empty, could not hold."""

import pytest
from msgspec.structs import replace
from tests.scenarios.home import GIB, Home, fleet, job, node

from steersman.explain.words import describe, fix
from steersman.model.resources import Resources, Sharing
from steersman.model.workload import Workload

HOME = fleet(
    node("a", cores=4, devices=["A100-80GB"]),
    node("t", cores=8, devices=["T4", "T4"]),
    node("bare", cores=16),
)


def asking(
    kind: str,
    count: int = 1,
    *,
    cores: int = 1,
    milli: int = 1000,
    sharing: Sharing = "auto",
    profile: str = "",
) -> Workload:
    resources = Resources(
        cpu_milli=cores * 1000,
        memory_bytes=GIB,
        accelerators=((kind, count),),
        device_milli=milli,
        sharing=sharing,
        mig_profile=profile,
    )
    return replace(job("wants"), resources=resources)


@pytest.mark.parametrize(
    ("wanted", "words", "change"),
    [
        (
            asking("H100"),
            "1 of H100, where the nodes have A100-80GB, T4",
            "name a kind that is there (A100-80GB, T4), or add a node that has it",
        ),
        (
            asking("A100|H100", milli=250),
            "25 % of a device of A100 or H100, where the nodes have A100-80GB, T4",
            "name a kind that is there",
        ),
        (
            asking("A100", profile="3g.20gb"),
            "a MIG instance 3g.20gb of A100, where the nodes have A100-80GB, T4",
            "name a kind that is there",
        ),
        (
            asking("T4", milli=250, sharing="mig"),
            "25 % of a device by mig, and no node that has the rest lets a device be shared so",
            "declare `sharing` of a node that has it, ask for less",
        ),
        (asking("T4", 3), "3 x T4 where the best node has 2", "ask for at most accelerators: T4:2, or add"),
        (
            asking("T4", cores=12),
            "more than any one node has of everything at once",
            "ask for less, or add a node that is large enough",
        ),
        (
            replace(asking("T4", cores=20), resources=replace(asking("T4").resources, cpu_milli=20_000)),
            "20 cores where the largest node has 16",
            "ask for at most cpus: 16, or add",
        ),
    ],
)
def test_what_is_lacking_and_what_would_do_are_said(wanted: Workload, words: str, change: str) -> None:
    home = Home(HOME)
    home.up(wanted)
    why = home.snapshot.workloads[wanted.name].reason
    assert why is not None
    assert words in describe(why)
    assert (fix(why) or "").startswith(change)


def test_ranks_are_counted_where_they_may_be() -> None:
    home = Home(HOME)
    gang = job("gang", ranks=40, cores=1)
    home.up(gang, replace(gang, name=gang.name + "2", body=replace(gang.body, topology="node")))
    told = [state.reason for _, state in home.snapshot.workloads.sorted_items()]
    whole, together = (reason for reason in told if reason is not None)
    assert describe(whole).endswith("40 ranks where the whole fleet, empty, holds 20")
    assert describe(together).endswith("40 ranks where one node, empty, holds 8")
    assert (fix(whole) or "").startswith("ask for at most num_nodes: 20")


def test_a_fleet_without_devices_says_so() -> None:
    home = Home(fleet(node("bare", cores=16)))
    home.up(asking("any"))
    why = home.snapshot.workloads[asking("any").name].reason
    assert why is not None
    assert "1 of any, where the nodes have none" in describe(why)
    assert (fix(why) or "").startswith("ask for at most no any")
