"""Replay of recorded arrivals: formats, what is refused, the queue, and bounds that are known."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from steersman.model.errors import TraceError
from steersman.sim.replay import poisson
from steersman.sim.replay.arrivals import NO_WORK, OTHER_TYPE, OUTSIDE, read_arrivals
from steersman.sim.replay.autoscale import Asked, check, replay, simulate, violating
from steersman.sim.replay.bounds_autoscale import level_schedule
from steersman.sim.replay.result import silent

CONV = "t_s,ContextTokens,GeneratedTokens\n"
RATE = "t_s,rate_rps\n"


def written(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def asked(path: Path, **more: Any) -> Asked:
    plain: dict[str, Any] = {"requests": path, "capacity": 1.0, "slo_s": 10.0, "cold_start_s": 60.0}
    return Asked(**(plain | more))


def steady(seconds: int, every: int = 1) -> str:
    return CONV + "".join(f"{second}.5,10,9\n" for second in range(0, seconds, every))


def test_requests_of_language_models_weigh_their_tokens_in_means(tmp_path: Path) -> None:
    for head in (CONV, "t_s,input_tokens,output_tokens,prefix_blocks\n"):
        more = ",1" if "prefix" in head else ""
        path = written(tmp_path, head + f"0,100,0{more}\n0,0,30{more}\n2,0,0{more}\n2.9,100,10{more}\n")
        found = read_arrivals(path, None, None, 1)
        assert list(found.work) == [2.0, 0.0, 1.0]
        assert list(found.requests) == [2.0, 0.0, 1.0]
        assert found.dropped == {NO_WORK: 1}


def test_images_weigh_their_execution_within_limits(tmp_path: Path) -> None:
    text = "t_s,predict_type,predict_status,exec_time_seconds\n100,A,S,0.2\n101,A,S,30\n101,A,S,900\n"
    found = read_arrivals(written(tmp_path, text), None, None, 1)
    assert list(found.work) == [1.0, 150.0]


@pytest.mark.parametrize(
    "text",
    [
        RATE + "0,50\n60,50\n",
        "t_s,request_type,qps\n0,API Requests,3\n0,Generative Requests,50\n60,Generative Requests,50\n",
        "utc,requests\n1998-06-08 00:00:00,3000\n1998-06-08 00:01:00,3000\n",
        "timestamp,value\n2014-04-10 00:00:00+02:00,3000\n2014-04-10 00:01:00+02:00,3000\n",
    ],
)
def test_rates_are_drawn_by_seed(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    first, again, other = (read_arrivals(path, None, None, seed) for seed in (1, 1, 2))
    assert list(first.work) == list(again.work) != list(other.work)
    assert len(first.work) == 120
    assert sum(first.work) == pytest.approx(6_000, rel=0.1)
    assert first.dropped.get(OTHER_TYPE, 0) == ("API" in text)


def test_without_numpy_rates_are_refused_and_requests_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poisson, "np", None)
    with pytest.raises(TraceError, match="numpy"):
        read_arrivals(written(tmp_path, RATE + "0,50\n60,50\n"), None, None, 1)
    assert len(read_arrivals(written(tmp_path, steady(5)), None, None, 1).work) == 5


def test_a_span_is_cut_out_and_the_rest_counted(tmp_path: Path) -> None:
    found = read_arrivals(written(tmp_path, steady(10)), "2", "5", 1)
    assert (list(found.requests), found.dropped) == ([1.0, 1.0, 1.0], {OUTSIDE: 7})
    days = written(
        tmp_path, "utc,requests\n" + "".join(f"1998-06-0{day} 00:00:00,9000000\n" for day in range(1, 6))
    )
    assert len(read_arrivals(days, "1998-06-02", "1998-06-04", 1).work) == 2 * 86_400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (CONV, "no row is left"),
        (CONV + "1,2\n", "t.csv:2: 2 fields where the head has 3"),
        (CONV + "-1,2,3\n", "t.csv:2: t_s is '-1': below 0"),
        (CONV + "soon,2,3\n", "t.csv:2: t_s is 'soon'"),
        (CONV + "nan,2,3\n", "not a finite number"),
        (CONV + "2,2,3\n1,2,3\n", "t.csv:3: t_s goes back from 2 to 1"),
        (CONV + "1,0,0\n", "no row is left"),
        (CONV + "1,2,3\n1e12,2,3\n", "s are more than"),
        (gzip.compress(steady(999).encode())[:-9], "cut off or damaged"),
        ("what,n,p1_s\nload,1,2\n", "these columns tell no arrivals"),
        (RATE + "0,5\n0,5\n", "t.csv:3: t_s 0 is there twice"),
        (RATE + "0,5\n", "one row is no series"),
        (RATE + "0,0\n60,0\n", "nothing arrives"),
        (RATE + "0,1e9\n60,1\n", "a rate of 1e"),
        ("utc,requests\nyesterday,1\n", "t.csv:2: utc is 'yesterday'"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(TraceError) as refused:
        replay(asked(written(tmp_path, text)), silent)
    assert words in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    "more",
    [
        {"capacity": 0.0},
        {"capacity": float("nan")},
        {"slo_s": 0.5},
        {"slo_s": 1e6},
        {"cold_start_s": -1.0},
        {"min_replicas": -1},
        {"budget": 0.0},
        {"budget": 1.5},
        {"seed": -1},
        {"from_": "later"},
        {"to": "1998-06-08"},
        {"from_": "7", "to": "7"},
        {"from_": "5000"},
    ],
)
def test_options_without_sense_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(TraceError) as refused:
        replay(asked(written(tmp_path, steady(20)), **more), silent)
    assert refused.value.hint


def test_too_small_a_replica_is_refused(tmp_path: Path) -> None:
    rates = RATE + "0,9000000\n60,9000000\n"
    with pytest.raises(TraceError, match="busiest minute"):
        replay(asked(written(tmp_path, rates), capacity=0.01), silent)


def test_a_launch_is_paid_at_once_and_serves_after_its_cold_start() -> None:
    given = asked(Path("none"), cold_start_s=3.0)
    run = simulate(given, [2.0] * 8, 1, lambda seen: 2 if seen.second == 0 else None)
    assert run.replica_s == 1 + 7 * 2
    assert list(run.served) == [1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0]


def test_the_youngest_goes_first() -> None:
    given = asked(Path("none"), cold_start_s=2.0)
    run = simulate(given, [9.0] * 6, 1, lambda seen: {0: 3, 1: 1}.get(seen.second))
    assert (run.replica_s, run.served[-1]) == (1 + 3 + 4, 6.0)


def test_requests_that_wait_longer_and_those_cut_off_violate(tmp_path: Path) -> None:
    arrivals = read_arrivals(written(tmp_path, CONV + "0,10,0\n0,10,0\n0,10,0\n5,10,0\n"), None, None, 1)
    assert violating(arrivals, [1.0, 2.0, 3.0, 3.0, 3.0, 4.0], 2.0) == 0
    assert violating(arrivals, [1.0, 2.0, 3.0, 3.0, 3.0, 4.0], 1.0) == 3
    assert violating(arrivals, [0.0] * 6, 6.0) == 0
    assert violating(arrivals, [0.0] * 6, 5.0) == 3


@pytest.mark.parametrize(
    ("work", "cold_s", "cost"),
    [
        ([0.0] * 5, 3.0, 0.0),
        ([1.0], 3.0, 1 + 3),
        ([2.0, 0.0], 3.0, 2 + 2 * 3),
        ([1.0, 0.0, 0.0, 1.0], 3.0, 2 + 3 + 2),
        ([1.0, *[0.0] * 9, 1.0], 3.0, 2 + 3 + 3),
        ([2.0, 1.0, 2.0], 3.0, 5 + 2 * 3 + 1),
    ],
)
def test_the_schedule_by_level_is_the_known_one(work: list[float], cold_s: float, cost: float) -> None:
    assert level_schedule(work, 1.0, cold_s, 1.0) == cost


def test_a_steady_service_costs_little_more_than_its_work(tmp_path: Path) -> None:
    told: list[float] = []
    path = written(tmp_path, steady(1_500))
    given = asked(path, capacity=0.25)
    found = replay(given, lambda share, _: told.append(share))
    ours = found.policies["steersman"]
    assert (ours["violation_share"], ours["requests"]) == (0.0, 1_500)
    assert 4 * 1_500 / 3_600 <= ours["replica_h"] <= 1.7 * 4 * 1_500 / 3_600
    assert "cost_over_oracle" not in ours
    assert (told[0], told[-1]) == (0.0, 1.0)
    assert told == sorted(told)
    assert replay(given, silent) == found


def test_a_service_that_may_go_to_zero_is_held_to_the_bound(tmp_path: Path) -> None:
    path = written(tmp_path, steady(4_000, every=400))
    ours = replay(asked(path, min_replicas=0, budget=0.01), silent).policies["steersman"]
    assert ours["cost_over_oracle"] == pytest.approx(ours["replica_h"] / ours["oracle_replica_h"])
    assert ours["violations"] / ours["requests"] == pytest.approx(ours["violation_share"])


def test_a_trace_of_ten_times_the_length_is_replayed(tmp_path: Path) -> None:
    found = replay(asked(written(tmp_path, steady(10_000))), silent)
    assert found.policies["steersman"]["hours"] == pytest.approx(10_000 / 3_600)


def test_good_options_pass() -> None:
    check(asked(Path("none")))
