"""Filtered reading for the audit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.journal import MemoryJournal, Query, matching
from steersman.model.events import NodeHealth, StopRequested
from steersman.model.ids import NodeId, WorkloadName


@pytest.fixture
def journal() -> MemoryJournal:
    journal = MemoryJournal()
    for number in range(6):
        journal.append([StopRequested(workload=WorkloadName(f"job-{number}"))], at_ms=number * 10)
        journal.append([NodeHealth(node=NodeId("n"), health="alive")], at_ms=number * 10 + 5)
    return journal


@pytest.mark.parametrize(
    ("query", "positions"),
    [
        (Query(), list(range(1, 13))),
        (Query(types=("stop-requested",)), [1, 3, 5, 7, 9, 11]),
        (Query(types=("stop-requested", "node-health"), after=10), [11, 12]),
        (Query(contains="job-3"), [7]),
        (Query(contains="no such text"), []),
        (Query(since_ms=45), [10, 11, 12]),
        (Query(before_ms=10), [1, 2]),
        (Query(since_ms=10, before_ms=20, types=("node-health",)), [4]),
        (Query(limit=2), [1, 2]),
        (Query(limit=0), []),
        (Query(types=("node-health",), limit=2, after=4), [6, 8]),
    ],
)
def test_all_conditions_hold(journal: MemoryJournal, query: Query, positions: list[int]) -> None:
    assert [record.position for record in matching(journal, query)] == positions


@given(limit=st.integers(0, 20), after=st.integers(0, 20))
def test_a_limit_is_a_prefix(limit: int, after: int) -> None:
    journal = MemoryJournal()
    journal.append([StopRequested(workload=WorkloadName("a"))] * 12, at_ms=1)
    found = list(matching(journal, Query(after=after, limit=limit)))
    assert found == list(journal.read(after=after))[:limit]
