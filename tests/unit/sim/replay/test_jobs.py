"""The replay of gang jobs: what is read and refused, tiny clusters worked out by hand, bound, metrics."""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from steersman.model.errors import TraceError
from steersman.sim.replay import jobs
from steersman.sim.replay.bounds_jobs import Gang, fluid_srpt_s, mean_jct_bound_s
from steersman.sim.replay.jobs import Asked, capacity_of, percentile, read, replay
from steersman.sim.replay.jobs_rounds import Active, Cluster, Outcome, Steersman
from steersman.sim.replay.result import silent

HEAD = "vc,job,model,arrival_s,num_gpus,duration_s,more"
ROWS = (
    "b,0,VGG-16 (batch size 64),100.5,1,600,x",
    "b,1,VGG-16 (batch size 32),160.5,2,0.5,x",
    "a,0,,0,4,1000,x",
    "b,2,LSTM,400.5,1,60,x",
)


def written(folder: Path, *rows: str, head: str = HEAD) -> Path:
    path = folder / "jobs.csv"
    path.write_text("\n".join((head, *rows)) + "\n", encoding="utf-8")
    return path


def test_gangs_are_read_by_virtual_cluster_from_its_first_arrival(tmp_path: Path) -> None:
    trace = read(written(tmp_path, *ROWS))
    assert list(trace.vcs) == ["a", "b"]
    assert trace.vcs["a"] == [Gang(0.0, 4, 1000.0, "")]
    assert trace.vcs["b"] == [
        Gang(0.0, 1, 600.0, "VGG-16"),
        Gang(60.0, 2, 1.0, "VGG-16"),
        Gang(300.0, 1, 60.0, "LSTM"),
    ]
    assert trace.dropped == {"jobs without a GPU": 0}


def test_the_model_may_be_missing_and_jobs_without_gpus_are_counted(tmp_path: Path) -> None:
    head = "arrival_s,vc,job,num_gpus,duration_s"
    trace = read(written(tmp_path, "0,a,x,1,9", "1,a,y,0,9", "2,a,z,2.0,9", head=head))
    assert trace.vcs == {"a": [Gang(0.0, 1, 9.0, ""), Gang(2.0, 2, 9.0, "")]}
    assert trace.dropped == {"jobs without a GPU": 1}


@pytest.mark.parametrize("packed", [False, True])
def test_the_last_line_needs_no_end(tmp_path: Path, packed: bool) -> None:
    path = written(tmp_path, *ROWS)
    content = path.read_bytes()
    whole = read(path)
    path.write_bytes(gzip.compress(content[:-1], mtime=0) if packed else content[:-1])
    assert read(path) == whole


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("a,0,,0,1,9", *ROWS), "jobs.csv:2: 6 fields where the head has 7"),
        ((*ROWS[:3], "b,2,LSTM,400.5,1"), "jobs.csv:5: 5 fields"),
        ((ROWS[1], ROWS[0]), "jobs.csv:3: arrival_s of vc b goes back from 160.5 to 100.5"),
        ((*ROWS, ROWS[3]), "jobs.csv:6: '2' is there twice"),
        (("a,0,,-1,1,9,x",), "jobs.csv:2: arrival_s is '-1': below 0"),
        (("a,0,,0,1,-9,x",), "jobs.csv:2: duration_s is '-9': below 0"),
        (("a,0,,0,-1,9,x",), "jobs.csv:2: num_gpus is '-1': below 0"),
        (("a,0,,0,1.5,9,x",), "jobs.csv:2: num_gpus is '1.5': not a whole number"),
        (("a,0,,soon,1,9,x",), "jobs.csv:2: arrival_s is 'soon'"),
        (("a,0,,nan,1,9,x",), "not a finite number"),
        (("a,0,,0,1,1e12,x",), "jobs.csv:2: duration_s is 1e+12, more than ten years"),
        ((",0,,0,1,9,x",), "jobs.csv:2: vc is ''"),
        (("a,,,0,1,9,x",), "jobs.csv:2: job is ''"),
        (("a,0,,0,0,9,x",), "no job that holds a GPU"),
        ((), "no job that holds a GPU"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(tmp_path: Path, rows: Sequence[str], words: str) -> None:
    with pytest.raises(TraceError) as refused:
        replay(Asked(jobs=written(tmp_path, *rows)), silent)
    assert words in refused.value.message
    assert refused.value.hint


def test_an_empty_file_and_one_without_the_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_bytes(b"")
    with pytest.raises(TraceError, match="the file is empty"):
        replay(Asked(jobs=path), silent)
    with pytest.raises(TraceError, match="there is no column 'num_gpus'"):
        replay(Asked(jobs=written(tmp_path, head="vc,job,arrival_s,duration_s")), silent)
    with pytest.raises(TraceError, match="No such file"):
        replay(Asked(jobs=tmp_path / "none.csv"), silent)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, *ROWS)
    content = path.read_bytes()
    path.write_bytes(gzip.compress(content, mtime=0)[:-9])
    with pytest.raises(TraceError, match="cut off or damaged"):
        replay(Asked(jobs=path), silent)
    path.write_bytes(content[: content.rindex(b",1,60")])
    with pytest.raises(TraceError, match=r"jobs\.csv:5: 4 fields") as refused:
        replay(Asked(jobs=path), silent)
    assert "cut off" in refused.value.hint


