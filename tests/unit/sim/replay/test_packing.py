"""The replay of packing: files read strictly, the protocol of arrivals, tiny cases with known answers."""

import gzip
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from steersman.model.errors import TraceError
from steersman.sim.replay import packing
from steersman.sim.replay.packing import BEYOND, NO_GPU, OVER, UNKNOWN, Asked, arrivals, read_pods, replay
from steersman.sim.replay.result import Replay, silent

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,8000,8192,2,P100\nn1,8000,8192,0,\n"
HEAD = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time\n"
PODS = HEAD + "a,1000,1024,1,1000,,7\nb,1000,1024,1,500,,0\nc,1000,1024,1,500,P100|T4,\nd,0,0,0,0,,3\n"


def asked(folder: Path, pods: str | bytes = PODS, nodes: str = NODES, **options: Any) -> Asked:
    (folder / "nodes.csv").write_text(nodes)
    (folder / "pods.csv").write_bytes(pods.encode() if isinstance(pods, str) else pods)
    return Asked(nodes=folder / "nodes.csv", pods=folder / "pods.csv", **options)


def metrics(found: Replay) -> dict[str, Any]:
    assert set(found.policies) == {"steersman"}
    return dict(found.policies["steersman"])


@pytest.mark.parametrize("packed", [False, True])
def test_pods_that_fill_the_nodes_exactly(tmp_path: Path, packed: bool) -> None:
    pods = gzip.compress(PODS.encode()) if packed else PODS
    found = replay(asked(tmp_path, pods, load=1.0), silent)
    assert found.problem == "packing"
    assert [Path(name).name for name in found.files] == ["nodes.csv", "pods.csv"]
    told = metrics(found)
    assert told["alloc_pct_100"] == told["alloc_pct_130"] == told["first_fail_pct"] == 100
    assert (told["arrived_pct"], told["allocated_gpus"], told["capacity_gpus"]) == (100, 2, 2)
    assert told["placements"] >= 4
    assert told["failed"] == 0
    assert found.dropped == {OVER: 0, NO_GPU: 0, UNKNOWN: 1, BEYOND: 0}


def test_what_finds_no_room_fails(tmp_path: Path) -> None:
    """Three of 600: one to a GPU, whatever their order, the third fails, and 120 % of the GPUs are held."""
    pods = HEAD + "".join(f"p{place},1,1,1,600,,\n" for place in range(3))
    told = metrics(replay(asked(tmp_path, pods, load=0.95), silent))
    assert (told["placements"], told["failed"], told["arrived_pct"]) == (2, 1, 90)
    assert told["first_fail_pct"] == told["alloc_pct_100"] == 60
    assert metrics(replay(asked(tmp_path, pods, load=1.5), silent))["alloc_pct_130"] == 60


def test_the_same_seed_is_the_same_replay(tmp_path: Path) -> None:
    pods = HEAD + "".join(f"p{place},1,1,1,{place % 9 + 1}0,,\n" for place in range(60))
    found = [replay(asked(tmp_path, pods, seed=seed), silent) for seed in (1, 1, 2)]
    assert found[0] == found[1]
    orders = [arrivals(read_pods(tmp_path / "pods.csv", set())[0], 2000, seed, 1.3) for seed in (1, 2)]
    assert orders[0] != orders[1]


def test_the_list_first_and_then_draws_from_it(tmp_path: Path) -> None:
    pods, _ = read_pods(asked(tmp_path).pods, {"P100"})
    order = arrivals(pods, 2000, 42, 3)
    assert sorted(order[:4]) == sorted(pods)
    assert set(order[4:]) <= set(pods)
    assert 5000 < sum(pod.gpus * pod.gpu_milli for pod in order) <= 6000


def test_ten_lists_end_at_the_load_and_tell_how_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "TELL_EVERY", 1)
    rows = PODS.splitlines()[1:]
    pods = HEAD + "".join(f"{copy}{row}\n" for copy in range(10) for row in rows)
    seen: list[float] = []
    found = replay(asked(tmp_path, pods), lambda share, _words: seen.append(share))
    told = metrics(found)
    assert told["arrived_pct"] <= 130
    assert found.dropped[BEYOND] == 40 - told["placements"] - told["failed"] > 0
    assert seen == sorted(seen)
    assert len(seen) == told["placements"] + told["failed"]


