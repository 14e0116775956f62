"""What judges faults on a cluster: each judge finds what it is for, and is silent without it."""

import random
from collections import Counter
from pathlib import Path

import pytest
from bench.ray.chaos import PLANTED, TOLD_IT_DIED, Trial, figures, planted
from bench.ray.faults import KINDS, plan
from bench.ray.judge import excused, unkept, unlike
from bench.ray.world import Beats
from tests.scenarios.home import job

from steersman.hosting import files
from steersman.model.events import WorkloadDeclared
from steersman.model.ids import RunId
from steersman.ports.driver import RankKey
from steersman.sim.checkers import Evidence, Life, no_lost_exits


def write(folder: Path, run: str, rank: int, nonce: str, *seconds: float) -> None:
    lines = [f"{int((1_700_000_000 + each) * 1e9)}\n" for each in seconds]
    (folder / f"{run}_{rank}_{nonce}").write_text("".join(lines))


def test_two_programs_of_one_rank_at_one_time_are_found(tmp_path: Path) -> None:
    beats = Beats(tmp_path / "beats")
    write(tmp_path / "beats", "train.7", 0, "a", 1.0, 2.0, 3.0)
    write(tmp_path / "beats", "train.7", 1, "b", 1.0, 9.0)
    write(tmp_path / "beats", "train.9", 0, "c", 3.5, 8.0)
    assert beats.doubles() == []
    assert beats.last()["train.9", 0] == pytest.approx(1_700_000_008)
    write(tmp_path / "beats", "train.9", 1, "d", 8.5, 9.5)
    assert beats.doubles() == ["double: train.7 and train.9, rank 1 of train, for 0.5 s"]


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    beats = Beats(tmp_path / "beats")
    write(tmp_path / "beats", "train.7", 0, "a", 1.0, 2.0)
    with (tmp_path / "beats" / "train.7_0_a").open("a") as file:
        file.write("17000")
    (tmp_path / "beats" / "new.1_0_b").touch()
    assert beats.last() == {("train.7", 0): pytest.approx(1_700_000_002)}


def test_what_was_acknowledged_and_is_not_there_is_found() -> None:
    history = ((1, WorkloadDeclared(workload=job("one"), digest="")),)
    assert unkept(history, [("one", 1)]) == []
    assert unkept(history, [("two", 1), ("one", 9)]) == ["acknowledged: two at 1", "acknowledged: one at 9"]


def test_other_weights_are_found() -> None:
    assert unlike("abc", {"train-1": "abc", "train-2": "failed"}) == ["weights of train-2: failed"]


def test_only_the_hurt_are_excused() -> None:
    lives = [Life(key=RankKey(run=RunId(run), rank=0), starts=1, live=False, exit_code=3) for run in "ab"]
    found = no_lost_exits(Evidence(history=(), lives=excused(lives, frozenset("a"))))
    assert len(found) == 2
    assert excused(lives, frozenset("a"))[0].exit_code is None
    assert excused(lives, frozenset("a"))[1].exit_code == 3


def test_only_where_it_is_documented_a_request_may_die() -> None:
    replies = [(0.0, status, 0.1) for status in (200, 429, 503, 502, 0)]
    found = figures([Trial(replies=replies)])
    assert (found["requests_refused"], found["requests_lost"]) == (2, 2)
    found = figures([Trial(replies=replies), Trial(replies=replies, documented=(TOLD_IT_DIED,))])
    assert (found["requests_lost"], found["requests_died_with_the_cluster"]) == (3, 1)


@pytest.mark.parametrize("count", [7, 59, 60, 130])
def test_the_plan_keeps_the_proportions(count: int) -> None:
    found = Counter(plan(count, random.Random(1)))
    assert found.total() == count
    for kind, times in KINDS.items():
        assert abs(found[kind] - times * count / 60) <= 1


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_every_bug_can_still_be_planted(name: str, tmp_path: Path) -> None:
    planted(PLANTED[name], tmp_path)


def test_the_wrong_code_is_planted_where_a_code_is_written(tmp_path: Path) -> None:
    """The end of a rank is written by this, and a bug that finds nothing to change is none."""
    files.write_json(tmp_path / "exit.json", {"exit_code": 3})
    assert str((tmp_path / "exit.json").read_bytes().strip(b"{}")) in PLANTED["wrong-code"].new
