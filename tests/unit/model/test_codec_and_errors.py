"""Events to bytes and back, versions, and the words of errors."""

import pytest

from steersman.model import codec
from steersman.model.codec import EVENT_VERSIONS, decode_event, encode_event, event_type
from steersman.model.errors import ConflictError, JournalCorrupt, JournalNewer, NotYetError, SpecError
from steersman.model.events import Event, NodeHealth, Observed
from steersman.model.ids import NodeId, WorkloadName, decision_id, run_id
from steersman.model.reasons import Code, reason


def test_every_event_type_has_a_version() -> None:
    tags = {str(kind.__struct_config__.tag) for kind in Event.__args__}
    assert tags == set(EVENT_VERSIONS)


def test_an_event_is_read_back_as_it_was() -> None:
    event = NodeHealth(node=NodeId("n"), health="dead")
    name, version, body = encode_event(event)
    assert (name, version, body) == ("node-health", 1, b'{"type":"node-health","node":"n","health":"dead"}')
    assert decode_event(name, version, body) == event
    assert event_type(event) == "node-health"


@pytest.mark.parametrize(("name", "version"), [("from-tomorrow", 1), ("node-health", 2)])
def test_what_a_newer_build_wrote_is_refused(name: str, version: int) -> None:
    with pytest.raises(JournalNewer, match="does not know"):
        decode_event(name, version, b"{}")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"type":"node-health","health":"ill","node":"n"}', b"\xff"])
def test_bytes_that_are_no_event_are_corruption(body: bytes) -> None:
    with pytest.raises(JournalCorrupt, match="cannot be read"):
        decode_event("node-health", 1, body)


def test_old_versions_are_raised_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "EVENT_VERSIONS", {**EVENT_VERSIONS, "observed": 3})
    steps = {
        ("observed", 1): lambda raw: {**raw, "now_ms": raw["now"]},
        ("observed", 2): lambda raw: {key: value for key, value in raw.items() if key != "now"},
    }
    monkeypatch.setattr(codec, "UPCASTS", steps)
    assert decode_event("observed", 1, b'{"type":"observed","now":7}') == Observed(now_ms=7)
    monkeypatch.setattr(codec, "UPCASTS", {})
    with pytest.raises(JournalCorrupt):
        decode_event("observed", 1, b'{"type":"observed","now":7}')


def test_identifiers_follow_from_positions() -> None:
    assert decision_id(12, 3) == "12.3"
    assert run_id(WorkloadName("digits"), 12) == "digits.12"


def test_facts_are_sorted() -> None:
    assert reason(Code.PLACED, ranks=2, node="n").facts == (("node", "n"), ("ranks", 2))


def test_errors_say_what_where_and_what_to_do() -> None:
    error = SpecError("is not a number", hint="write 2", source="shop.yaml", line=3, path="resources.cpus")
    assert str(error) == "shop.yaml:3: resources.cpus: is not a number\nhint: write 2"
    assert (error.code, error.path, error.line) == ("spec-invalid", "resources.cpus", 3)
    assert str(SpecError("bad")) == "bad"
    assert NotYetError("later").code == "not-yet"
    assert ConflictError("no", code="unknown-workload").code == "unknown-workload"
    assert ConflictError("no").hint == ""