@pytest.mark.parametrize("load", [0.0, -1.0, float("nan"), float("inf"), 1e-300, 1e9])
def test_a_load_that_sizes_no_cluster_is_refused(tmp_path: Path, load: float) -> None:
    with pytest.raises(TraceError, match="load is") as refused:
        replay(Asked(jobs=written(tmp_path, *ROWS), load=load), silent)
    assert "1 is as much work as the GPUs can do" in refused.value.hint


def test_an_unknown_virtual_cluster_is_told_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="virtual cluster 'c'") as refused:
        replay(Asked(jobs=written(tmp_path, *ROWS), vc="c"), silent)
    assert refused.value.hint == "there are a, b"


def test_one_virtual_cluster_may_be_asked_for(tmp_path: Path) -> None:
    found = replay(Asked(jobs=written(tmp_path, *ROWS), vc="b"), silent)
    assert found.dropped == {"jobs without a GPU": 0, "jobs of other virtual clusters": 1}
    assert list(found.policies["steersman"]["vcs"]) == ["b"]
    assert found.policies["steersman"]["jobs"] == 3


def test_small_virtual_clusters_are_left_out_when_there_are_larger_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(jobs=written(tmp_path, *ROWS))
    why = f"jobs of virtual clusters with fewer than {jobs.VC_JOBS_MIN}"
    found = replay(asked, silent)
    assert (list(found.policies["steersman"]["vcs"]), found.dropped[why]) == (["a", "b"], 0)
    monkeypatch.setattr(jobs, "VC_JOBS_MIN", 2)
    found = replay(asked, silent)
    assert list(found.policies["steersman"]["vcs"]) == ["b"]
    assert found.dropped["jobs of virtual clusters with fewer than 2"] == 1


def test_metrics_are_means_over_virtual_clusters(tmp_path: Path) -> None:
    found = replay(Asked(jobs=written(tmp_path, *ROWS)), silent)
    metrics = found.policies["steersman"]
    rows: Mapping[str, Mapping[str, float]] = metrics["vcs"]
    assert (found.problem, found.files) == ("jobs", (str(tmp_path / "jobs.csv"),))
    assert rows["a"]["gpus"] == 4
    assert rows["a"]["avg_jct_h"] == rows["a"]["bound_jct_h"] == 1000 / 3600
    for name in ("jct_over_bound", "p99_slowdown", "restarts_per_job", "avg_jct_h"):
        assert metrics[name] == pytest.approx((rows["a"][name] + rows["b"][name]) / 2)
    # b has 3 GPUs: 662 GPU-s over 300 s at load 0.8. At 300 the first job goes on, the third fits beside it,
    # and the second, of two GPUs, waits until 600.
    assert rows["b"]["gpus"] == 3
    assert rows["b"]["avg_jct_h"] == pytest.approx((600 + 541 + 60) / 3 / 3600)
    assert rows["b"]["p99_slowdown"] == pytest.approx(1 - 0.02 * (1 - 541 / 600))


