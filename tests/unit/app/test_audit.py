"""The journal, read by people: filtered by type and subject, in pages that miss nothing."""

import pytest
from tests.unit.app.worlds import HERE, began, cycle, exited, folded, submission
from tests.unit.explain.served import Served, service

from steersman.app.audit import Filter, about, check_types, entries, newest, page
from steersman.app.declare import declare
from steersman.app.wire import EventView
from steersman.journal.memory import MemoryJournal
from steersman.model.errors import ConflictError
from steersman.model.events import (
    ApiKeyCreated,
    ApiKeyRevoked,
    Event,
    GatewayDeclared,
    HomeCreated,
    NodeHealth,
)
from steersman.model.ids import NodeId, WorkloadName
from steersman.model.service import ApiKey, Gateway
from steersman.model.snapshot import Snapshot


@pytest.fixture(scope="module")
def journal() -> MemoryJournal:
    """Two workloads whose names contain one another, from declaration to their ends."""
    made = MemoryJournal()
    events: list[Event] = [HomeCreated(home_id="a")]
    snapshot = folded(Snapshot(), events)
    asked = submission("name: ab\nrun: echo\n", "name: a\nrun: echo a\n")
    for step in range(2):
        if step == 0:
            batch = cycle(snapshot, declare(asked, snapshot, HERE).events)
        else:
            news = [make(snapshot, name) for name in ("a", "ab") for make in (began, _exited)]
            batch = cycle(snapshot, news)
        snapshot = folded(snapshot, batch)
        events += batch
    made.append(events, 1_000)
    return made


def _exited(snapshot: Snapshot, name: str) -> Event:
    return exited(snapshot, name, 0)


def test_everything_is_listed_in_order(journal: MemoryJournal) -> None:
    found = list(entries(journal, Filter()))
    assert [each.position for each in found] == list(range(1, journal.head().position + 1))
    assert found[0].type == "home-created"
    assert found[0].body == {"type": "home-created", "home_id": "a"}


@pytest.mark.parametrize("name", ["a", "ab"])
def test_a_subject_is_a_whole_name(journal: MemoryJournal, name: str) -> None:
    found = list(entries(journal, Filter(subject=name)))
    assert all(name in each.subjects for each in found)
    assert [each.type for each in found] == [
        "workload-declared",
        "decided",
        "rank-started",
        "rank-exited",
        "decided",
    ]
    assert list(entries(journal, Filter(subject=name[:-1] + "zz"))) == []


def test_runs_and_nodes_are_subjects_too(journal: MemoryJournal) -> None:
    run = next(iter(entries(journal, Filter(types=("rank-started",))))).body["run"]
    assert {each.type for each in entries(journal, Filter(subject=run))} == {
        "decided",
        "rank-started",
        "rank-exited",
    }
    assert {each.type for each in entries(journal, Filter(subject="n1"))} == {"fleet-declared", "decided"}


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_pages_miss_nothing(journal: MemoryJournal, limit: int) -> None:
    whole = list(entries(journal, Filter(subject="a")))
    found: list[EventView] = []
    after = 0
    for _ in range(100):
        part = page(journal, Filter(subject="a"), after, limit)
        assert len(part.events) <= limit
        found += part.events
        if part.next_after is None:
            break
        after = part.next_after
    assert found == whole


@pytest.mark.parametrize("wanted", [Filter(), Filter(subject="a"), Filter(types=("rank-exited",))])
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_the_newest_are_the_last_ones_in_order(journal: MemoryJournal, wanted: Filter, limit: int) -> None:
    whole = list(entries(journal, wanted))
    assert newest(journal, wanted, limit) == whole[-limit:]


def test_a_service_is_the_subject_of_what_its_replicas_do() -> None:
    home = Served()
    home.serve(service())
    home.bring_up()
    home.hear(("ongoing_milli", 1))
    made = MemoryJournal()
    made.append([item.event for item in home.log], 1_000)
    found = {each.type for each in entries(made, Filter(subject="digits"))}
    assert found == {"service-declared", "decided", "rank-started", "rank-ready", "observed"}
    replica = {each.type for each in entries(made, Filter(subject="digits.1"))}
    assert replica == {"decided", "rank-started", "rank-ready"}
    assert {each.type for each in entries(made, Filter(subject="steersman.gateway"))} == {
        "decided",
        "rank-started",
    }
    assert list(entries(made, Filter(subject="digit"))) == []


def test_every_type_of_event_has_its_subjects() -> None:
    made = MemoryJournal()
    key = ApiKey(name="app", digest="00", services=(WorkloadName("digits"),))
    made.append([ApiKeyCreated(key=key), ApiKeyRevoked(name="app"), GatewayDeclared(gateway=Gateway())], 1)
    found = [each.subjects for each in entries(made, Filter())]
    assert found == [("app", "digits"), ("app",), ("gateway",)]


def test_types(journal: MemoryJournal) -> None:
    wanted = Filter(types=("rank-started", "rank-exited"))
    assert {each.type for each in entries(journal, wanted)} == {"rank-started", "rank-exited"}
    check_types(("decided",))
    with pytest.raises(ConflictError, match="no event is of the type 'nonsense'"):
        check_types(("decided", "nonsense"))


def test_what_mentions_a_workload(journal: MemoryJournal) -> None:
    found = list(about(journal, "ab", 2))
    assert found
    assert all(position > 2 and at_ms == 1_000 for position, at_ms, _ in found)


def test_what_became_of_a_node_is_read_with_every_workload() -> None:
    made = MemoryJournal()
    made.append([NodeHealth(node=NodeId("b"), health="dead"), ApiKeyRevoked(name="other")], 1)
    assert [event for _, _, event in about(made, "job", 0)] == [NodeHealth(node=NodeId("b"), health="dead")]
