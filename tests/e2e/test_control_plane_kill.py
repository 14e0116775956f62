"""The control plane is killed again and again over real processes; the long form: `python -m bench.chaos`."""

from concurrent.futures import Future, ThreadPoolExecutor

from bench.chaos import FEW, Result, at_boundary, random_kills

PARALLEL_HOMES = 4
PLANTED = {"double-start": "begun_once", "wrong-exit": "no_lost_exits"}


def test_killed_at_random_instants() -> None:
    """Nothing is orphaned, doubled or lost, and all settles; one client asks all the while."""
    result = random_kills(12, "test")
    assert result.violations == ()
    assert result.kills == 12
    assert result.counts["programs"] > 0


def test_killed_at_boundaries_and_with_bugs_planted() -> None:
    """The plane ends itself there, and the next one finishes what it had begun; a planted bug is found."""
    with ThreadPoolExecutor(PARALLEL_HOMES) as pool:
        honest = [pool.submit(at_boundary, boundary) for boundary in FEW]
        planted: dict[str, Future[Result]] = {
            bug: pool.submit(at_boundary, ("stop", "before-end", 1), bug) for bug in PLANTED
        }
    for item in honest:
        result = item.result()
        assert result.reached, result
        assert result.violations == (), result
        assert result.counts["programs"] > 0, result
    for bug, words in PLANTED.items():
        found = planted[bug].result().violations
        assert any(violation.startswith(words) for violation in found), (bug, found)