def test_a_cluster_is_sized_by_load_and_never_below_its_largest_gang() -> None:
    gangs = [Gang(0.0, 2, 1000.0, ""), Gang(500.0, 1, 1000.0, "")]
    assert capacity_of(gangs, 1.0) == 6
    assert capacity_of(gangs, 0.8) == 8
    assert capacity_of(gangs, 100.0) == 2
    assert capacity_of([Gang(0.0, 4, 9.0, "")] * 2, 0.8) == 4


def ran(gangs: Sequence[Gang], capacity: int) -> Outcome:
    return Cluster(gangs, capacity, Steersman()).run(lambda _ended: None)


def test_what_fits_runs_from_the_next_round_on() -> None:
    gangs = [Gang(0.0, 1, 450.0, ""), Gang(10.0, 2, 1_000.0, ""), Gang(100_000.0, 3, 7.0, "")]
    assert ran(gangs, 3) == Outcome((450.0, 1_300.0, 100_207.0), 0)


def test_a_long_job_yields_to_a_new_one_and_pays_for_its_restart() -> None:
    gangs = [Gang(0.0, 1, 7_000.0, ""), Gang(3_000.0, 1, 300.0, "")]
    assert ran(gangs, 1) == Outcome((7_000.0 + 300 + 60, 3_300.0), 1)


def test_a_gang_waits_for_all_of_its_gpus() -> None:
    gangs = [Gang(0.0, 1, 250.0, ""), Gang(0.0, 2, 250.0, "")]
    assert ran(gangs, 2).ends_s == (250.0, 550.0)


class Stubborn:
    """Runs what it is told, whatever happens."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def choose(self, active: Mapping[int, Active], capacity: int, now_s: float) -> Sequence[int]:
        return self.numbers

    def came(self, job: Active) -> None:
        """Nothing."""

    served = paused = ended = came


@pytest.mark.parametrize("numbers", [(0, 1), (0, 0), ()])
def test_rounds_hold_every_policy_to_the_capacity(numbers: tuple[int, ...]) -> None:
    gangs = [Gang(0.0, 2, 300.0, ""), Gang(0.0, 1, 300.0, "")]
    with pytest.raises(AssertionError):
        Cluster(gangs, 2, Stubborn(*numbers)).run(lambda _ended: None)
    with pytest.raises(AssertionError):
        Cluster(gangs, 1, Stubborn(1))


def test_the_bound_of_one_machine() -> None:
    """Two at once on two GPUs: the shorter first, then the longer, each on both."""
    gangs = [Gang(0.0, 1, 100.0, ""), Gang(0.0, 1, 300.0, "")]
    assert fluid_srpt_s(gangs, 2) == (50 + 200) / 2
    assert mean_jct_bound_s(gangs, 2) == 200.0  # their durations take longer
    assert mean_jct_bound_s([Gang(0.0, 2, 100.0, ""), Gang(0.0, 2, 300.0, "")], 2) == (100 + 400) / 2


def test_the_bound_preempts_for_less_remaining_service() -> None:
    gangs = [
        Gang(0.0, 1, 100.0, ""),
        Gang(50.0, 1, 10.0, ""),
        Gang(55.0, 1, 60.0, ""),
        Gang(900.0, 1, 1.0, ""),
    ]
    assert fluid_srpt_s(gangs, 1) == (110 + 10 + 115 + 1) / 4


def test_percentiles_lie_between_ranks() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([0.0, 10.0], 99) == pytest.approx(9.9)
    assert percentile([5.0], 99) == 5.0


def busy(times: int) -> list[str]:
    """Rows of a cluster that has more to do than it can at times, `times` as many jobs."""
    return [
        f"v,{number},M{number % 3},{number * 400 / times:g},{1 + number % 4},{200 + number * 37 % 9_000},x"
        for number in range(60 * times)
    ]


def test_ten_times_as_many_jobs_are_replayed_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    asked = Asked(jobs=written(tmp_path, *busy(10)), load=1.0)
    found = replay(asked, lambda share, words: told.append((share, words)))
    shares = [share for share, _ in told]
    assert len(told) > 10
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1
    assert told[-1][1] == "600 of 600 jobs, virtual cluster v"
    metrics = found.policies["steersman"]
    assert metrics["jct_over_bound"] >= 1
    assert metrics["vcs"]["v"]["restarts"] > 0
    assert replay(asked, silent) == found
