"""The benchmark of the deciders, short, on made-up traces: it measures, draws and judges, and its floors that
need no recorded trace hold.

Theory: the same functions run as in `make bench-decide`; only the files differ. Timing is not looked at.
"""

import gzip
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from bench.decide import run
from bench.decide.problem import OURS
from bench.decide.scalers import SCALERS
from tests.replay.made_traces import made

pytestmark = pytest.mark.timeout(600)
"""A test takes some seconds of CPU; how long that is depends on who else uses the machine."""
BELOW_POINTS_MAX = 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("traces"))


class Ran:
    """The command's exit code, its document, and what it wrote."""

    def __init__(self, problem: str, pictures: Path, capsys: pytest.CaptureFixture[str], *more: str) -> None:
        arguments = ["--short", "--json", "--processes", "1", "--only", problem, "--pictures", str(pictures)]
        self.code = run.main([*arguments, *more])
        self.pictures = pictures
        out = capsys.readouterr()
        self.told = out.err
        self.document: dict[str, Any] = json.loads(out.out) if out.out else {}
        found = self.document.get("problems", {}).get(problem, {})
        self.figures: dict[str, float] = found.get("figures", {})
        self.rows: list[dict[str, Any]] = found.get("rows", [])
        self.verdicts = {floor["figure"]: floor["verdict"] for floor in found.get("floors", [])}


@pytest.fixture
def ran(
    request: pytest.FixtureRequest,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ran:
    monkeypatch.setenv("STEERSMAN_TRACES", str(folder))
    found = Ran(request.param, tmp_path / "pictures", capsys)
    assert found.document["size"] == "short"
    ET.parse(tmp_path / "pictures" / f"{request.param}.svg")  # whole, and XML
    assert "NaN" not in json.dumps(found.document)
    return found


@pytest.mark.parametrize("ran", ["packing"], indirect=True)
def test_packing(ran: Ran) -> None:
    """Never more than has arrived or than the bound; no worse than others where no pod names its model."""
    by = {(row["list"], row["policy"]): row for row in ran.rows}
    for (name, policy), row in by.items():
        assert row["alloc_pct_100"] <= by[name, "bound"]["alloc_pct_100"] + 1e-6 <= 100.000001
        if policy != "bound":
            assert row["first_fail_pct"] <= row["alloc_pct_130"] <= 100
    for name in ("default", "gpushare40"):
        for mark in ("alloc_pct_100", "alloc_pct_130"):
            best = max(by[name, policy][mark] for policy in ("FGD", "best fit"))
            assert by[name, OURS][mark] >= best - BELOW_POINTS_MAX, (name, mark)
    assert by["gpuspec33", OURS]["alloc_pct_130"] >= by["gpuspec33", "best fit"]["alloc_pct_130"]


@pytest.mark.parametrize("ran", ["jobs"], indirect=True)
def test_jobs(ran: Ran) -> None:
    """Every floor, and no worse than Tiresias; nothing beats the bound."""
    assert ran.code == 0
    assert set(ran.verdicts.values()) == {"pass"}
    ratios = {(row["load"], row["policy"]): row["jct_over_bound"] for row in ran.rows}
    for load in (0.8, 1.0):
        assert 1 <= ratios[load, "Steersman"] <= ratios[load, "Tiresias LAS"] * 1.02


@pytest.mark.parametrize("ran", ["autoscale"], indirect=True)
def test_autoscale(ran: Ran) -> None:
    """Days keep their objective for less than with any scaler; what was not measured is told and no miss."""
    assert ran.verdicts["m_small_60_s_violation_share"] == "pass"
    assert ran.verdicts["genai_lora_180_s_violation_share"] == "not measured"
    assert "14 not measured" in ran.told
    costs = {(row["trace"], row["policy"]): row["cost_over_oracle"] for row in ran.rows}
    for trace in ("azure_conv", "mooncake_conv", "m_small"):
        for scaler in SCALERS:
            assert costs[trace, OURS] < costs[trace, scaler], (trace, scaler)
    assert costs["m_small", OURS] >= 1


@pytest.mark.parametrize("ran", ["spot-job"], indirect=True)
def test_spot_job(ran: Ran) -> None:
    """No job is late, and the cost is between the exact optimum and on-demand."""
    assert ran.verdicts["late_jobs"] == ran.verdicts["cost_over_optimum"] == "pass"
    for row in ran.rows:
        exact = row["cost_over_optimum_exact"]
        assert 1 - 1e-9 <= exact[OURS] <= exact["on-demand"] + 1e-9
        assert set(row["late_jobs"].values()) == {0}


def test_without_traces_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to measure is an error with a hint, and no document."""
    monkeypatch.setenv("STEERSMAN_TRACES", str(tmp_path))
    assert run.main(["--json", "--pictures", str(tmp_path)]) == 2
    out = capsys.readouterr()
    assert not out.out
    assert "nothing was measured; hint: STEERSMAN_TRACES names the folder" in out.err
    assert "packing: not there, and not measured: p1_packing" in out.err


def test_what_is_missing_is_named_and_what_is_broken_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list that is not there leaves its floors unmeasured; a file that is cut off ends the run."""
    monkeypatch.setenv("STEERSMAN_TRACES", str(made(tmp_path / "traces")))
    lists = tmp_path / "traces" / "open" / "p1_packing"
    (lists / "openb_pods_default.csv.gz").unlink()
    found = Ran("packing", tmp_path, capsys)
    assert "not there, and not measured: openb_pods_default.csv.gz" in found.told
    assert found.verdicts["packing_default_alloc_pct_100"] == "not measured"
    whole = gzip.compress((lists / "openb_pods_gpushare40.csv.gz").read_bytes())
    (lists / "openb_pods_gpushare40.csv.gz").write_bytes(whole[:-20])
    broken = Ran("packing", tmp_path, capsys)
    assert (broken.code, broken.document) == (2, {})
    assert "error: openb_pods_gpushare40.csv.gz" in broken.told


def test_the_pool_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes tell the same as one, and draw the same bytes."""
    monkeypatch.setenv("STEERSMAN_TRACES", str(folder))
    alone, pooled = (
        Ran("jobs", tmp_path / "1", capsys),
        Ran("jobs", tmp_path / "2", capsys, "--processes", "2"),
    )
    assert alone.rows == pooled.rows
    assert (tmp_path / "1" / "jobs.svg").read_bytes() == (tmp_path / "2" / "jobs.svg").read_bytes()