def test_columns_that_may_be_missing(tmp_path: Path) -> None:
    pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\na,1,1,1,1000\n"
    assert metrics(replay(asked(tmp_path, pods, load=1), silent))["alloc_pct_100"] == 100


def test_what_is_read_otherwise_is_counted(tmp_path: Path) -> None:
    pods = HEAD + "a,1,1,1,1500,T4|V100,\nb,1,1,0,500,,\n"
    found = replay(asked(tmp_path, pods, load=1), silent)
    assert (found.dropped[OVER], found.dropped[NO_GPU], found.dropped[UNKNOWN]) == (1, 1, 2)
    assert metrics(found)["failed"] > 0


def test_the_first_pod_may_be_more_than_the_load(tmp_path: Path) -> None:
    found = replay(asked(tmp_path, HEAD + "a,1,1,1,1000,,\n", load=0.1), silent)
    assert (metrics(found)["placements"], found.dropped[BEYOND]) == (0, 1)


@pytest.mark.parametrize("load", [0.0, -1.0, float("nan"), float("inf"), 21.0])
def test_loads_that_make_no_sense(tmp_path: Path, load: float) -> None:
    with pytest.raises(TraceError, match="--load") as refused:
        replay(asked(tmp_path, load=load), silent)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        ("", "the file is empty"),
        (HEAD, "no pod asks for a GPU"),
        (HEAD + "d,1,1,0,0,,\n", "no pod asks for a GPU"),
        ("name,cpu_milli\na,1\n", "there is no column 'memory_mib'"),
        (HEAD + "a,1,1,1,1000\n", "pods.csv:2: 5 fields where the head has 7"),
        (HEAD + "a,x,1,1,1000,,\n", "pods.csv:2: cpu_milli is 'x'"),
        (HEAD + "a,-1,1,1,1000,,\n", "below 0"),
        (HEAD + "a,1.5,1,1,1000,,\n", "not a whole number"),
        (HEAD + "a,1,1,1,1000,,-3\n", "creation_time is '-3': below 0"),
        (HEAD + "a,1,1,1,1000,,\na,1,1,1,1000,,\n", "pods.csv:3: 'a' is there twice"),
        (HEAD + "a,1,1,2,0,,\n", "pods.csv:2: 2 GPUs and a share of 0"),
        (HEAD + "a,1,1,2000,1000,,\n", "pods.csv:2: 2,000 GPUs"),
        (gzip.compress(PODS.encode())[:-9], "cut off or damaged"),
    ],
)
def test_pods_that_are_refused(tmp_path: Path, pods: str | bytes, words: str) -> None:
    with pytest.raises(TraceError) as refused:
        replay(asked(tmp_path, pods), silent)
    assert words in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("n1,1,1,0,", "no node has a GPU"),
        ("n1,1,1,2,", "nodes.csv:2: GPUs without a model"),
        ("n1,1,1,1,A\nn1,1,1,1,A", "nodes.csv:3: 'n1' is there twice"),
        ("n1,1,1,5000,A", "nodes.csv:2: 5,000 GPUs"),
        ("n1,1,-1,1,A", "below 0"),
    ],
)
def test_nodes_that_are_refused(tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(TraceError) as refused:
        replay(asked(tmp_path, nodes=NODES.splitlines()[0] + "\n" + row + "\n"), silent)
    assert words in str(refused.value)
    assert refused.value.hint


def test_a_list_that_never_reaches_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "DRAWS_MAX", 100)
    with pytest.raises(TraceError, match="100 pods ask for less than"):
        replay(asked(tmp_path, HEAD + "a,1,1,1,1,,\n"), silent)


def test_every_pod_comes_once_before_any_comes_again(tmp_path: Path) -> None:
    pods, _ = read_pods(asked(tmp_path).pods, set())
    for seed in range(20):
        drawn = list(islice(packing._drawn(pods, random.Random(seed)), 12))
        assert sorted(drawn[:4]) == sorted(pods)
