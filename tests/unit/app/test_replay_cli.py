"""`steer replay`: which options go where, and what is printed."""

from pathlib import Path

import msgspec
import pytest

from steersman.app.cli import replay
from steersman.app.cli.replay import PROBLEMS, Asked, options
from steersman.model.errors import ConflictError
from steersman.sim.replay.result import Replay


class One(msgspec.Struct, frozen=True, kw_only=True):
    """A problem of one file."""

    jobs: Path
    load: float = 0.8


class Many(msgspec.Struct, frozen=True, kw_only=True):
    """A problem of several."""

    zone: tuple[Path, ...]
    work_h: float = 48.0


HERE, THERE = Path("here.csv"), Path("there.csv")


def test_options_become_the_record_of_the_problem() -> None:
    assert options(Asked(problem="jobs", files=[HERE]), One, "jobs") == One(jobs=HERE)
    assert options(Asked(problem="jobs", jobs=HERE, load=1.0), One, "jobs") == One(jobs=HERE, load=1.0)
    given = Asked(problem="spot-job", zone=[HERE, THERE], work_h=5.0)
    assert options(given, Many, "zone") == Many(zone=(HERE, THERE), work_h=5.0)
    given = Asked(problem="spot-job", files=[HERE, THERE])
    assert options(given, Many, "zone") == Many(zone=(HERE, THERE))


@pytest.mark.parametrize(
    ("asked", "record", "files", "words"),
    [
        (Asked(problem="jobs"), One, "jobs", "jobs needs --jobs"),
        (Asked(problem="jobs", files=[HERE], seed=3), One, "jobs", "jobs takes no --seed"),
        (Asked(problem="jobs", files=[HERE, THERE]), One, "jobs", "one file at a time"),
        (Asked(problem="jobs", files=[HERE], jobs=THERE), One, "jobs", "with and without an option"),
        (Asked(problem="jobs", jobs=HERE, work_h=3.0), One, "jobs", "jobs takes no --work-h"),
    ],
)
def test_what_does_not_fit_is_refused(asked: Asked, record: type, files: str, words: str) -> None:
    with pytest.raises(ConflictError) as refused:
        options(asked, record, files)
    assert words in refused.value.message
    assert refused.value.hint


def test_an_unknown_problem_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConflictError, match="no problem 'chess'") as refused:
        replay.replay(problem="chess")
    assert all(name in refused.value.hint for name in PROBLEMS)


def test_metrics_are_printed_with_what_was_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"a": {"jobs": 3, "late": 0.5}, "b": {"jobs": 4}}
    metrics = {"score": 0.12345, "late_jobs": 0, "vcs": tables}
    found = Replay(
        problem="jobs", files=("x",), dropped={"rows": 2, "none": 0}, policies={"steersman": metrics}
    )
    replay._say(found)
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == ["POLICY     score   late_jobs", "steersman  0.1235  0"]
    assert out.splitlines()[2:] == ["VCS  jobs  late", "a    3     0.5", "b    4     -"]
    assert err == "counted: 2 × rows\n"
