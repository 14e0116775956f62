"""A policy as a file: every field is a key; what does not fit is refused with path, line, nearest key."""

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.model.errors import SpecError
from steersman.model.policy import Policy
from steersman.spec import policies
from steersman.spec.nodes import MapNode, compose
from steersman.spec.place import Place
from steersman.spec.policies import AT_LEAST_ONE, FIELDS, NOTES, parse_policy


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_policy(text, "p.yaml")
    assert caught.value.hint
    assert caught.value.source == "p.yaml"
    return caught.value


def test_every_key_is_told_in_its_order() -> None:
    assert list(NOTES) == list(FIELDS)


def test_what_is_not_written_is_the_default() -> None:
    assert parse_policy("preempt_run_ms_min: 5000\n", "p.yaml") == Policy(preempt_run_ms_min=5_000)
    assert parse_policy('{"starts_per_cycle": 1, "backoff_ms_max": 7000}', "p.json") == Policy(
        starts_per_cycle=1, backoff_ms_max=7_000
    )


def test_every_field_of_the_policy_can_be_written() -> None:
    default = Policy()
    text = msgspec.json.encode(default).decode()
    assert parse_policy(text, "p.json") == default
    assert set(FIELDS) == set(msgspec.structs.asdict(default))
    assert set(FIELDS) >= AT_LEAST_ONE


def test_the_examples_are_policies() -> None:
    files = sorted((Path(__file__).parents[3] / "examples" / "policies").iterdir())
    assert len(files) == 3
    for file in files:
        assert parse_policy(file.read_text(), str(file)) != Policy()


@pytest.mark.parametrize(
    ("text", "line", "path", "words", "hint"),
    [
        ("", None, "", "the file is empty", "write its keys"),
        ("# nothing\n", None, "", "the file is empty", "write its keys"),
        ("a: 1\n---\nb: 2\n", None, "", "holds 2 documents", "write its keys"),
        ("- 1\n", 1, "", "this is a list", "write keys"),
        ("hello", 1, "", "this is 'hello'", "write keys"),
        (
            "starts_per_cycle: 1\nbackof_ms_base: 3\n",
            2,
            "backof_ms_base",
            "is not a key",
            "`backoff_ms_base`",
        ),
        ("colour: red\n", 1, "colour", "is not a key", "the keys are: "),
        ("starts_per_cycle: many\n", 1, "starts_per_cycle", "'many' does not fit", "default"),
        ("starts_per_cycle:\n", 1, "starts_per_cycle", "nothing does not fit", "default"),
        ("starts_per_cycle: [1]\n", 1, "starts_per_cycle", "a list does not fit", "default"),
        ("starts_per_cycle: {a: 1}\n", 1, "starts_per_cycle", "a mapping does not fit", "default"),
        ("starts_per_cycle: 1.5\n", 1, "starts_per_cycle", "does not fit", "default"),
        ("starts_per_cycle: 1_000\n", 1, "starts_per_cycle", "does not fit", "default"),
        ("starts_per_cycle: 0\n", 1, "starts_per_cycle", "0 is out of range", "from 1 to"),
        ("\nbackoff_ms_max: -1\n", 2, "backoff_ms_max", "-1 is out of range", "from 0 to"),
        ("backoff_ms_max: 10000000000000000\n", 1, "backoff_ms_max", "out of range", "default"),
        ("backoff_ms_max: 5\nbackoff_ms_base: 6\n", 1, "backoff_ms_base", "longer than the longest", "is 5"),
        ("backoff_ms_base: 900000\n", 1, "backoff_ms_base", "longer than the longest", "is 300,000"),
        ("starts_per_cycle: 1\nstarts_per_cycle: 2\n", 2, "", "", ""),
        ("a: [", None, "", "", ""),
        ("a: \x00", 1, "", "control character", "remove it"),
    ],
)
def test_bad_files_are_refused(text: str, line: int | None, path: str, words: str, hint: str) -> None:
    error = refused(text)
    assert words in error.message
    assert hint in error.hint
    assert error.path == path
    assert line is None or error.line == line


def test_fields_of_other_kinds_can_be_written_when_a_policy_gains_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The shape of a key follows from the field's type alone."""

    class Later(msgspec.Struct):
        fair: bool = False
        half_life_s: float | None = None
        weights: dict[str, int] = {}
        order: str = ""

    fields = {field.name: field for field in msgspec.structs.fields(Later)}
    monkeypatch.setattr(policies, "FIELDS", fields)
    text = "fair: true\nhalf_life_s: 2.5\nweights: {a: 1, b: 2}\norder: age\n"
    (node,) = compose(text, "p.yaml")
    assert isinstance(node, MapNode)
    found = {
        entry.key.text: policies._value(entry.key.text, entry.value, Place(source="p", warnings=[]))
        for entry in node.entries
    }
    assert found == {"fair": True, "half_life_s": 2.5, "weights": {"a": 1, "b": 2}, "order": "age"}
    (node,) = compose("half_life_s: -2.5", "p.yaml")
    assert isinstance(node, MapNode)
    with pytest.raises(SpecError, match="out of range"):
        policies._value("half_life_s", node.entries[0].value, Place(source="p", warnings=[]))
    (node,) = compose("half_life_s: null", "p.yaml")
    assert isinstance(node, MapNode)
    assert policies._value("half_life_s", node.entries[0].value, Place(source="p", warnings=[])) is None


@given(st.text(max_size=60))
def test_any_text_is_a_policy_or_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        parse_policy(text, "p.yaml")


NUMBERS = sorted(FIELDS.keys() - {"order"})


@given(st.dictionaries(st.sampled_from(NUMBERS), st.integers(min_value=1, max_value=10**9)))
def test_what_is_written_is_what_is_read(given_values: dict[str, int]) -> None:
    values = {**given_values, "backoff_ms_max": 10**9}
    assert parse_policy(msgspec.json.encode(values).decode(), "p.json") == Policy(**values)  # type: ignore[arg-type]  # `order` is none of them
    by_index = msgspec.json.encode({**values, "order": "gittins"}).decode()
    assert parse_policy(by_index, "p.json").order == "gittins"


def test_a_number_that_may_be_none_is_read_like_a_number() -> None:
    assert parse_policy("backfill_patience_ms: null\n", "p.yaml").backfill_patience_ms is None
    assert parse_policy("backfill_patience_ms: 0\n", "p.yaml").backfill_patience_ms == 0
    for text in ("1_000", "-1", "soon"):
        with pytest.raises(SpecError):
            parse_policy(f"backfill_patience_ms: {text}\n", "p.yaml")
