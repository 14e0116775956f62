"""Power cuts: the short form of ``python -m bench.power_cut``. A planted fault must be found."""

import pytest
from bench import power_cut


def test_nothing_acknowledged_is_lost() -> None:
    tally = power_cut.run(cuts=200, seed=7)
    assert tally.failures() == 0, tally
    assert tally.cuts == 200
    # The proof is worth something only if cuts fell on both sides of commits, and recovery had images.
    assert tally.cut_off_kept > 10
    assert tally.cut_off_dropped > 10
    assert tally.images_returned > 10


@pytest.mark.parametrize(
    ("planted", "finding"),
    [
        ("synchronous-normal", "acknowledged_lost"),
        ("anchor-before-commit", "refused_to_open"),
        ("anchor-unsynced", "anchor_lagging"),
    ],
)
def test_a_planted_fault_is_found(planted: power_cut.Planted, finding: str) -> None:
    tally = power_cut.run(cuts=40, seed=7, planted=planted)
    assert getattr(tally, finding) > 0, tally


def test_the_command_reports_and_fails_on_a_loss(capsys: pytest.CaptureFixture[str]) -> None:
    assert power_cut.main(["--cuts", "5"]) == 0
    assert power_cut.main(["--cuts", "30", "--planted", "anchor-before-commit"]) == 1
    assert '"cuts": 30' in capsys.readouterr().out
    assert power_cut.measure(cuts=5) == {"power_cuts": 5, "power_cut_failures": 0}
